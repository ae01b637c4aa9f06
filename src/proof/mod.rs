//! Would a node start from these files? Evidence over any set of files: a capture in progress, a
//! stored backup, a directory on a disk.
//!
//! What stands in the files, the rooms `format` and `log` read. Here it is judged: `log` and
//! `index` judge the two halves of a database, `scavenge` the state between two scavenges, `start`
//! plays a server's start through, and `backup` is the gate that every backup has to pass.

mod backup;
mod depth;
mod fault;
mod finding;
mod index;
mod log;
mod scavenge;
mod start;
mod structure;

pub use backup::{BackupEvidence, prove_backup};
pub use depth::Depth;
pub use fault::BackupFault;
pub use finding::{Consequence, Effect, Finding, Severity};
pub use index::{
    HiddenEvents, IndexFault, IndexProblem, IndexProof, IndexScope, examine_index,
    stream_filter_gap,
};
pub use log::{LogEnd, LogProof, LogStretch, scan};
pub use scavenge::foreign_scavenge;
pub use start::{
    Examination, ExamineOptions, IndexSummary, LogSummary, StartOutcome, StartVerdict,
    VersionOutcome, examine,
};
pub use structure::{misnamed, structure};

/// A value that was proven. Only this room makes one, so only what was proven can be committed.
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
