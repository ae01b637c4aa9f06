//! What is due, and what holds it back. Pure: the clock, the journal and what was seen come in, a plan goes out.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::exposure::Exposure;
use super::journal::{Job, Journal, Outcome, Record, Trigger};
use super::observation::{NodeFacts, RepositoryFacts};
use crate::clock::{Span, Timestamp, Window, Zoned};
use crate::schedule::{OnChange, Schedule, jitter};

/// When each job takes place.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The schedules and the hours in which they may run, in the order of [`Job::ALL`].
    pub jobs: [Rule; 4],
    /// What is written may ask for a diff, too.
    pub on_change: OnChange,
    /// Runs begin up to so much later.
    pub jitter: Duration,
    /// What distinguishes this agent from its neighbours.
    pub seed: String,
    /// Something written that is in no backup may become so old.
    pub max_age: Duration,
    /// A running scavenge is stopped at most once in this time.
    pub scavenge_rest: Duration,
}

/// When one job takes place.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// By the clock.
    pub schedule: Schedule,
    /// Only in these hours.
    pub window: Option<Window>,
}

/// All that a plan is made from.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    /// Now, in the zone of the schedules.
    pub now: Zoned,
    /// When the agent was started.
    pub started: Timestamp,
    /// What it did.
    pub journal: &'a Journal,
    /// The repository; none while it cannot be looked at.
    pub repository: Option<&'a RepositoryFacts>,
    /// The node; none while it cannot be looked at.
    pub node: Option<&'a NodeFacts>,
    /// Since when node and repository have been there whenever somebody looked; none while one of them is not.
    pub well_since: Option<Timestamp>,
    /// What is in no backup; none while the node's files cannot be looked at.
    pub exposure: Option<Exposure>,
    /// Why a backup has to wait for the other members of the cluster; none where it has not.
    pub turn: Option<String>,
}

/// What is planned for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is to be done.
    pub job: Job,
    /// When; none: never by itself.
    pub due: Option<Timestamp>,
    /// Why then.
    pub trigger: Trigger,
    /// What holds it back although it is due.
    pub hold: Option<String>,
}

impl Plan {
    /// Whether it is to begin now.
    #[must_use]
    pub fn is_ready(&self, now: Timestamp) -> bool {
        self.hold.is_none() && self.due.is_some_and(|due| due <= now)
    }
}

/// Plans every job, in the order in which they go.
#[must_use]
pub(super) fn plan(rules: &Rules, situation: &Situation<'_>) -> Vec<Plan> {
    Job::ALL.iter().zip(&rules.jobs).map(|(job, rule)| Planner { rules, rule, situation, job: *job }.plan()).collect()
}

/// Whether a diff would find nothing: what the node has written is in the newest backup, and that is good.
#[must_use]
pub(super) fn is_up_to_date(situation: &Situation<'_>) -> bool {
    let newest = situation.repository.and_then(|repository| repository.points.last()).and_then(|point| point.good());
    let nothing_written = situation.exposure.is_some_and(|exposure| exposure.since.is_none());
    newest.zip(situation.exposure).is_some_and(|(newest, exposure)| nothing_written && newest.writer == exposure.writer)
}

