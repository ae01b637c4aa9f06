//! The state of a node's backups: the one value that the page, the metrics, the hooks and
//! `kbackup status` show. Its fields are those of `kbackup.status/1`.
//!
//! [`super::assessment`] makes a status.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::exposure::Exposure;
use super::facts::{
    BackupFacts, ClusterFacts, LookResult, NodeFacts, RepositoryFacts, RestorePoint, SiblingBackup,
};
use super::journal::Journal;
use super::last_known::{BackupTimes, LastKnown};
use super::planner::JobPlan;
use super::run_record::{Job, RunRecord};
use super::verdict::Verdict;
use crate::clock::{Timestamp, between};

/// The state of a node's backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// When this was true.
    pub at: Timestamp,
    /// Whether the node is safe.
    pub verdict: Verdict,
    /// How old something may become that is in no backup, in seconds.
    pub max_age_seconds: u64,
    /// What is in no backup. `None` if the node's files cannot be read.
    pub exposure: Option<Exposure>,
    /// The label of the newest good backup.
    pub newest: Option<String>,
    /// What was last known of the backups. `None` while a good backup is known.
    #[serde(default)]
    pub last_known: Option<LastKnown>,
    /// The repository.
    pub repository: LookResult<RepositoryFacts>,
    /// The node. `None` if the status was made from a repository alone.
    pub node: Option<LookResult<NodeFacts>>,
    /// The other members' backups. `None` if each member has to have a backup of its own.
    pub cluster: Option<ClusterFacts>,
    /// The agent. `None` if the status was made without one.
    pub agent: Option<AgentFacts>,
    /// The agent's jobs.
    pub jobs: Vec<JobStatus>,
    /// The run that is under way.
    pub running: Option<RunningJob>,
    /// The last runs, oldest first.
    pub history: Vec<RunRecord>,
}

impl Status {
    /// The newest good backup of the node's own repository.
    #[must_use]
    pub fn newest_good(&self) -> Option<(&RestorePoint, &BackupFacts)> {
        self.repository.facts.as_ref()?.newest_good()
    }

    /// For how long something has been in no good backup. Zero if everything is in one. If no good
    /// backup is known any more, the time counts from what was last known. `None` if there has
    /// never been a good backup.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        let own = self.newest_good().map(|(_, backup)| backup);
        let (newest, _) = best(own, self.cluster.as_ref());

        match (newest, &self.last_known) {
            (Some(_), _) => age(self.at, self.exposure, newest),
            (None, Some(known)) => Some(between(known.exposed_since, self.at)),
            (None, None) => None,
        }
    }

    /// What is known of the backups now. `None` if no good backup is known.
    pub(super) fn known(&self) -> Option<LastKnown> {
        let own = self.newest_good();
        let (newest, sibling) = best(own.map(|(_, backup)| backup), self.cluster.as_ref());
        let newest = newest?;

        let label = match (sibling, own) {
            (Some(sibling), _) => &sibling.label,
            (None, Some((point, _))) => &point.label,
            (None, None) => return None,
        };
        let times = match &self.repository.facts {
            Some(facts) => BackupTimes::of(facts),
            None => BackupTimes::default(),
        };

        let age = age(self.at, self.exposure, Some(newest))?;
        Some(LastKnown {
            at: self.at,
            newest: label.clone(),
            started: newest.started,
            exposed_since: self.at.checked_sub(age).unwrap_or(self.at),
            times,
        })
    }

    /// The times of the newest backups, as far as they are or were known.
    pub(super) fn times(&self) -> BackupTimes {
        match (&self.repository.facts, &self.last_known) {
            (Some(facts), _) => BackupTimes::of(facts),
            (None, Some(known)) => known.times,
            (None, None) => BackupTimes::default(),
        }
    }

    /// Nothing has been known any more since the status was made.
    pub(super) fn lose_sight(&mut self) {
        self.last_known = self.known().or(self.last_known.take());

        let since = self.at;
        self.exposure = None;
        self.newest = None;
        self.repository = LookResult::silent(since);
        if self.node.is_some() {
            self.node = Some(LookResult::silent(since));
        }
        self.cluster = None;
    }
}

