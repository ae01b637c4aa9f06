//! What is due, and what holds it back. Pure: the time, the journal and what the agent saw go in, a
//! plan comes out.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::cluster::ClusterRank;
use super::exposure::Exposure;
use super::facts::{BackupFacts, ClusterFacts, NodeFacts, RepositoryFacts};
use super::journal::Journal;
use super::run_record::{Job, RunOutcome, RunRecord, Trigger};
use crate::clock::{Span, Timestamp, Window, Zoned, between};
use crate::error::Kind;
use crate::manifest::BackupKind;
use crate::schedule::{OnChange, Schedule, jitter};
use crate::settings::options::ScavengeManner;

/// When the jobs run.
#[derive(Debug, Clone)]
pub(super) struct PlanningRules {
    /// One rule for each of [`Job::ALL`], in that order.
    pub jobs: [JobRule; 4],
    /// How much may be written before a diff is due.
    pub on_change: OnChange,
    /// Runs begin up to this much later.
    pub jitter: Duration,
    /// Differs from agent to agent, so that their delays differ.
    pub seed: String,
    /// How long this node waits for each member of the cluster that is to be backed up first.
    pub grace: Duration,
}

/// When one job runs.
#[derive(Debug, Clone)]
pub(super) struct JobRule {
    pub schedule: Schedule,
    /// The hours in which the job may run.
    pub window: Option<Window>,
    /// What the job does if a scavenge runs.
    pub scavenging: ScavengingRule,
}

/// What a job does if a scavenge runs on the node or in its cluster.
#[derive(Debug, Clone)]
pub(super) struct ScavengingRule {
    pub manner: ScavengeManner,
    /// A running scavenge is stopped at most once in this time.
    pub rest: Duration,
    /// A running scavenge is stopped if something this old is in no backup.
    pub max_age: Duration,
}

/// Everything that a plan is made from.
#[derive(Debug)]
pub(super) struct PlannerInput<'a> {
    /// The time now, in the zone of the schedules.
    pub now: Zoned,
    /// When the agent was started.
    pub started: Timestamp,
    pub journal: &'a Journal,
    /// `None` while the repository cannot be read.
    pub repository: Option<&'a RepositoryFacts>,
    /// `None` while the node does not answer.
    pub node: Option<&'a NodeFacts>,
    /// Since when each look has found both node and repository. `None` if the last look did not.
    pub well_since: Option<Timestamp>,
    /// What is in no backup. `None` while the node's files cannot be seen.
    pub exposure: Option<Exposure>,
    /// This node's rank in its cluster. `None` if the members do not wait for each other.
    pub rank: Option<ClusterRank>,
    /// When a backup became due that is still due.
    pub backup_due_since: Option<Timestamp>,
    /// Why it is not this member's turn, if that is known.
    pub waits_for_turn: Option<String>,
    /// When a look logs in to the node again. `None` if the node did not refuse the last login.
    pub next_login: Option<Timestamp>,
    /// The other members' backups. `None` if each member has to have a backup of its own.
    pub cluster: Option<&'a ClusterFacts>,
}

/// What is planned for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPlan {
    /// The job.
    pub job: Job,
    /// When it is due. `None` if neither a schedule nor a change ever starts it.
    pub due: Option<Timestamp>,
    /// Why it is due then.
    pub trigger: Trigger,
    /// What holds it back, although it is due.
    pub hold: Option<String>,
}

impl JobPlan {
    /// Whether the job is due, also if something holds it back.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Whether the job is to begin now.
    #[must_use]
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.is_due(now) && self.hold.is_none()
    }
}

/// Plans all jobs, in the order of [`Job::ALL`].
#[must_use]
pub(super) fn plan(rules: &PlanningRules, input: &PlannerInput<'_>) -> Vec<JobPlan> {
    let mut plans = Vec::new();

    for (job, rule) in Job::ALL.into_iter().zip(&rules.jobs) {
        let planner = Planner {
            rules,
            rule,
            input,
            job,
        };
        plans.push(planner.plan());
    }

    plans
}

/// The job that begins now: a backup before everything else, then the job that is due longest. So a
/// job with a short schedule does not keep another one from its turn.
#[must_use]
pub(super) fn most_urgent(plans: &[JobPlan], now: Timestamp) -> Option<&JobPlan> {
    let mut urgent: Option<&JobPlan> = None;

    for plan in plans {
        if !plan.is_ready(now) {
            continue;
        }
        if plan.job.is_backup() {
            return Some(plan);
        }
        match urgent {
            Some(other) if other.due <= plan.due => {}
            _ => urgent = Some(plan),
        }
    }

    urgent
}

