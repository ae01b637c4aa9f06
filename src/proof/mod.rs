//! Would a node start from these files? Evidence, over any set of files: a capture in progress, a
//! stored backup, a directory on a disk.

mod backup;
mod finding;
mod index;
mod log;
mod scavenge;
mod start;
mod stream_filter;

pub use backup::{Evidence as BackupEvidence, Fault, misnamed, prove_backup, structure};
pub use finding::{Consequence, Effect, Finding, Severity};
pub use index::{
    Depth, HiddenEvents, IndexFault, IndexProblem, IndexProof, IndexScope, examine_index,
};
pub use log::{LogEnd, LogProof, LogStretch, scan};
pub use scavenge::foreign_scavenge;
pub use start::{
    Examination, IndexSummary, LogSummary, Options, Outcome, Verdict, VersionOutcome, examine,
};
pub use stream_filter::stream_filter_gap;

/// A value that was proven; only this room makes one.
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