/// One job of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// What is planned.
    #[serde(flatten)]
    pub plan: JobPlan,
    /// The schedule, as it was configured.
    pub schedule: String,
    /// When the job last ended without a failure: it did its work, or found nothing to do.
    pub last_success: Option<Timestamp>,
    /// The last run.
    pub last: Option<RunRecord>,
    /// How often the job has failed in a row.
    pub failures: u64,
}

/// A run that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningJob {
    /// The job.
    pub job: Job,
    /// When it began.
    pub began: Timestamp,
    /// The step of the procedure, in one word.
    pub step: String,
    /// Bytes handled in this step.
    pub done: u64,
    /// Bytes that this step has to handle. 0 if that is not known.
    pub expected: u64,
    /// What the run has stopped at the node now: `scavenge`, `auto-scavenge`.
    pub holds: Vec<String>,
    /// Since when the run has made no progress, if that is minutes ago.
    #[serde(default)]
    pub still_since: Option<Timestamp>,
}

/// The agent itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Its program and version, such as `kbackup 0.1.0`.
    pub version: String,
    /// When it was started.
    pub started: Timestamp,
    /// Why the newest configuration is not in use.
    pub configuration: Option<String>,
    /// Why the journal cannot be written.
    pub journal: Option<String>,
    /// What an earlier run stopped at the node and the agent could not give back yet.
    pub owed: Option<String>,
    /// Hooks that did not get their last message, each with its problem.
    #[serde(default)]
    pub hooks: Vec<String>,
}

/// Everything that a status is made from.
#[derive(Debug)]
pub struct StatusInput<'a> {
    /// The time now.
    pub now: Timestamp,
    /// How old something may become that is in no backup.
    pub max_age: Duration,
    /// The repository.
    pub repository: LookResult<RepositoryFacts>,
    /// The node. `None` for a status from a repository alone.
    pub node: Option<LookResult<NodeFacts>>,
    /// The other members' backups. `None` if each member has to have a backup of its own.
    pub cluster: Option<ClusterFacts>,
    /// What is in no backup. `None` if the node's files cannot be read.
    pub exposure: Option<Exposure>,
    /// Whether the node's writer position has not been readable for minutes.
    pub position_is_unknown: bool,
    /// What was last known of the backups.
    pub last_known: Option<&'a LastKnown>,
    /// The agent. `None` if there is none.
    pub agent: Option<AgentFacts>,
    /// The runs of the agent.
    pub journal: Option<&'a Journal>,
    /// The plan of each job, with its schedule as it was configured.
    pub plans: Vec<(JobPlan, String)>,
    /// The jobs that have been due for minutes and have not begun, although nothing holds them back.
    pub late: Vec<Job>,
    /// The run that is under way.
    pub running: Option<RunningJob>,
}

/// The backup that protects the node best. The second value names the other member that took it,
/// if it is not the node's own.
pub(super) fn best<'a>(
    own: Option<&'a BackupFacts>,
    cluster: Option<&'a ClusterFacts>,
) -> (Option<&'a BackupFacts>, Option<&'a SiblingBackup>) {
    let other = cluster.and_then(|cluster| cluster.newest.as_ref());

    match (own, other) {
        (Some(own), Some(other)) if own.writer >= other.backup.writer => (Some(own), None),
        (_, Some(other)) => (Some(&other.backup), Some(other)),
        (own, None) => (own, None),
    }
}

/// For how long something has been in no good backup, if `newest` is the newest good one.
pub(super) fn age(
    now: Timestamp,
    exposure: Option<Exposure>,
    newest: Option<&BackupFacts>,
) -> Option<Duration> {
    let newest = newest?;

    let since = match exposure {
        Some(exposure) => match exposure.since {
            Some(since) => since,
            None => return Some(Duration::ZERO),
        },
        // The node's files cannot be read. It may have written since the backup began.
        None => newest.started,
    };
    Some(between(since, now))
}