/// Whether a backup that begins now may stop a scavenge.
#[must_use]
pub(super) fn may_stop_scavenges(
    rules: &PlanningRules,
    input: &PlannerInput<'_>,
    job: Job,
) -> bool {
    let mut jobs = Job::ALL.into_iter().zip(&rules.jobs);
    let Some((job, rule)) = jobs.find(|(other, _)| *other == job) else {
        return false;
    };

    let planner = Planner {
        rules,
        rule,
        input,
        job,
    };
    planner.must_not_stop_scavenges().is_none()
}

/// Whether a diff would find nothing new, because the newest backup is good and holds everything
/// that the node has written.
#[must_use]
pub(super) fn is_up_to_date(input: &PlannerInput<'_>) -> bool {
    let Some(exposure) = input.exposure else {
        return false;
    };
    if exposure.since.is_some() || exposure.bytes > 0 {
        return false;
    }

    if let Some(cluster) = input.cluster
        && let Some(newest) = &cluster.newest
        // This member may lag behind the one that was backed up.
        && newest.backup.writer >= exposure.writer
    {
        return true;
    }

    if let Some(repository) = input.repository
        && let Some(newest) = repository.points.last()
    {
        return newest.good().is_some();
    }
    false
}

/// Plans one job.
struct Planner<'a> {
    rules: &'a PlanningRules,
    rule: &'a JobRule,
    input: &'a PlannerInput<'a>,
    job: Job,
}

