//! What a manifest says, field by field. `docs/manifest.md` explains the fields for users.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{Error as _, SeqAccess, Visitor};
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

/// A manifest without its rows. It is enough to list backups and to choose a parent. There may be
/// very many rows, so the head can be read without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the manifest format: [`FORMAT`](super::FORMAT), or 2 if the head is longer than
    /// readers of format 1 expect.
    pub format: u32,
    /// The backup's name.
    pub label: Label,
    /// The order of the backups in their repository, from 1. `latest` and parents follow it, not
    /// the clock.
    pub sequence: u64,
    /// How the backup got its bytes.
    pub kind: BackupKind,
    /// The backup that a diff reused files from. It may be gone.
    pub parent: Option<Label>,
    /// The number of the branch in this repository: 1 for the first, and one more for each
    /// `--new-branch`.
    pub branch: u32,
    /// The program that wrote the manifest, such as "kbackup 0.1.0".
    pub tool: String,
    /// When the run began.
    pub started: Timestamp,
    /// When everything was proven.
    pub finished: Timestamp,
    /// Where the backup was taken.
    pub source: SourceRecord,
    /// The log that the backup holds.
    pub log: LogRecord,
    /// How scavenges were kept away from the copy.
    pub scavenging: Scavenging,
    /// What the backup holds, and what it lacks.
    pub contents: Contents,
    /// How much was read and stored.
    pub cost: Cost,
    /// The sums of the rows.
    pub totals: Totals,
}

/// The sums of a backup's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Number of files.
    pub files: u64,
    /// Bytes that a restore writes, holes included.
    pub bytes: u64,
}

impl Totals {
    /// The sums of `rows`.
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let mut bytes: u64 = 0;
        for row in rows {
            bytes = bytes.saturating_add(row.size);
        }

        Self {
            files: rows.len() as u64,
            bytes,
        }
    }
}

/// The node that was backed up, and how kbackup reached it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The server's version, from the node or from `--server-version`. `None` if neither told it.
    pub server_version: Option<String>,
    /// Whose files these are.
    pub identity: Identity,
    /// The id of the server process, new at each start. `None` for an offline backup.
    pub instance: Option<Uuid>,
    /// The node's state: `leader`, `follower`, … `None` for an offline backup.
    pub state: Option<String>,
    /// The db directory, as text for people.
    pub db: String,
    /// The index directory, as text for people.
    pub index: String,
    /// The owner of the files.
    pub owner: Option<Owner>,
    /// True for a running node; false for a stopped node or a snapshot.
    pub online: bool,
    /// The restore that wrote this directory. `None` if kbackup did not restore it.
    pub restored: Option<RestoredFrom>,
    /// Bytes of log that the leader had when the backup began, and that are missing here. `None` if
    /// no bytes are missing.
    pub missing_bytes: Option<u64>,
}

/// What distinguishes the data of one node from the data of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The id of the log's first epoch. It identifies the database (disk-format §4.5).
    pub database: Uuid,
    /// The advertised `host:port`. It identifies the member. `None` for an offline backup.
    pub endpoint: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_deref();
        let endpoint = endpoint.unwrap_or("a node that was not asked");
        write!(f, "{endpoint} (database {})", self.database)
    }
}

/// The owner of the server's files, by number. The names are for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// The user's name on the node's machine.
    pub user_name: Option<String>,
    /// The group's name on the node's machine.
    pub group_name: Option<String>,
}

/// A finished restore, as its mark in the directory tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// The id of the repository that the backup came from.
    pub repository: Uuid,
    /// The backup that was restored.
    pub label: Label,
    /// When the restore ended.
    pub at: Timestamp,
}

/// The log that a restore brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Bytes of log per chunk number.
    pub chunk_size: ChunkSize,
    /// P: the restored log ends here, between two appends.
    pub position: Boundary,
    /// When the last event before P was written, by the clock of its leader. `None` if kbackup saw
    /// no event.
    pub last_event: Option<Timestamp>,
    /// The epochs before P, oldest first.
    pub lineage: Lineage,
    /// The checkpoints as the node had them.
    pub read: ReadCheckpoints,
    /// The checkpoints as the backup stores them.
    pub stored: StoredCheckpoints,
    /// How far into the log the stored index reaches. `None` if there is no index, or if it is
    /// empty.
    pub index_commit: Option<LogPosition>,
}

/// The checkpoints that were read from the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadCheckpoints {
    /// `writer.chk`.
    pub writer: WriterPosition,
    /// `chaser.chk`.
    pub chaser: LogPosition,
    /// `epoch.chk`. `None` for −1.
    pub epoch: Option<LogPosition>,
    /// `proposal.chk`, which is a number and not a position. `None` for −1, and if there is no
    /// file.
    pub proposal: Option<i64>,
}

/// The stored checkpoints that do not follow from P alone. The stored `writer.chk` and `chaser.chk`
/// are both P, and the stored `truncate.chk` is −1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCheckpoints {
    /// `epoch.chk`: the last epoch before P. `None` for −1.
    pub epoch: Option<LogPosition>,
    /// `proposal.chk`. `None` for −1.
    pub proposal: Option<i64>,
}

