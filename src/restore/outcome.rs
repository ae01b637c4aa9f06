//! What a restored directory will consist of: its files, its checkpoints, and what a server does
//! with them at its first start.
//!
//! All of it follows from the manifest and the request, so it is computed without a disk. `target`
//! looks at the restore target; `guard`, `place` and `finish` write what is computed here.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::format::checkpoint::{self, Checkpoint};
use crate::format::chunk::Transform;
use crate::format::{LogPosition, Md5Hash};
use crate::log::{ChunkPlace, LogEndingAt};
use crate::manifest::{
    ChunkRow, Manifest, RelativePath, RestoreMark, Role, Root, Row, SecondaryIndex,
};
use crate::server::ServerVersion;
use crate::server::facts::{EXITS_AFTER_TRUNCATION, HAS_FILTERS, REFUSES_OLD_TABLES};

/// A restored directory that no server has touched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DirectoryOutcome {
    /// The files to place, in the order of their paths. The checkpoints are not among them, because
    /// a restore computes and writes these itself.
    pub(super) files: Vec<PlacedFile>,
    /// Files of the backup that the restore leaves out.
    pub(super) left_out: Vec<RelativePath>,
    pub(super) checkpoints: FinalCheckpoints,
    pub(super) truncation: Truncation,
    pub(super) index: IndexOutcome,
    /// Whether the server lacks the stream-existence filter, and builds it.
    pub(super) lacks_stream_filter: bool,
    pub(super) secondary_index: SecondaryIndexOutcome,
    pub(super) first_start: FirstStart,
}

/// One file that the restore places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedFile {
    pub(super) row: Row,
    /// Permission bits in the target.
    pub(super) mode: u32,
    /// The server's own MD5 in the last 16 bytes. `None` if the file has none, or if the backup
    /// says that it is wrong.
    pub(super) md5: Option<Md5Hash>,
    pub(super) extent: FileExtent,
}

/// How much of a file is data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileExtent {
    /// All of it.
    Whole,
    /// The log ends in this chunk: only this many bytes are data. Zeros fill the rest of the file.
    CutAt(u64),
}

/// The checkpoints of a restored directory, as the files hold them (−1 for "none").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FinalCheckpoints {
    pub(super) epoch: i64,
    pub(super) proposal: i64,
    pub(super) truncate: i64,
    /// P, in `writer.chk` and `chaser.chk` alike.
    pub(super) position: i64,
}

/// What becomes of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexOutcome {
    /// The restore brings it back, and the server uses it.
    Carried,
    /// The restore brings it back. The server refuses its tables, copies it aside and builds another
    /// one from the whole log (O18).
    Refused,
    /// The backup holds none. The server builds it from the whole log.
    NotInBackup,
}

/// What becomes of `kurrent.ddb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecondaryIndexOutcome {
    /// The node had none.
    Absent,
    /// The restore brings it back.
    Carried,
    /// The backup holds it, but it may be ahead of the log. The server never corrects that, and new
    /// events would stay unindexed (O35).
    MayBeAhead,
    /// The node had one, and the backup does not hold it.
    NotInBackup,
}

/// What becomes of `truncate.chk`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "truncate", rename_all = "kebab-case")]
pub enum Truncation {
    /// A copy of `chaser.chk`, as the vendor's procedure says (R3).
    ToPosition {
        /// P, in bytes.
        position: LogPosition,
    },
    /// −1, because the operator asked for it (`--ready`).
    Ready,
    /// −1, because a truncation inside a scavenged chunk goes back to the start of that chunk and
    /// would lose events (O33).
    Scavenged {
        /// The file name of the chunk that holds P.
        chunk: String,
    },
    /// −1, because there is no log.
    EmptyLog,
}

/// The first start of the server in a restored directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstStart {
    /// For programs.
    pub behaviour: FirstStartBehaviour,
    /// The same for people, in a sentence.
    pub text: String,
}

/// What a server does at its first start (O10, O11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirstStartBehaviour {
    /// It comes up.
    Starts,
    /// It truncates, which changes nothing here, and comes up.
    TruncatesAndStarts,
    /// It truncates, which changes nothing here, exits with code 0, and has to be started again.
    ExitsOnce,
    /// As one of the two above. The server's version is not known.
    MayExitOnce,
}

