//! What happens, told to whoever listens: the progress bar, the log, the JSON lines, the metrics.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

/// One thing that happened, in the words of the domain.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A step of the procedure begins.
    Step(Step),
    /// What the step will have to do, as far as it is known: files and bytes.
    Expected {
        /// Files still to be handled in this step.
        files: u64,
        /// Bytes still to be handled in this step.
        bytes: u64,
    },
    /// Bytes handled in this step since the last such event.
    Progress {
        /// Bytes.
        bytes: u64,
    },
    /// A file was copied from the source.
    Copied {
        /// Where it lies in the backup.
        path: String,
        /// Bytes read from the source.
        bytes: u64,
    },
    /// A file that an interrupted run had copied was taken up.
    Resumed {
        /// Where it lies in the backup.
        path: String,
        /// Its length in bytes.
        bytes: u64,
    },
    /// A file was taken over from an earlier backup.
    Reused {
        /// Where it lies in the backup.
        path: String,
    },
    /// The source changed underfoot; the procedure goes back.
    Retry {
        /// Which attempt failed, from 1.
        attempt: u32,
        /// How many are allowed.
        of: u32,
        /// What changed.
        reason: String,
    },
    /// From here on the node is without something, and is owed it: it stands on record, and the
    /// node is asked to let it go. Each is followed by one [`Self::GivenBack`] or
    /// [`Self::NothingToGiveBack`], or the node is still owed it when the run ends.
    Taken {
        /// "auto-scavenge", "scavenge".
        what: &'static str,
        /// When it was put on record; long ago where an earlier run took it.
        since: Timestamp,
    },
    /// The node's auto-scavenge was paused by us.
    AutoScavengePaused,
    /// A running scavenge was stopped by us.
    ScavengeStopped {
        /// The server's id of it.
        scavenge: String,
    },
    /// Something was given back to the node.
    GivenBack {
        /// "auto-scavenge", "scavenge".
        what: &'static str,
        /// How long the node was without it. Of what an earlier run took, by the clock on the wall.
        after: Duration,
    },
    /// What was taken is not owed any more: it had come to its own end.
    NothingToGiveBack {
        /// "scavenge".
        what: &'static str,
        /// How long it stood on record, as in [`Self::GivenBack`].
        after: Duration,
    },
    /// A backup became visible in the repository.
    Committed {
        /// Its label.
        label: String,
        /// The log position that a restore ends at, in bytes.
        position: u64,
    },
    /// The result is usable, but the operator should know this (exit code 3).
    Warning(String),
    /// Worth a line in the log.
    Note(String),
}

/// The steps of the verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Is the node fit, are the directories right, is the repository ready?
    Preflight,
    /// Hash again a share of what the repository holds already.
    Recheck,
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
    /// Make it durable and visible.
    Commit,
    /// Give scavenging back.
    Release,
    /// Write a restored directory.
    Place,
    /// Read stored files again.
    Verify,
    /// Remove backups.
    Expire,
}

impl Step {
    /// The step in a word, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Recheck => "recheck",
            Self::Quiesce => "quiesce",
            Self::Index => "index",
            Self::Checkpoints => "checkpoints",
            Self::Chunks => "chunks",
            Self::Prove => "prove",
            Self::Commit => "commit",
            Self::Release => "release",
            Self::Place => "place",
            Self::Verify => "verify",
            Self::Expire => "expire",
        }
    }
}

/// Whoever wants to know what happens.
pub trait Observer: Send + Sync {
    /// Takes notice of one event; must not block for long.
    fn observe(&self, event: &Event);
}

impl<T: Observer> Observer for Arc<T> {
    fn observe(&self, event: &Event) {
        self.as_ref().observe(event);
    }
}

/// Nobody listens.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&self, _: &Event) {}
}
