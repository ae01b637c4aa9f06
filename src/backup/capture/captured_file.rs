//! One file of the working copy.

use std::ops::Deref;

use crate::format::LogPosition;
use crate::log::ChunkRecords;
use crate::manifest::Row;
use crate::proof::CheckedTable;

/// One file of the working copy.
pub(super) struct CapturedFile<'a> {
    pub(super) row: CapturedRow<'a>,
    pub(super) origin: FileOrigin,
    /// Whether the present attempt has found the file at the source, so that it belongs in the
    /// backup.
    pub(super) is_wanted: bool,
    /// For chunks that this run has read: the records to be proven, by this attempt or the next.
    pub(super) records: Option<Box<ReadRecords>>,
    /// For tables that this run has copied: their entries for the latest events.
    pub(super) table: Option<Box<CheckedTable>>,
    /// The file fails the server's own MD5, and the operator accepts that.
    pub(super) is_damaged: bool,
}

/// How a file came into the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileOrigin {
    /// From the parent.
    Reused,
    /// From an interrupted run.
    Resumed,
    /// From the source, by this run.
    Copied,
}

/// The row of a captured file. There can be tens of thousands, so the rows that the parent holds in
/// memory are not held twice.
pub(super) enum CapturedRow<'a> {
    Parents(&'a Row),
    Own(Box<Row>),
}

impl Deref for CapturedRow<'_> {
    type Target = Row;

    fn deref(&self) -> &Row {
        match self {
            Self::Parents(row) => row,
            Self::Own(row) => row,
        }
    }
}

/// Records of a chunk that this run has read.
pub(in crate::backup) struct ReadRecords {
    /// The position of the first record in the log.
    pub(in crate::backup) from: LogPosition,
    /// What kbackup learnt from the records while it copied them. `None` if it has not read them
    /// yet.
    pub(in crate::backup) told: Option<ChunkRecords>,
}
