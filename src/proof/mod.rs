//! Would a node start from these files? This room answers it for any set of files: a capture in
//! progress, a stored backup, or a directory on a disk.
//!
//! The rooms `format` and `log` read the files, and this room judges what they read. `backup` is
//! the gate that every backup has to pass: it asks `structure` whether the files fit the manifest.
//! A backup that is copied between repositories passes `copied` instead.
//! `log` and `index` judge the two halves of a database, `databases` and `scavenge` the files beside
//! them. `judge` separates damage from errors of the storage.
//! `start` simulates the start of each server version on a directory, for `kbackup check`.

mod backup;
mod copied;
mod databases;
mod depth;
mod fault;
mod finding;
mod index;
mod judge;
mod log;
mod scavenge;
mod start;
mod structure;

pub use backup::{BackupEvidence, prove_backup};
pub use copied::{CopyEvidence, prove_copy};
pub use databases::{scavenge_state_fault, secondary_index_fault};
pub use depth::Depth;
pub use fault::BackupFault;
pub use finding::{Consequence, Effect, Finding, Severity};
pub use index::{
    CheckedTable, HiddenEvents, IndexFault, IndexProblem, IndexProof, IndexScope, LATEST_ENTRIES,
    contradicting_entry, examine_index, stream_filter_gap, table_filter_gap,
};
pub use log::{LogEnd, LogProof, LogStretch, scan};
pub use start::{
    Examination, ExamineOptions, IndexSummary, LogSummary, StartOutcome, StartVerdict,
    VersionOutcome, examine,
};
pub use structure::{misnamed, structure};

/// A value that was proven. Only this room makes one, so that only a proven manifest can be
/// committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven<T>(T);

impl<T> std::ops::Deref for Proven<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(any(test, feature = "faults"))]
impl<T> Proven<T> {
    /// A value that nobody proved, for tests of the rooms below the proof. Never part of a release.
    pub fn unproven(value: T) -> Self {
        Self(value)
    }
}