struct Planner<'a> {
    rules: &'a Rules,
    rule: &'a Rule,
    situation: &'a Situation<'a>,
    job: Job,
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let (due, trigger) = self.due().map_or((None, Trigger::Schedule), |(due, trigger)| (Some(due), trigger));
        let hold = due.filter(|due| *due <= self.now()).and_then(|_| self.hold());
        Plan { job: self.job, due, trigger, hold }
    }

    fn now(&self) -> Timestamp {
        self.situation.now.timestamp()
    }

    /// The earliest of what the clock, the node's writing, and an earlier failure ask for.
    fn due(&self) -> Option<(Timestamp, Trigger)> {
        let last = self.situation.journal.of(self.job).next();
        if self.rule.schedule.is_off() && !self.is_asked_for_by_change() {
            return None;
        }
        match last.map(|record| &record.outcome) {
            Some(Outcome::Failed { .. }) => return self.retry(),
            Some(Outcome::Interrupted { .. }) => return Some((self.now(), Trigger::Retry)),
            _ => {}
        }
        if self.job == Job::Diff && self.is_first() {
            return Some((self.now(), Trigger::First));
        }
        [self.by_the_clock(), self.by_change()].into_iter().flatten().min_by_key(|(due, _)| *due)
    }

    /// There is no backup, or no good one; but one that was made and is no good, because the node is damaged, is not made again at once.
    fn is_first(&self) -> bool {
        match self.situation.repository {
            Some(repository) if repository.points.is_empty() => true,
            Some(repository) => repository.newest_good().is_none() && self.last_began().is_none(),
            None => self.situation.journal.repository().is_none(),
        }
    }

    fn is_asked_for_by_change(&self) -> bool {
        self.job == Job::Diff && !self.rules.on_change.is_off()
    }

    fn by_the_clock(&self) -> Option<(Timestamp, Trigger)> {
        let zone = self.situation.now.time_zone();
        let last = self.last_began().map(|began| began.to_zoned(zone.clone()));
        let started = self.situation.started.to_zoned(zone.clone());
        let due = self.rule.schedule.due(last.as_ref(), &started, &self.situation.now)?.timestamp();
        // What was missed waits no longer.
        let late = jitter(self.rules.jitter, &self.rules.seed, due);
        let due = due.checked_add(SignedDuration::try_from(late).ok()?).ok()?;
        Some((due, Trigger::Schedule))
    }

    /// When a run of this kind began last, by whoever's hand; a full stands for a diff, too.
    fn last_began(&self) -> Option<Timestamp> {
        let ours = self.situation.journal.of(self.job).next().map(|record| record.began);
        // What a clock that was wrong wrote into a manifest asks for one run at once, not for one after the other.
        let is_possible = |made: &Timestamp| ours.is_none() || *made <= self.now();
        let points = self.situation.repository.map(|repository| repository.points.as_slice()).unwrap_or_default();
        let counts = |job: Job| match self.job {
            Job::Diff => job.is_backup(),
            _ => job == self.job,
        };
        let job_of = |kind| match kind {
            crate::manifest::BackupKind::Full => Job::Full,
            crate::manifest::BackupKind::Diff => Job::Diff,
        };
        let made = points
            .iter()
            .rev()
            .filter_map(|point| point.good())
            .find(|made| counts(job_of(made.kind)))
            .map(|made| made.started)
            .filter(is_possible);
        ours.max(made)
    }

    fn by_change(&self) -> Option<(Timestamp, Trigger)> {
        if !self.is_asked_for_by_change() {
            return None;
        }
        let exposure = self.situation.exposure?;
        let oldest = exposure.since.map(|since| passed(since, self.now()));
        let due = self.now().checked_add(self.rules.on_change.due_in(exposure.bytes, oldest)?).ok()?;
        // However much is written, the node has at least as much time to itself as its last backup took.
        let rested =
            self.situation.journal.of(Job::Diff).next().map(|last| last.ended.min(self.now()) + SignedDuration::from_secs(seconds(last)));
        Some((rested.map_or(due, |rested| due.max(rested)), Trigger::Change))
    }

    fn retry(&self) -> Option<(Timestamp, Trigger)> {
        let last = self.situation.journal.of(self.job).next()?;
        // What was missing has come back: nothing more is to be waited for.
        if let Some(since) = self.situation.well_since.filter(|since| *since > last.ended) {
            return Some((since, Trigger::Retry));
        }
        let counts = |record: &&Record| record.is_failure() && !record.had_to_wait();
        let failures = self.situation.journal.of(self.job).take_while(counts).count().max(1);
        let zone = self.situation.now.time_zone();
        // A clock that went back must not keep the next try away.
        let ended = last.ended.min(self.now()).to_zoned(zone.clone());
        let due = self.rule.schedule.retry(&ended, u32::try_from(failures).unwrap_or(u32::MAX))?;
        Some((due.timestamp(), Trigger::Retry))
    }

    fn hold(&self) -> Option<String> {
        self.closed_window().or_else(|| {
            if !self.job.is_backup() {
                return self.nothing_there();
            }
            self.situation.turn.clone().or_else(|| self.scavenge())
        })
    }

    fn nothing_there(&self) -> Option<String> {
        match self.situation.repository {
            None => Some("the repository cannot be read".to_owned()),
            Some(repository) => repository.points.is_empty().then(|| "there is no backup yet".to_owned()),
        }
    }

    fn closed_window(&self) -> Option<String> {
        let window = self.rule.window.filter(|window| !window.is_open(&self.situation.now))?;
        let opens =
            window.opens(&self.situation.now).map_or_else(String::new, |opens| format!(" until {}", opens.strftime("%Y-%m-%d %H:%M")));
        Some(format!("its hours {window} are over{opens}"))
    }

    /// Stopping a scavenge costs the server its index part, and servers up to 22.10 all of it (http-api §1).
    fn scavenge(&self) -> Option<String> {
        let scavenge = self.situation.node?.scavenge.as_ref()?;
        let stopped = self.situation.journal.records().iter().rev().find(|record| stopped_a_scavenge(record)).map(|record| record.began);
        let rests = stopped.is_some_and(|stopped| passed(stopped, self.now()) < self.rules.scavenge_rest);
        let too_old = self.situation.exposure.is_none_or(|exposure| {
            let never = self.situation.repository.is_some_and(|repository| repository.newest_good().is_none());
            never || exposure.since.is_some_and(|since| passed(since, self.now()) >= self.rules.max_age)
        });
        if rests {
            return Some(format!("scavenge {scavenge} runs, and one was stopped within the last {}", Span(self.rules.scavenge_rest)));
        }
        (!too_old).then(|| format!("scavenge {scavenge} runs, and nothing is older than {} yet", Span(self.rules.max_age)))
    }
}

fn stopped_a_scavenge(record: &Record) -> bool {
    record.pauses.iter().any(|pause| pause.what == "scavenge")
}

/// How long ago something was; a clock that went back makes it nothing.
fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

fn seconds(record: &Record) -> i64 {
    i64::try_from(record.seconds()).unwrap_or(i64::MAX).min(86400)
}