impl DirectoryOutcome {
    /// `ready` asks for a `truncate.chk` of −1. `server` is the version that will be started.
    /// `has_old_tables` says that some index table has format version 1.
    pub(super) fn new(
        manifest: &Manifest,
        ready: bool,
        server: Option<&ServerVersion>,
        has_old_tables: bool,
    ) -> Self {
        let log = LogEndingAt::of(&manifest.log);
        let secondary_index = SecondaryIndexOutcome::decide(manifest);
        let truncation = Truncation::decide(manifest, ready);

        let mut files = Vec::with_capacity(manifest.files.len());
        let mut left_out = Vec::new();
        for row in &manifest.files {
            if row.role == Role::Checkpoint {
                continue;
            }
            if is_left_out(row, secondary_index) {
                left_out.push(row.path.clone());
            } else {
                files.push(PlacedFile::new(row, &log, &manifest.contents.damaged));
            }
        }

        Self {
            files,
            left_out,
            checkpoints: FinalCheckpoints::new(&log, &truncation),
            first_start: FirstStart::new(&truncation, server),
            truncation,
            index: IndexOutcome::decide(manifest, server, has_old_tables),
            lacks_stream_filter: lacks_stream_filter(manifest, server),
            secondary_index,
        }
    }

    /// Bytes that the server writes beside the index directory at its first start: a copy of an
    /// index that it refuses.
    pub(super) fn bytes_copied_aside(&self) -> u64 {
        if self.index != IndexOutcome::Refused {
            return 0;
        }

        let mut bytes: u64 = 0;
        for file in &self.files {
            if file.row.path.root() == Root::Index {
                bytes = bytes.saturating_add(file.bytes_on_disk());
            }
        }
        bytes
    }

    /// Bytes of the placed files, holes included.
    pub(super) fn bytes(&self) -> u64 {
        let mut bytes: u64 = 0;
        for file in &self.files {
            bytes = bytes.saturating_add(file.row.size);
        }
        bytes
    }
}

fn is_left_out(row: &Row, secondary_index: SecondaryIndexOutcome) -> bool {
    // The restore leaves a mark of its own.
    let is_old_mark = row.path.root() == Root::Db && row.path.below_root() == RestoreMark::NAME;
    if is_old_mark {
        return true;
    }
    row.role == Role::SecondaryIndex && secondary_index != SecondaryIndexOutcome::Carried
}

impl PlacedFile {
    fn new(row: &Row, log: &LogEndingAt, damaged: &[RelativePath]) -> Self {
        let is_damaged = damaged.contains(&row.path);
        let md5 = match row.chunk {
            _ if is_damaged => None,
            Some(chunk) => row.table_md5.or(chunk.md5),
            None => row.table_md5,
        };

        let active = row.chunk.filter(|chunk| log.is_active(chunk));
        // In a transformed chunk the offset of P is not known.
        let extent = match active {
            Some(chunk) if chunk.transform == Transform::Identity => {
                FileExtent::CutAt(log.active_bytes())
            }
            Some(_) | None => FileExtent::Whole,
        };

        Self {
            mode: mode(row, active.is_some()),
            md5,
            extent,
            row: row.clone(),
        }
    }

    /// Bytes that the file takes on the disk, as far as holes are known.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        const BLOCK: u64 = 4096;
        let data = match self.extent {
            FileExtent::Whole => self.row.size,
            FileExtent::CutAt(end) => self.row.size.min(end),
        };
        data.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
    }
}

/// Permission bits of a restored file: those of the node without the bits that make a file
/// executable or change its user. What the server never writes again is read-only, so that a
/// server from 25.0 on need not change it (O19). What the server does write is writable for the
/// owner.
fn mode(row: &Row, is_active: bool) -> u32 {
    let is_final = match row.role {
        Role::Table => true,
        Role::Chunk => !is_active,
        _ => false,
    };
    if is_final {
        row.mode & 0o444 | 0o400
    } else {
        row.mode & 0o666 | 0o600
    }
}

impl FinalCheckpoints {
    fn new(log: &LogEndingAt, truncation: &Truncation) -> Self {
        Self {
            epoch: log.checkpoint(Checkpoint::Epoch),
            proposal: log.checkpoint(Checkpoint::Proposal),
            truncate: checkpoint::signed(truncation.value()),
            position: log.position().to_signed(),
        }
    }

    /// Each checkpoint with its value.
    pub(super) fn values(&self) -> [(Checkpoint, i64); 5] {
        [
            (Checkpoint::Epoch, self.epoch),
            (Checkpoint::Proposal, self.proposal),
            (Checkpoint::Truncate, self.truncate),
            (Checkpoint::Chaser, self.position),
            (Checkpoint::Writer, self.position),
        ]
    }
}

