//! What a start depends on, as `gather` found it in a directory. It is the input of `simulate`.
//! Damage is a fact too.

use std::collections::BTreeMap;

use crate::format::checkpoint::Checkpoint;
use crate::format::chunk::ChunkFile;
use crate::format::{ChunkSize, LogPosition};
use crate::log::ListedChunk;

/// Everything that a start depends on.
#[derive(Debug, Clone)]
pub(super) struct DirectoryFacts {
    pub(super) checkpoints: BTreeMap<Checkpoint, CheckpointFact>,
    /// The chunk size of the first readable chunk. `None` if no chunk can be read.
    pub(super) chunk_size: Option<ChunkSize>,
    /// In the order of their names.
    pub(super) chunks: Vec<ChunkFact>,
    /// What the log ends with if it is cut at a position. Positions that were not read are missing.
    pub(super) ends: BTreeMap<LogPosition, EndFact>,
    /// Other places where the log is damaged, which the reading of the `ends` did not meet.
    pub(super) damage: Vec<Damage>,
    /// What is wrong at the position in `epoch.chk`. `None` if there is an epoch record, or if
    /// nobody looked.
    pub(super) bad_epoch: Option<Damage>,
    pub(super) index: IndexFact,
    pub(super) stream_filter: StreamFilterFact,
    /// The scavenge state contradicts the log.
    pub(super) foreign_scavenge: Option<FileProblem>,
    /// `kurrent.ddb` cannot be opened.
    pub(super) bad_secondary_index: Option<FileProblem>,
}

impl DirectoryFacts {
    /// The value that a server reads from a checkpoint.
    pub(super) fn checkpoint(&self, which: Checkpoint) -> i64 {
        match self.checkpoints.get(&which) {
            Some(fact) => fact.value,
            None => 0,
        }
    }
}

/// A file and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileProblem {
    /// The file, as an operator would name it.
    pub(super) place: String,
    pub(super) why: String,
}

/// A checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckpointFact {
    pub(super) place: String,
    /// Its length in bytes. `None` if there is no file.
    pub(super) length: Option<u64>,
    /// The value that a server reads from it.
    pub(super) value: i64,
}

/// A file named like a chunk.
#[derive(Debug, Clone)]
pub(super) struct ChunkFact {
    pub(super) listed: ListedChunk,
    pub(super) place: String,
    /// What header and footer say, or why they cannot be read.
    pub(super) file: Result<ChunkFile, String>,
    /// Whether the file begins with a record. Only known for files behind the end of the log.
    pub(super) has_records: bool,
    /// Whether kbackup hashed the file and its own MD5 differs.
    pub(super) fails_md5: bool,
}

/// What a log that is cut at some position ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndFact {
    /// A whole append, or any other record.
    Whole,
    /// A part of an append that begins at the position.
    HalfAppend(LogPosition),
    /// The log cannot be read up to there.
    Damaged(Damage),
}

/// A place where the log is not what a server writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) position: LogPosition,
    pub(super) place: String,
    pub(super) why: String,
}

/// The index directory.
#[derive(Debug, Clone, Default)]
pub(super) struct IndexFact {
    pub(super) map: MapFact,
    /// Tables that `indexmap` names and some server refuses.
    pub(super) bad_tables: Vec<TableFact>,
    /// Filters of tables that lack streams of their tables.
    pub(super) incomplete_filters: Vec<FileProblem>,
    /// Events that the index should hold and lacks.
    pub(super) hidden: Option<HiddenFact>,
}

/// `indexmap`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum MapFact {
    #[default]
    Absent,
    Damaged(FileProblem),
    Read {
        place: String,
        /// How far into the log the index reaches. `None` for an empty index.
        commit: Option<LogPosition>,
        /// The highest level that is merged automatically, if it is below the highest possible one:
        /// a server with the default setting rebuilds the index then.
        merge_level: Option<i32>,
    },
}

/// A table that `indexmap` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableFact {
    pub(super) place: String,
    pub(super) why: TableProblem,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TableProblem {
    Missing,
    Damaged(String),
    /// It has format version 1, which not every server reads.
    Old,
}

/// Events that the log holds, and that the index lacks although a server should show them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HiddenFact {
    pub(super) missing: u64,
    /// Events of which nobody knows whether a server should show them.
    pub(super) unknown: u64,
    pub(super) sampled: u64,
    pub(super) first: LogPosition,
}

/// The stream-existence filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum StreamFilterFact {
    #[default]
    Absent,
    Damaged(FileProblem),
    /// It lacks streams that it should hold. Servers take them for new streams.
    Incomplete(FileProblem),
    Whole,
}
