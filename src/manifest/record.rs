use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BackupKind, Blake3Hash, Label, RelativePath};
use crate::clock::Timestamp;
use crate::format::chunk::{ChunkFile, Transform};
use crate::format::{
    Boundary, ChunkNumber, ChunkSize, ChunkVersion, Lineage, LogPosition, Md5Hash, WriterPosition,
};

/// Everything known of one backup: its head, and a row for each file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// All but the rows.
    #[serde(flatten)]
    pub head: Head,
    /// Every file, in the order of their paths.
    pub files: Vec<Row>,
}

impl Deref for Manifest {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl DerefMut for Manifest {
    fn deref_mut(&mut self) -> &mut Head {
        &mut self.head
    }
}

/// A manifest without its rows: enough for a list, and to find the place of the next backup. It can
/// be read without them, as they can be many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of this format.
    pub format: u32,
    /// The backup's name.
    pub label: Label,
    /// Order of the backups in their repository; `latest` and parents follow it, not the clock.
    pub sequence: u64,
    /// How it came to its bytes.
    pub kind: BackupKind,
    /// The backup that a diff took its unchanged files from.
    pub parent: Option<Label>,
    /// Number of the branch in this repository: 1 for the first, one more for each `--new-branch`.
    pub branch: u32,
    /// Which program wrote it: "kbackup 0.1.0".
    pub tool: String,
    /// When the run began.
    pub started: Timestamp,
    /// When everything was proven.
    pub finished: Timestamp,
    /// Where it was taken.
    pub source: Source,
    /// The state of the log in it.
    pub log: Log,
    /// What was done about scavenging.
    pub scavenging: Scavenging,
    /// What is, and what is not, inside.
    pub contents: Contents,
    /// What it cost.
    pub cost: Cost,
    /// How many files it has, and how large they are.
    pub totals: Totals,
}

/// The sum of a backup's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Bytes that a restore writes, holes included.
    pub bytes: u64,
}

impl Totals {
    /// The sum of `rows`.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let bytes = rows.iter().map(|row| row.size).fold(0, u64::saturating_add);
        Self {
            files: rows.len() as u64,
            bytes,
        }
    }
}

/// The node, and how it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The server's version, where a node was asked or the operator named it.
    pub server_version: Option<String>,
    /// Whose files these are.
    pub identity: Identity,
    /// The server process; new at each of its starts.
    pub instance: Option<Uuid>,
    /// `leader`, `follower`, …
    pub state: Option<String>,
    /// The db directory, as text for people.
    pub db: String,
    /// The index directory, as text for people.
    pub index: String,
    /// Who owned the files.
    pub owner: Option<Owner>,
    /// A running node (true), or a stopped one or a snapshot (false).
    pub online: bool,
    /// The restore that this directory came from, if kbackup made it.
    pub restored: Option<RestoredFrom>,
    /// Bytes by which the leader was ahead when a member that does not lead was copied, as far as
    /// they are missing here.
    pub missing_bytes: Option<u64>,
}

/// What tells one node's data from another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Id of the first epoch: the database (disk-format §4.5).
    pub database: Uuid,
    /// The advertised `host:port`: the member. Unknown where no node was asked.
    pub endpoint: Option<String>,
}

/// Owner of the server's files, by number; the names are for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Name of the user on the node's machine.
    pub user_name: Option<String>,
    /// Name of the group on the node's machine.
    pub group_name: Option<String>,
}

/// A restore that left its mark in the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// The repository's id.
    pub repository: Uuid,
    /// The backup.
    pub label: Label,
    /// When the restore ended.
    pub at: Timestamp,
}

/// The log that a restore brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// Bytes of log per chunk number.
    pub chunk_size: ChunkSize,
    /// P: the log ends here, between two appends.
    pub position: Boundary,
    /// When the last event before P was written, by the clock of its leader; none where no event
    /// was seen.
    pub last_event: Option<Timestamp>,
    /// The epochs before P.
    pub lineage: Lineage,
    /// The checkpoints as they were read.
    pub read: ReadCheckpoints,
    /// The checkpoints as they are stored.
    pub stored: StoredCheckpoints,
    /// Up to where the stored index reaches; none where no index is carried or it is empty.
    pub index_commit: Option<LogPosition>,
}

/// Raw values, as the node had them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCheckpoints {
    /// `writer.chk`.
    pub writer: WriterPosition,
    /// `chaser.chk`.
    pub chaser: LogPosition,
    /// `epoch.chk`; none for −1.
    pub epoch: Option<LogPosition>,
    /// `proposal.chk`, a number; none for −1 or where there is no such file.
    pub proposal: Option<i64>,
}

/// What a restore writes; `writer.chk` and `chaser.chk` are both P, `truncate.chk` is −1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCheckpoints {
    /// `epoch.chk`: the last epoch before P; none for −1.
    pub epoch: Option<LogPosition>,
    /// `proposal.chk`; none for −1.
    pub proposal: Option<i64>,
}

