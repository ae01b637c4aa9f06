//! What a manifest says: one type for each object of the JSON text. `docs/manifest.md` explains every
//! field to operators.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BackupKind, Blake3Hash, Label, RelativePath};
use crate::clock::Timestamp;
use crate::format::chunk::{ChunkFile, Transform};
use crate::format::{
    Boundary, ChunkNumber, ChunkSize, ChunkVersion, Lineage, LogPosition, Md5Hash, WriterPosition,
};

/// The description of one backup: its head, and a row for each file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Everything but the rows.
    #[serde(flatten)]
    pub head: Head,
    /// A row for each file, in the order of their paths.
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

/// A manifest without its rows. It is enough to list backups, and to find the parent of the next
/// one, and can be read alone, because rows can be many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the manifest format.
    pub format: u32,
    /// The backup's name.
    pub label: Label,
    /// The backup's place in the order of its repository. `latest` and parents follow it, not the
    /// clock.
    pub sequence: u64,
    /// Whether it is a full or a diff.
    pub kind: BackupKind,
    /// The backup that a diff reused unchanged files of.
    pub parent: Option<Label>,
    /// Number of the branch in this repository: 1 for the first, and one more for each
    /// `--new-branch`.
    pub branch: u32,
    /// The program that wrote it: "kbackup 0.1.0".
    pub tool: String,
    /// When the run began.
    pub started: Timestamp,
    /// When everything was proven.
    pub finished: Timestamp,
    /// The node that was backed up.
    pub source: Source,
    /// The log in the backup.
    pub log: Log,
    /// How scavenging was kept away from the copy.
    pub scavenging: Scavenging,
    /// What is in the backup, and what is not.
    pub contents: Contents,
    /// What the backup cost.
    pub cost: Cost,
    /// How many files the backup has, and how large they are.
    pub totals: Totals,
}

/// The sum of a backup's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Number of files.
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
    /// The server's version; `None` if no node was asked and the operator did not name it.
    pub server_version: Option<String>,
    /// The node that the files belong to.
    pub identity: Identity,
    /// The server process: the id is new at each start. `None` if no node was asked.
    pub instance: Option<Uuid>,
    /// The node's role, such as `leader` or `follower`; `None` if no node was asked.
    pub state: Option<String>,
    /// The db directory, as text for people.
    pub db: String,
    /// The index directory, as text for people.
    pub index: String,
    /// Who owned the files.
    pub owner: Option<Owner>,
    /// True for a running node; false for a stopped one, or a snapshot of its disk.
    pub online: bool,
    /// The restore that this directory came from, if kbackup made it.
    pub restored: Option<RestoredFrom>,
    /// For a member that did not lead: how many bytes of the leader's log are missing here.
    pub missing_bytes: Option<u64>,
}

/// What tells one node's data from another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Id of the first epoch: the database (disk-format §4.5).
    pub database: Uuid,
    /// The advertised `host:port`: the member. `None` if no node was asked.
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
    /// The backup that was restored.
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
    /// When the last event before P was written, by the clock of its leader; `None` if no event was
    /// seen.
    pub last_event: Option<Timestamp>,
    /// The epochs before P.
    pub lineage: Lineage,
    /// The checkpoints as they were read.
    pub read: ReadCheckpoints,
    /// The checkpoints as they are stored.
    pub stored: StoredCheckpoints,
    /// The position that the stored index reaches; `None` if there is no index, or it is empty.
    pub index_commit: Option<LogPosition>,
}

/// The checkpoints as they were read from the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCheckpoints {
    /// `writer.chk`.
    pub writer: WriterPosition,
    /// `chaser.chk`.
    pub chaser: LogPosition,
    /// `epoch.chk`; `None` for −1.
    pub epoch: Option<LogPosition>,
    /// `proposal.chk`; `None` for −1, or if there is no such file.
    pub proposal: Option<i64>,
}

/// The checkpoints as a restore writes them. `writer.chk` and `chaser.chk` are both P, `truncate.chk` is −1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCheckpoints {
    /// `epoch.chk`: the last epoch before P; `None` for −1.
    pub epoch: Option<LogPosition>,
    /// `proposal.chk`; `None` for −1.
    pub proposal: Option<i64>,
}

/// How scavenging was kept away from the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scavenging {
    /// How sure it is that none ran.
    pub quiet: Quiet,
    /// The id of the scavenge that was stopped for this backup.
    pub stopped: Option<String>,
    /// Auto-scavenge was paused for this backup. Its log says so, and a restored cluster comes up
    /// paused.
    pub auto_paused: bool,
}

/// How sure it is that no scavenge ran during the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quiet {
    /// The node said so, before and after.
    Confirmed,
    /// The node cannot say; neither its log of scavenges nor its files showed one.
    Inferred,
    /// The operator switched it off with `--no-quiesce`.
    NotAsked,
    /// No node was running.
    Offline,
}

/// What is, and what is not, in the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The index is in the backup. Without it, the node rebuilds it.
    pub index: bool,
    /// What became of `kurrent.ddb`.
    pub secondary_index: SecondaryIndex,
    /// Chunks below the first local one are in an archive. The server needs them to start.
    pub archive: bool,
    /// Chunks that fail their own MD5, and were copied because of `--accept-damaged`.
    #[serde(deserialize_with = "a_bounded_list")]
    pub damaged: Vec<RelativePath>,
}

/// Reads a list of bounded length. A short path takes far more memory than its text, so a hostile
/// list could take all there is.
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
    /// It is in the backup, because the node was stopped.
    Included,
    /// It was left out, because a running node changes it in place. The server rebuilds it, perhaps
    /// without the schema registry.
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
    /// Files reused from the parent.
    pub files_linked: u64,
    /// Files resumed from an interrupted run, and proven by the server's MD5.
    #[serde(default)]
    pub files_resumed: u64,
    /// Bytes of the resumed files. This run has neither read nor written them.
    #[serde(default)]
    pub bytes_resumed: u64,
    /// How often the procedure had to start over.
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
    /// The file's path in the data directory.
    pub path: RelativePath,
    /// What the file is for.
    pub role: Role,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits on the node.
    pub mode: u32,
    /// Last modification on the node, to the nanosecond. It shows that a file has changed.
    pub modified: Timestamp,
    /// When its bytes were read from the node.
    pub captured: Timestamp,
    /// Hash of all `size` stored bytes; holes read as zeros.
    pub blake3: Blake3Hash,
    /// For chunks: what the header and footer say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chunk: Option<ChunkRow>,
    /// For tables: the MD5 in the last 16 bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub table_md5: Option<Md5Hash>,
}

/// The identity of a chunk file. A stored chunk is reused only if all of it agrees, and the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRow {
    /// First chunk number in it.
    pub start: ChunkNumber,
    /// Last chunk number in it.
    pub end: ChunkNumber,
    /// Version in the file's name.
    pub version: ChunkVersion,
    /// The random id in the file's header.
    pub id: Uuid,
    /// The MD5 in the footer; `None` for the active chunk.
    pub md5: Option<Md5Hash>,
    /// Whether a scavenge has compacted it.
    pub scavenged: bool,
    /// How the header says that the chunk is encrypted.
    pub transform: Transform,
}

impl ChunkRow {
    /// The identity that header, footer and name of a chunk file give it.
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
    /// Whether the backup holds no chunk that was damaged at the source. Only then may it be
    /// `latest` by itself.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.contents.damaged.is_empty()
    }
}