impl Planner<'_> {
    fn plan(&self) -> JobPlan {
        let Some((due, trigger)) = self.due() else {
            return JobPlan {
                job: self.job,
                due: None,
                trigger: Trigger::Schedule,
                hold: None,
            };
        };

        let hold = if due <= self.now() {
            self.hold(due)
        } else {
            None
        };
        JobPlan {
            job: self.job,
            due: Some(due),
            trigger,
            hold,
        }
    }

    fn now(&self) -> Timestamp {
        self.input.now.timestamp()
    }

    // --- What is due ------------------------------------------------------------------------

    /// The earliest time that the schedule, the node's writing or an earlier failure asks for.
    fn due(&self) -> Option<(Timestamp, Trigger)> {
        if self.rule.schedule.is_off() && !self.follows_changes() {
            return None;
        }

        if let Some(last) = self.input.journal.of(self.job).next() {
            match &last.outcome {
                RunOutcome::Failed { .. } => return self.retry(last),
                RunOutcome::Interrupted { .. } => return Some((self.now(), Trigger::Retry)),
                _ => {}
            }
        }

        // There is nothing to verify or to remove before the first backup.
        if !self.job.is_backup() && self.has_no_repository_yet() {
            return None;
        }
        if self.job == Job::Diff && self.is_first() {
            return Some((self.now(), Trigger::First));
        }

        match (self.by_schedule(), self.by_change()) {
            (Some(by_schedule), Some(by_change)) if by_change < by_schedule => {
                Some((by_change, Trigger::Change))
            }
            (Some(by_schedule), _) => Some((by_schedule, Trigger::Schedule)),
            (None, by_change) => Some((by_change?, Trigger::Change)),
        }
    }

    /// Whether there is no good backup of this node, neither by this member nor by another one.
    ///
    /// If the node is damaged, its backups are not good, and the next one would not be good either.
    /// So the agent does not take that one at once, but by its schedule.
    fn is_first(&self) -> bool {
        if let Some(cluster) = self.input.cluster
            && cluster.newest.is_some()
        {
            return false;
        }

        match self.input.repository {
            Some(repository) if repository.points.is_empty() => true,
            Some(repository) => repository.newest_good().is_none() && self.last_began().is_none(),
            None => self.has_no_repository_yet(),
        }
    }

    /// Whether there has never been a repository. A repository that is missing now does not count.
    fn has_no_repository_yet(&self) -> bool {
        self.input.repository.is_none() && self.input.journal.repository().is_none()
    }

    fn follows_changes(&self) -> bool {
        self.job == Job::Diff && !self.rules.on_change.is_off()
    }

    fn by_schedule(&self) -> Option<Timestamp> {
        let zone = self.input.now.time_zone();
        let last = self.last_began().map(|began| began.to_zoned(zone.clone()));
        let started = self.input.started.to_zoned(zone.clone());

        let schedule = &self.rule.schedule;
        let due = schedule.due(last.as_ref(), &started, &self.input.now)?;
        let due = due.timestamp();

        let jitter = jitter(self.rules.jitter, &self.rules.seed, due);
        due.checked_add(SignedDuration::try_from(jitter).ok()?).ok()
    }

    /// When a run of this kind began last, also if the agent did not start it. A full counts as a
    /// diff, too.
    fn last_began(&self) -> Option<Timestamp> {
        let mut own_runs = self.input.journal.of(self.job);
        // A skipped run is the backup of another member. Its manifest says when it began.
        let own = own_runs.find(|record| !matches!(record.outcome, RunOutcome::Skipped { .. }));
        let own = own.map(|record| record.began);

        let mut last = own;
        for began in [self.last_backup_began(), self.last_sibling_began()] {
            // A wrong clock may have written a time in the future into a manifest. Such a time
            // must not keep the next run away.
            if began.is_some_and(|began| own.is_none() || began <= self.now()) {
                last = last.max(began);
            }
        }

        last
    }

    /// When the newest good backup of this kind in the repository began.
    fn last_backup_began(&self) -> Option<Timestamp> {
        for point in self.input.repository?.points.iter().rev() {
            if let Some(backup) = point.good()
                && self.counts(backup)
            {
                return Some(backup.started);
            }
        }

        None
    }

    fn counts(&self, backup: &BackupFacts) -> bool {
        match self.job {
            Job::Diff => true,
            Job::Full => backup.kind == BackupKind::Full,
            Job::Verify | Job::Expire => false,
        }
    }

    /// When the newest backup of this kind began that another member took.
    fn last_sibling_began(&self) -> Option<Timestamp> {
        let cluster = self.input.cluster?;

        match self.job {
            Job::Diff => Some(cluster.newest.as_ref()?.backup.started),
            Job::Full => cluster.newest_full,
            Job::Verify | Job::Expire => None,
        }
    }

    fn by_change(&self) -> Option<Timestamp> {
        if !self.follows_changes() {
            return None;
        }

        let exposure = self.input.exposure?;
        let age = exposure.since.map(|since| between(since, self.now()));
        let due_in = self.rules.on_change.due_in(exposure.bytes, age)?;
        let due = self.now().checked_add(due_in).ok()?;

        // Between two backups, the node has at least as much time to itself as the last one took,
        // however much it writes.
        let Some(last) = self.input.journal.of(Job::Diff).next() else {
            return Some(due);
        };
        let rested = last.ended.min(self.now()) + SignedDuration::from_secs(seconds(last));
        Some(due.max(rested))
    }

    /// When a job that failed is tried again.
    fn retry(&self, last: &RunRecord) -> Option<(Timestamp, Trigger)> {
        // The node or the repository was missing and is back, so the agent does not wait any more.
        if let Some(since) = self.input.well_since
            && is_back_since(since, last)
        {
            return Some((since, Trigger::Retry));
        }

        let runs = self.input.journal.of(self.job);
        let failures = runs.take_while(|record| record.is_failure()).count().max(1);
        let failures = u32::try_from(failures).unwrap_or(u32::MAX);

        // A clock that went back must not keep the next attempt away.
        let zone = self.input.now.time_zone().clone();
        let ended = last.ended.min(self.now()).to_zoned(zone);
        let due = self.rule.schedule.retry(&ended, failures)?;
        Some((due.timestamp(), Trigger::Retry))
    }

    // --- What holds it back -----------------------------------------------------------------

    fn hold(&self, due: Timestamp) -> Option<String> {
        if let Some(hold) = self.closed_window() {
            return Some(hold);
        }
        if !self.job.is_backup() {
            return self.missing_backup();
        }
        if let Some(hold) = self.refused_login() {
            return Some(hold);
        }
        if let Some(hold) = self.left_to_another(due) {
            return Some(hold);
        }
        if let Some(hold) = &self.input.waits_for_turn {
            return Some(hold.clone());
        }

        self.scavenge()
    }

    fn closed_window(&self) -> Option<String> {
        let window = self.rule.window?;
        if window.is_open(&self.input.now) {
            return None;
        }

        let until = match window.opens(&self.input.now) {
            Some(opens) => format!(" until {}", opens.strftime("%Y-%m-%d %H:%M")),
            None => String::new(),
        };
        Some(format!("its window {window} is closed{until}"))
    }

    /// `verify` and `expire` wait for the first backup.
    fn missing_backup(&self) -> Option<String> {
        let Some(repository) = self.input.repository else {
            return Some("the repository cannot be read".to_owned());
        };

        repository
            .points
            .is_empty()
            .then(|| "there is no backup yet".to_owned())
    }

    /// A job that was refused does not log in again before a look could. The first refusal is a run
    /// that fails, so that the hooks tell the operator.
    fn refused_login(&self) -> Option<String> {
        let next_login = self.input.next_login?;
        let last = self.input.journal.of(self.job).next()?;
        if !was_denied(last) {
            return None;
        }

        let at = next_login.to_zoned(self.input.now.time_zone().clone());
        let at = at.strftime("%H:%M:%S");
        Some(format!(
            "the node refused the last login; the agent logs in again at {at}, and at once after a \
             new password or a reload"
        ))
    }

    /// Leaves the backup to members that serve fewer clients, for some time.
    fn left_to_another(&self, due: Timestamp) -> Option<String> {
        let rank = self.input.rank.as_ref()?;

        // A backup that is due by changes always counts as due now. The wait counts from the time
        // at which the backup became due.
        let due = match self.input.backup_due_since {
            Some(since) => since.min(due),
            None => due,
        };
        let (member, until) = rank.leaves_to(due, self.now(), self.rules.grace)?;

        let until = until.to_zoned(self.input.now.time_zone().clone());
        let until = until.strftime("%H:%M:%S");
        Some(format!("it is left to {member} until {until}"))
    }

    /// A stopped scavenge costs the server its index part, and servers up to 22.10 all of it
    /// (http-api §1).
    fn scavenge(&self) -> Option<String> {
        let scavenging = self.input.node?.scavenging.as_ref()?;
        let why = self.must_not_stop_scavenges()?;

        Some(format!("{scavenging}, and {why}"))
    }

    /// Why a scavenge must not be stopped now.
    fn must_not_stop_scavenges(&self) -> Option<String> {
        let rule = &self.rule.scavenging;
        match rule.manner {
            ScavengeManner::Stop => return None,
            ScavengeManner::Skip => return Some("no backup is taken meanwhile".to_owned()),
            ScavengeManner::Wait => {}
        }

        if self.has_stopped_one_lately() {
            let rest = Span(rule.rest);
            return Some(format!("one was stopped within the last {rest}"));
        }
        if !self.is_too_old() {
            let limit = Span(rule.max_age);
            return Some(format!("nothing is older than {limit} yet"));
        }

        None
    }

    fn has_stopped_one_lately(&self) -> bool {
        let records = self.input.journal.records();
        match records
            .iter()
            .rev()
            .find(|record| record.interrupted_a_scavenge())
        {
            Some(record) => between(record.began, self.now()) < self.rule.scavenging.rest,
            None => false,
        }
    }

    /// Whether something has been, or may have been, in no backup for longer than `--max-age`.
    fn is_too_old(&self) -> bool {
        let Some(exposure) = self.input.exposure else {
            return true;
        };
        if let Some(repository) = self.input.repository
            && repository.newest_good().is_none()
        {
            return true;
        }

        match exposure.since {
            Some(since) => between(since, self.now()) >= self.rule.scavenging.max_age,
            None => false,
        }
    }
}

/// Whether the node or the repository came back at `since`, after the run had failed.
fn is_back_since(since: Timestamp, run: &RunRecord) -> bool {
    let RunOutcome::Failed { kind, .. } = &run.outcome else {
        return since > run.ended;
    };

    // Times have whole seconds: it may have come back in the second of the failure.
    let was_missing = [Kind::Unreachable, Kind::NotFound]
        .iter()
        .any(|missing| missing.name() == kind);
    since > run.ended || (was_missing && since == run.ended)
}

fn was_denied(run: &RunRecord) -> bool {
    match &run.outcome {
        RunOutcome::Failed { kind, .. } => kind == Kind::Denied.name(),
        _ => false,
    }
}

/// How long a run took, at most a day.
fn seconds(record: &RunRecord) -> i64 {
    i64::try_from(record.seconds().min(86_400)).unwrap_or(86_400)
}

#[cfg(test)]
mod tests;
