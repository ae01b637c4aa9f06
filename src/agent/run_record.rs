//! What the agent does: its jobs, the order to run one, and the record of a run that ended.
//!
//! A [`RunRecord`] is one line of the [journal](super::journal) and one entry of the status.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::{Cause, Error, Kind};
use crate::manifest::Label;

/// A verb that the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// `kbackup full`.
    Full,
    /// `kbackup diff`.
    Diff,
    /// `kbackup verify`.
    Verify,
    /// `kbackup expire`.
    Expire,
}

impl Job {
    /// All jobs, in the order in which they run if several are due at once.
    pub const ALL: [Self; 4] = [Self::Full, Self::Diff, Self::Verify, Self::Expire];

    /// The verb, as on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Diff => "diff",
            Self::Verify => "verify",
            Self::Expire => "expire",
        }
    }

    /// Whether the job makes a backup.
    #[must_use]
    pub const fn is_backup(self) -> bool {
        matches!(self, Self::Full | Self::Diff)
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a job was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The repository held no backup.
    First,
    /// The schedule named this time.
    Schedule,
    /// A limit of `--on-change` was reached.
    Change,
    /// The run before it failed.
    Retry,
}

/// One run that is to begin.
#[derive(Debug, Clone)]
pub(super) struct JobOrder {
    pub job: Job,
    pub trigger: Trigger,
    /// The repository that the run has to use. `None` if the run may create one.
    pub repository: Option<Uuid>,
    /// Whether a backup may stop a scavenge. If not, and one runs, the backup has to wait.
    pub may_stop_scavenges: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum RunOutcome {
    /// The job did its work.
    Done {
        /// The backup that was made.
        label: Option<Label>,
        /// What the operator should know about the run.
        warnings: Vec<String>,
    },
    /// The node had written nothing since the newest backup, so none was made.
    UpToDate,
    /// Another member of the cluster had just made a backup.
    Skipped {
        /// The member's backup, in words.
        because: String,
    },
    /// A signal, or the end of the job's window, ended the run.
    Interrupted {
        /// What ended it.
        why: String,
    },
    /// The job failed.
    Failed {
        /// The kind of failure, as in JSON errors.
        kind: String,
        /// The exit code that the command would have had.
        exit_code: u8,
        /// What failed, on what, and why.
        message: String,
        /// What the operator can do.
        hints: Vec<String>,
    },
}

impl RunOutcome {
    /// The outcome in one word, as in JSON and in metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::UpToDate => "up-to-date",
            Self::Skipped { .. } => "skipped",
            Self::Interrupted { .. } => "interrupted",
            Self::Failed { .. } => "failed",
        }
    }

    pub(super) fn of_error(error: &Error) -> Self {
        match error.kind() {
            // `PausedTooLong` counts as a failure. An interrupted run begins again at once, and
            // that would stop the scavenge again.
            Kind::Interrupted(Cause::Signal(_) | Cause::WindowClosed | Cause::BackupDue) => {
                Self::Interrupted {
                    why: error.in_words(),
                }
            }
            kind => Self::Failed {
                kind: kind.name().to_owned(),
                exit_code: kind.exit_code(),
                message: error.in_words(),
                hints: error.hints().to_vec(),
            },
        }
    }
}

/// A time during which a run had stopped something at the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// `scavenge` or `auto-scavenge`.
    pub what: String,
    /// When it was stopped.
    pub began: Timestamp,
    /// How long it was stopped, in milliseconds. `None` if this run did not give it back.
    pub milliseconds: Option<u64>,
    /// Whether a scavenge was interrupted. False for an auto-scavenge that only waited.
    #[serde(default)]
    pub interrupted: bool,
}

/// One run of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The job that ran.
    pub job: Job,
    /// Why it was started.
    pub trigger: Trigger,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: RunOutcome,
    /// The repository that it worked on. `None` if it did not get that far.
    pub repository: Option<Uuid>,
    /// Bytes read from the node's files. For `verify`: bytes hashed.
    pub bytes_read: u64,
    /// New bytes in the repository. For `expire`: bytes freed, those of its prune included.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part. For `expire`: backups removed.
    pub files_copied: u64,
    /// Files reused from an earlier backup.
    pub files_linked: u64,
    /// Why the procedure started over, once per attempt.
    pub retries: Vec<String>,
    /// What the run stopped at the node.
    pub pauses: Vec<Pause>,
    /// The backups that a verification found damaged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Label>,
}

impl RunRecord {
    /// A run that took no time and moved no bytes.
    pub(super) fn of(order: &JobOrder, began: Timestamp, outcome: RunOutcome) -> Self {
        Self {
            job: order.job,
            trigger: order.trigger,
            began,
            ended: began,
            outcome,
            repository: order.repository,
            bytes_read: 0,
            bytes_stored: 0,
            files_copied: 0,
            files_linked: 0,
            retries: Vec::new(),
            pauses: Vec::new(),
            damaged: Vec::new(),
        }
    }

    /// A diff that would find nothing new.
    pub(super) fn nothing_to_do(order: &JobOrder, now: Timestamp) -> Self {
        Self::of(order, now, RunOutcome::UpToDate)
    }

    /// A diff that is not needed, because another member has taken one for all members.
    pub(super) fn left_to_another(now: Timestamp, because: String) -> Self {
        let order = JobOrder {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            repository: None,
            may_stop_scavenges: false,
        };

        Self::of(&order, now, RunOutcome::Skipped { because })
    }

    /// A run that could not even begin.
    pub(super) fn not_begun(order: &JobOrder, now: Timestamp, error: &Error) -> Self {
        Self::of(order, now, RunOutcome::of_error(error))
    }

    /// Whether the run did its work, or found nothing to do.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(
            self.outcome,
            RunOutcome::Done { .. } | RunOutcome::UpToDate | RunOutcome::Skipped { .. }
        )
    }

    /// Whether the run made a backup of the node.
    #[must_use]
    pub const fn made_backup(&self) -> bool {
        self.job.is_backup() && matches!(self.outcome, RunOutcome::Done { .. })
    }

    /// Whether the run failed. A run that was interrupted or had to wait did not.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, RunOutcome::Failed { .. }) && !self.had_to_wait()
    }

    /// Whether another run held the repository or the node, or a scavenge ran that may not be
    /// stopped. This run comes later, and nothing is wrong.
    #[must_use]
    pub fn had_to_wait(&self) -> bool {
        let RunOutcome::Failed { kind, .. } = &self.outcome else {
            return false;
        };
        [Kind::Locked, Kind::Scavenging]
            .iter()
            .any(|waits| waits.name() == kind)
    }

    /// Whether the run interrupted a scavenge.
    #[must_use]
    pub fn interrupted_a_scavenge(&self) -> bool {
        // Records of earlier versions do not say so of a scavenge.
        self.pauses
            .iter()
            .any(|pause| pause.interrupted || pause.what == "scavenge")
    }

    /// How long the run took, in whole seconds. 0 if the clock went back meanwhile.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        let (began, ended) = (self.began.as_second(), self.ended.as_second());

        u64::try_from(ended.saturating_sub(began)).unwrap_or(0)
    }
}