/// How scavenges were kept away from the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scavenging {
    /// How sure kbackup is that no scavenge ran.
    pub quiet: Quiet,
    /// The id of the scavenge that was stopped for this backup.
    pub stopped: Option<String>,
    /// Whether auto-scavenge was paused for this backup. The stored log contains the pause, so a
    /// restored cluster comes up paused.
    pub auto_paused: bool,
    /// The state of the cluster's auto-scavenge before kbackup paused anything, as the server names
    /// it: `Waiting`, `Paused`, … `None` if there is none, or if the node was not asked. kbackup
    /// 0.1.0 did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_found: Option<String>,
}

impl Scavenging {
    /// Whether somebody else had paused auto-scavenge. The stored log contains that pause, too.
    #[must_use]
    pub fn was_paused_by_others(&self) -> bool {
        let was_paused = matches!(self.auto_found.as_deref(), Some("Paused" | "Pausing"));
        was_paused && !self.auto_paused
    }
}

/// How sure kbackup is that no scavenge ran during the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quiet {
    /// The node said before and after the copy that no scavenge ran.
    Confirmed,
    /// The node cannot say it. Its scavenge log and its files showed no scavenge.
    Inferred,
    /// The operator passed `--no-quiesce`, so kbackup did not ask.
    NotAsked,
    /// The node was stopped.
    Offline,
}

/// What the backup holds, and what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Whether the backup holds the index. Otherwise the server rebuilds it.
    pub index: bool,
    /// What became of `kurrent.ddb`.
    pub secondary_index: SecondaryIndex,
    /// Whether chunks below the first one here are in an archive. A server needs them to start.
    pub archive: bool,
    /// Chunks that failed their own MD5 and were accepted with `--accept-damaged`.
    #[serde(deserialize_with = "a_bounded_list")]
    pub damaged: Vec<RelativePath>,
}

/// The most damaged chunks that a manifest may name. No log has so many chunks.
const MAX_DAMAGED: usize = 400_000;

/// Reads a list of paths, but not an endless one. In memory a short path takes far more than its
/// text, so a hostile manifest could use up all memory.
fn a_bounded_list<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<RelativePath>, D::Error> {
    deserializer.deserialize_seq(BoundedPaths)
}

struct BoundedPaths;

impl<'de> Visitor<'de> for BoundedPaths {
    type Value = Vec<RelativePath>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_DAMAGED} paths")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut paths = Vec::new();
        while let Some(path) = list.next_element()? {
            if paths.len() == MAX_DAMAGED {
                return Err(A::Error::custom(format!("more than {MAX_DAMAGED} paths")));
            }
            paths.push(path);
        }
        Ok(paths)
    }
}

/// What became of `kurrent.ddb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondaryIndex {
    /// The node has none.
    Absent,
    /// The backup holds it. It comes from a stopped node.
    Included,
    /// The backup leaves it out, because a running node changes it in place, or because no server
    /// could open it. The server rebuilds it, perhaps without the schema registry.
    LeftOut,
}

/// How much a backup read and stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes newly written to the repository.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part.
    pub files_copied: u64,
    /// Files that were reused from the parent.
    pub files_linked: u64,
    /// Files that were resumed: an interrupted run had copied them, and the server's MD5 proved
    /// them.
    #[serde(default)]
    pub files_resumed: u64,
    /// Bytes of the resumed files, and of the beginnings of files that this run finished. This run
    /// neither read them from the source nor wrote them.
    #[serde(default)]
    pub bytes_resumed: u64,
    /// How often the procedure started over.
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
    /// Where a restore writes the file.
    pub path: RelativePath,
    /// What the file is for.
    pub role: Role,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits on the node.
    pub mode: u32,
    /// The last modification on the node, in nanoseconds, so that a later change shows.
    pub modified: Timestamp,
    /// When kbackup read the bytes from the node.
    pub captured: Timestamp,
    /// Hash of all `size` stored bytes. A hole reads as zeros.
    pub blake3: Blake3Hash,
    /// What header and footer say. Only chunks have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub chunk: Option<ChunkRow>,
    /// The MD5 in the last 16 bytes. Only tables have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub table_md5: Option<Md5Hash>,
}

/// The identity of a chunk file. kbackup holds a chunk already only if all of this and the size are
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRow {
    /// The first chunk number in the file.
    pub start: ChunkNumber,
    /// The last chunk number in the file.
    pub end: ChunkNumber,
    /// The version in the file's name.
    pub version: ChunkVersion,
    /// The header's random id of this file.
    pub id: Uuid,
    /// The footer's MD5. `None` for the active chunk.
    pub md5: Option<Md5Hash>,
    /// Whether a scavenge compacted the chunk.
    pub scavenged: bool,
    /// How the header says that the data was encrypted.
    pub transform: Transform,
}

impl ChunkRow {
    /// The identity in header, footer and name of a chunk file.
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

    /// Whether both describe one backup, kept in two repositories. Everything is the same but what
    /// each repository gives its backups: number, branch, parent and cost.
    #[must_use]
    pub fn is_copy_of(&self, original: &Self) -> bool {
        let mut head = self.head.clone();
        head.sequence = original.sequence;
        head.branch = original.branch;
        head.parent.clone_from(&original.parent);
        head.cost = original.cost.clone();
        head == original.head && self.files == original.files
    }
}

impl Head {
    /// Whether `latest` may name the backup: all its chunks fit their own MD5.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.contents.damaged.is_empty()
    }
}