impl IndexOutcome {
    fn decide(manifest: &Manifest, server: Option<&ServerVersion>, has_old_tables: bool) -> Self {
        // Earlier versions of kbackup said of an index that was not there that they held it.
        let is_in_backup = manifest.contents.index && has_role(manifest, Role::IndexMap);
        if !is_in_backup {
            return Self::NotInBackup;
        }

        let is_refused = server.is_some_and(|server| server.has(REFUSES_OLD_TABLES));
        if has_old_tables && is_refused {
            return Self::Refused;
        }
        Self::Carried
    }
}

/// Whether the server keeps a stream-existence filter that the backup does not hold.
fn lacks_stream_filter(manifest: &Manifest, server: Option<&ServerVersion>) -> bool {
    let is_kept = server.is_none_or(|server| server.has(HAS_FILTERS));
    let has_log = manifest.log.position.position() > LogPosition::ZERO;
    is_kept && has_log && !has_role(manifest, Role::StreamFilter)
}

fn has_role(manifest: &Manifest, role: Role) -> bool {
    manifest.files.iter().any(|row| row.role == role)
}

impl SecondaryIndexOutcome {
    fn decide(manifest: &Manifest) -> Self {
        let log = &manifest.log;
        match manifest.contents.secondary_index {
            SecondaryIndex::Absent => Self::Absent,
            SecondaryIndex::LeftOut => Self::NotInBackup,
            SecondaryIndex::Included if log.read.writer.0 > log.position.position() => {
                Self::MayBeAhead
            }
            SecondaryIndex::Included => Self::Carried,
        }
    }
}

impl Truncation {
    fn decide(manifest: &Manifest, ready: bool) -> Self {
        let log = &manifest.log;
        let position = log.position.position();
        if ready {
            return Self::Ready;
        }
        if position == LogPosition::ZERO {
            return Self::EmptyLog;
        }

        // If P is the start of a chunk that has no file, there is nothing to cut: every truncator
        // from 20.10 to 26.1 finds no file to touch (disk-format §2.4, O36).
        let Some((row, chunk)) = chunk_at_end(manifest) else {
            return Self::ToPosition { position };
        };

        // A file that was merged, even if it was not scavenged, stops the truncator, and with it
        // the server (disk-format §2.4).
        let is_compacted = chunk.scavenged || chunk.start != chunk.end;
        if is_compacted && log.chunk_size.start_of(chunk.start) != position {
            return Self::Scavenged {
                chunk: row.path.file_name().to_owned(),
            };
        }
        Self::ToPosition { position }
    }

    /// The checkpoint's value. `None` stands for −1.
    #[must_use]
    pub fn value(&self) -> Option<LogPosition> {
        match self {
            Self::ToPosition { position } => Some(*position),
            Self::Ready | Self::Scavenged { .. } | Self::EmptyLog => None,
        }
    }
}

/// The chunk file that P lies in.
fn chunk_at_end(manifest: &Manifest) -> Option<(&Row, ChunkRow)> {
    let log = LogEndingAt::of(&manifest.log);
    for row in &manifest.files {
        let Some(chunk) = row.chunk else { continue };
        match log.place_of(chunk.start, chunk.end) {
            ChunkPlace::HoldsEnd | ChunkPlace::BeginsAtEnd => return Some((row, chunk)),
            ChunkPlace::Before | ChunkPlace::Beyond => {}
        }
    }
    None
}

impl FirstStart {
    fn new(truncation: &Truncation, server: Option<&ServerVersion>) -> Self {
        if truncation.value().is_none() {
            return Self {
                behaviour: FirstStartBehaviour::Starts,
                text: "the server comes up at its first start".to_owned(),
            };
        }

        let Some(server) = server else {
            return Self {
                behaviour: FirstStartBehaviour::MayExitOnce,
                text: format!(
                    "the server runs its truncation, which removes nothing; \
                     {EXITS_AFTER_TRUNCATION} it then exits once with code 0 and has to be started \
                     again"
                ),
            };
        };
        if server.has(EXITS_AFTER_TRUNCATION) {
            return Self {
                behaviour: FirstStartBehaviour::ExitsOnce,
                text: format!(
                    "a server of version {server} exits once with code 0 after its truncation, \
                     which removes nothing, and has to be started again"
                ),
            };
        }
        Self {
            behaviour: FirstStartBehaviour::TruncatesAndStarts,
            text: format!(
                "a server of version {server} runs its truncation, which removes nothing, and \
                 comes up"
            ),
        }
    }
}
