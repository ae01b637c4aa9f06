//! The events of a run. Observers receive them: the progress bar, the log, and the agent. The run
//! itself is in [`crate::run`].

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

/// One thing that happened in a run, in the words of the domain.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A step of the procedure begins.
    Step(Step),
    /// How much the step will have to do, as far as it is known.
    Expected {
        /// Files still to be handled in this step.
        files: u64,
        /// Bytes still to be handled in this step.
        bytes: u64,
    },
    /// The step made progress.
    Progress {
        /// Bytes handled since the last such event.
        bytes: u64,
    },
    /// A file was copied from the source.
    Copied {
        /// Its path in the backup.
        path: String,
        /// Bytes read from the source.
        bytes: u64,
    },
    /// A file was resumed: an interrupted run had copied it.
    Resumed {
        /// Its path in the backup.
        path: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A file was reused from the parent.
    Reused {
        /// Its path in the backup.
        path: String,
    },
    /// An attempt failed because the source changed. The next one begins.
    Retry {
        /// The number of the attempt that failed, from 1.
        attempt: u32,
        /// How many attempts are allowed.
        of: u32,
        /// What changed in the source.
        reason: String,
    },
    /// kbackup has put something on record, and now keeps it from the node. One [`Self::GivenBack`]
    /// or [`Self::NothingToGiveBack`] follows. If neither does, it still has to be given back when
    /// the run has ended.
    Taken {
        /// "auto-scavenge", "scavenge".
        what: &'static str,
        /// When it was put on record; long ago if an earlier run took it.
        since: Timestamp,
        /// A scavenge was interrupted. False for an auto-scavenge that only waited for its cycle.
        interrupted: bool,
    },
    /// kbackup paused the node's auto-scavenge.
    AutoScavengePaused,
    /// kbackup stopped a running scavenge.
    ScavengeStopped {
        /// The id that the server gave it.
        scavenge: String,
    },
    /// Something was given back to the node.
    GivenBack {
        /// "auto-scavenge", "scavenge".
        what: &'static str,
        /// How long the node was without it. If an earlier run took it, this is a difference of
        /// wall-clock times.
        after: Duration,
    },
    /// What was taken need not be given back, because it had finished.
    NothingToGiveBack {
        /// "scavenge".
        what: &'static str,
        /// How long it was on record, as in [`Self::GivenBack`].
        after: Duration,
    },
    /// A backup became visible in the repository.
    Committed {
        /// The backup's label.
        label: String,
        /// The log position that a restore ends at, in bytes.
        position: u64,
    },
    /// The result is usable, but the operator should know this (exit code 3).
    Warning(String),
    /// A line for the log.
    Note(String),
}

/// The steps of backup, copy, restore, verify, expire and prune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Check that the node is fit, the directories are right, and the repository is ready.
    Preflight,
    /// Hash again a share of what the repository holds already.
    Recheck,
    /// Resume what an interrupted run has copied.
    Resume,
    /// Stop scavenging.
    Quiesce,
    /// Copy the index.
    Index,
    /// Copy the checkpoints.
    Checkpoints,
    /// Copy the chunks.
    Chunks,
    /// Prove what was copied.
    Prove,
    /// Make the backup durable and visible.
    Commit,
    /// Give back to the node what was stopped.
    Release,
    /// Copy the files of a stored backup into another repository, or into an archive.
    Copy,
    /// Write a restored directory.
    Place,
    /// Read stored files again.
    Verify,
    /// Remove backups.
    Expire,
    /// Delete what no backup needs.
    Prune,
}

impl Step {
    /// The step in one word, as progress and metrics show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Recheck => "recheck",
            Self::Resume => "resume",
            Self::Quiesce => "quiesce",
            Self::Index => "index",
            Self::Checkpoints => "checkpoints",
            Self::Chunks => "chunks",
            Self::Prove => "prove",
            Self::Commit => "commit",
            Self::Release => "release",
            Self::Copy => "copy",
            Self::Place => "place",
            Self::Verify => "verify",
            Self::Expire => "expire",
            Self::Prune => "prune",
        }
    }
}

/// Receives the events of a run.
pub trait Observer: Send + Sync {
    /// Receives one event. Must not block for long, because the run waits for it.
    fn observe(&self, event: &Event);
}

impl<T: Observer> Observer for Arc<T> {
    fn observe(&self, event: &Event) {
        self.as_ref().observe(event);
    }
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Event) {}
}