/// How scavenging was kept away from the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scavenging {
    /// How sure it is that none ran.
    pub quiet: Quiet,
    /// The scavenge that was stopped for this backup.
    pub stopped: Option<String>,
    /// Auto-scavenge was paused for this backup: the log in it says so, and a restored cluster
    /// comes up paused.
    pub auto_paused: bool,
}

/// How sure it is that no scavenge ran during the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quiet {
    /// The node said so, before and after.
    Confirmed,
    /// The node cannot say; its log of scavenges and its files did not show one.
    Inferred,
    /// The operator gave up asking with `--no-quiesce`.
    NotAsked,
    /// No node was running.
    Offline,
}

/// What is, and what is not, in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The index came along; else the node rebuilds it.
    pub index: bool,
    /// `kurrent.ddb`: what became of it.
    pub secondary_index: SecondaryIndex,
    /// Chunks below the first local one lie in an archive, and are needed for a start.
    pub archive: bool,
    /// Chunks that fail their own MD5, taken with `--accept-damaged`.
    #[serde(deserialize_with = "a_bounded_list")]
    pub damaged: Vec<RelativePath>,
}

/// A short path takes far more memory than text: a list of nothing else must not take all there is.
fn a_bounded_list<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<RelativePath>, D::Error> {
    /// More than any log has chunks.
    const MOST: usize = 400_000;
    struct Paths;
    impl<'de> serde::de::Visitor<'de> for Paths {
        type Value = Vec<RelativePath>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MOST} paths")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut paths: A,
        ) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(path) = paths.next_element()? {
                if found.len() == MOST {
                    return Err(serde::de::Error::custom(format!("more than {MOST} paths")));
                }
                found.push(path);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_seq(Paths)
}

/// What became of `kurrent.ddb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondaryIndex {
    /// The node has none.
    Absent,
    /// It is in the backup (a stopped node's).
    Included,
    /// It was left out, because it changes in place under a running node; the server rebuilds it,
    /// perhaps without the schema registry.
    LeftOut,
}

/// What a backup cost.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes newly written to the repository.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part.
    pub files_copied: u64,
    /// Files taken over from an earlier backup.
    pub files_linked: u64,
    /// Files that an interrupted run had copied: taken up, and proven by the server's MD5.
    #[serde(default)]
    pub files_resumed: u64,
    /// Their bytes, neither read from the source nor written by this run.
    #[serde(default)]
    pub bytes_resumed: u64,
    /// How often the procedure had to go back.
    pub retries: u32,
}

impl Cost {
    /// Bytes that are new in the repository with this backup, whichever run wrote them.
    #[must_use]
    pub const fn bytes_new(&self) -> u64 {
        self.bytes_stored.saturating_add(self.bytes_resumed)
    }
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A chunk.
    Chunk,
    /// A checkpoint file.
    Checkpoint,
    /// `indexmap`.
    IndexMap,
    /// An index table.
    Table,
    /// The bloom filter of a table.
    TableFilter,
    /// The stream-existence filter's checkpoint.
    StreamFilterCheckpoint,
    /// The stream-existence filter.
    StreamFilter,
    /// `scavenging.db`.
    ScavengeState,
    /// `kurrent.ddb` and its write-ahead log.
    SecondaryIndex,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Where a restore puts it.
    pub path: RelativePath,
    /// What it is for.
    pub role: Role,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits on the node.
    pub mode: u32,
    /// Last modification on the node, to the nanosecond: a changed file shows by it.
    pub modified: Timestamp,
    /// When its bytes were read from the node.
    pub captured: Timestamp,
    /// Hash of all `size` stored bytes, holes read as zeros.
    pub blake3: Blake3Hash,
    /// For chunks: what the header and footer say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chunk: Option<ChunkRow>,
    /// For tables: the MD5 in the last 16 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub table_md5: Option<Md5Hash>,
}

/// The identity of a chunk file; a chunk is held already only when all of it, and the size, agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRow {
    /// First chunk number in it.
    pub start: ChunkNumber,
    /// Last chunk number in it.
    pub end: ChunkNumber,
    /// Version in the file's name.
    pub version: ChunkVersion,
    /// The header's random id of this file.
    pub id: Uuid,
    /// The footer's MD5; none for the active chunk.
    pub md5: Option<Md5Hash>,
    /// Compacted by a scavenge.
    pub scavenged: bool,
    /// What the header says of encryption.
    pub transform: Transform,
}

impl ChunkRow {
    /// What header, footer and name of a chunk file say.
    #[must_use]
    pub fn of(file: &ChunkFile, version: ChunkVersion) -> Self {
        let identity = file.identity(version);
        Self {
            start: identity.start,
            end: identity.end,
            version,
            id: identity.chunk_id,
            md5: identity.md5,
            scavenged: file.header.scavenged,
            transform: file.header.transform,
        }
    }
}

impl Manifest {
    /// The row of a path.
    #[must_use]
    pub fn row(&self, path: &RelativePath) -> Option<&Row> {
        self.files.iter().find(|row| row.path == *path)
    }
}

impl Head {
    /// Whether the backup may be `latest` by itself.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.contents.damaged.is_empty()
    }
}
