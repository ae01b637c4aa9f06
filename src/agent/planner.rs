//! What is due, and what holds it back. Pure: the clock, the journal and what was seen come in, a
//! plan goes out.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::cluster::{ClusterFacts, Standing};
use super::exposure::Exposure;
use super::journal::{Job, Journal, Outcome, Record, Trigger};
use super::observation::{NodeFacts, RepositoryFacts};
use crate::clock::{Span, Timestamp, Window, Zoned, between};
use crate::error::Kind;
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
    /// Each member of the cluster that goes first is left so much time.
    pub grace: Duration,
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
    /// Since when node and repository have been there whenever somebody looked; none while one of
    /// them is not.
    pub well_since: Option<Timestamp>,
    /// What is in no backup; none while the node's files cannot be looked at.
    pub exposure: Option<Exposure>,
    /// The node's place in a cluster whose members wait for each other; none where they do not.
    pub standing: Option<Standing>,
    /// Since when a backup has been due that was left to others; none where none was.
    pub left_since: Option<Timestamp>,
    /// Why it is not this member's turn; none where that is not known.
    pub turn: Option<String>,
    /// What other members' backups stand for; none where each has to have its own.
    pub cluster: Option<&'a ClusterFacts>,
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
    Job::ALL
        .iter()
        .zip(&rules.jobs)
        .map(|(job, rule)| {
            Planner {
                rules,
                rule,
                situation,
                job: *job,
            }
            .plan()
        })
        .collect()
}

/// Whether a diff would find nothing: what the node has written is in the newest backup, and that
/// is good.
#[must_use]
pub(super) fn is_up_to_date(situation: &Situation<'_>) -> bool {
    let own = situation
        .repository
        .and_then(|repository| repository.points.last())
        .and_then(|point| point.good());
    let others = situation
        .cluster
        .and_then(|cluster| cluster.newest.as_ref())
        .map(|newest| &newest.made);
    // A member may lag behind the one that was backed up.
    let holds_all = |exposure: Exposure| {
        own.is_some_and(|own| own.writer == exposure.writer)
            || others.is_some_and(|others| others.writer >= exposure.writer)
    };
    situation
        .exposure
        .is_some_and(|exposure| exposure.since.is_none() && holds_all(exposure))
}

struct Planner<'a> {
    rules: &'a Rules,
    rule: &'a Rule,
    situation: &'a Situation<'a>,
    job: Job,
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let (due, trigger) = self
            .due()
            .map_or((None, Trigger::Schedule), |(due, trigger)| {
                (Some(due), trigger)
            });
        let hold = due
            .filter(|due| *due <= self.now())
            .and_then(|due| self.hold(due));
        Plan {
            job: self.job,
            due,
            trigger,
            hold,
        }
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
        if !self.job.is_backup() && self.is_new() {
            return None;
        }
        if self.job == Job::Diff && self.is_first() {
            return Some((self.now(), Trigger::First));
        }
        [self.by_the_clock(), self.by_change()]
            .into_iter()
            .flatten()
            .min_by_key(|(due, _)| *due)
    }

    /// There is no backup, or no good one, by this member or for it; but one that was made and is
    /// no good, because the node is damaged, is not made again at once.
    fn is_first(&self) -> bool {
        let is_covered = self
            .situation
            .cluster
            .is_some_and(|cluster| cluster.newest.is_some());
        !is_covered
            && match self.situation.repository {
                Some(repository) if repository.points.is_empty() => true,
                Some(repository) => {
                    repository.newest_good().is_none() && self.last_began().is_none()
                }
                None => self.is_new(),
            }
    }

    /// There is no repository yet. One that was there before and is not there now is no new one.
    fn is_new(&self) -> bool {
        self.situation.repository.is_none() && self.situation.journal.repository().is_none()
    }

    fn is_asked_for_by_change(&self) -> bool {
        self.job == Job::Diff && !self.rules.on_change.is_off()
    }

    fn by_the_clock(&self) -> Option<(Timestamp, Trigger)> {
        let zone = self.situation.now.time_zone();
        let last = self.last_began().map(|began| began.to_zoned(zone.clone()));
        let started = self.situation.started.to_zoned(zone.clone());
        let due = self
            .rule
            .schedule
            .due(last.as_ref(), &started, &self.situation.now)?
            .timestamp();
        // What was missed waits no longer.
        let late = jitter(self.rules.jitter, &self.rules.seed, due);
        let due = due.checked_add(SignedDuration::try_from(late).ok()?).ok()?;
        Some((due, Trigger::Schedule))
    }

    /// When a run of this kind began last, by whoever's hand; a full stands for a diff, too.
    fn last_began(&self) -> Option<Timestamp> {
        // What another member has taken began when it says.
        let ours = self
            .situation
            .journal
            .of(self.job)
            .find(|record| !matches!(record.outcome, Outcome::Skipped { .. }));
        let ours = ours.map(|record| record.began);
        // What a clock that was wrong wrote into a manifest asks for one run at once, not for one
        // after the other.
        let is_possible = |made: &Timestamp| ours.is_none() || *made <= self.now();
        let points = self
            .situation
            .repository
            .map(|repository| repository.points.as_slice())
            .unwrap_or_default();
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
        let others = self.situation.cluster.and_then(|cluster| match self.job {
            Job::Diff => cluster.newest.as_ref().map(|newest| newest.made.started),
            Job::Full => cluster.newest_full,
            Job::Verify | Job::Expire => None,
        });
        ours.max(made).max(others.filter(is_possible))
    }

    fn by_change(&self) -> Option<(Timestamp, Trigger)> {
        if !self.is_asked_for_by_change() {
            return None;
        }
        let exposure = self.situation.exposure?;
        let oldest = exposure.since.map(|since| between(since, self.now()));
        let due = self
            .now()
            .checked_add(self.rules.on_change.due_in(exposure.bytes, oldest)?)
            .ok()?;
        // However much is written, the node has at least as much time to itself as its last backup
        // took.
        let rested = self
            .situation
            .journal
            .of(Job::Diff)
            .next()
            .map(|last| last.ended.min(self.now()) + SignedDuration::from_secs(seconds(last)));
        Some((
            rested.map_or(due, |rested| due.max(rested)),
            Trigger::Change,
        ))
    }

    fn retry(&self) -> Option<(Timestamp, Trigger)> {
        let last = self.situation.journal.of(self.job).next()?;
        // What was missing has come back: nothing more is to be waited for. It may have come in the
        // second of the failure.
        let was_missing = matches!(&last.outcome, Outcome::Failed { kind, .. } if [Kind::Unreachable, Kind::NotFound].iter().any(|missing| missing.name() == kind));
        let is_back =
            |since: &Timestamp| *since > last.ended || (was_missing && *since == last.ended);
        if let Some(since) = self.situation.well_since.filter(is_back) {
            return Some((since, Trigger::Retry));
        }
        let failures = self
            .situation
            .journal
            .of(self.job)
            .take_while(|record| record.is_failure())
            .count()
            .max(1);
        let zone = self.situation.now.time_zone();
        // A clock that went back must not keep the next try away.
        let ended = last.ended.min(self.now()).to_zoned(zone.clone());
        let due = self
            .rule
            .schedule
            .retry(&ended, u32::try_from(failures).unwrap_or(u32::MAX))?;
        Some((due.timestamp(), Trigger::Retry))
    }

    fn hold(&self, due: Timestamp) -> Option<String> {
        self.closed_window().or_else(|| {
            if !self.job.is_backup() {
                return self.nothing_there();
            }
            self.left_to(due)
                .or_else(|| self.situation.turn.clone())
                .or_else(|| self.scavenge())
        })
    }

    fn nothing_there(&self) -> Option<String> {
        match self.situation.repository {
            None => Some("the repository cannot be read".to_owned()),
            Some(repository) => repository
                .points
                .is_empty()
                .then(|| "there is no backup yet".to_owned()),
        }
    }

    /// Members that serve fewer clients go first.
    fn left_to(&self, due: Timestamp) -> Option<String> {
        // What is due because of what is written is due now, for as long as it is.
        let due = self
            .situation
            .left_since
            .map_or(due, |since| since.min(due));
        let (member, until) =
            self.situation
                .standing
                .as_ref()?
                .leaves_to(due, self.now(), self.rules.grace)?;
        let until = until.to_zoned(self.situation.now.time_zone().clone());
        Some(format!(
            "it is left to {member} until {}",
            until.strftime("%H:%M:%S")
        ))
    }

    fn closed_window(&self) -> Option<String> {
        let window = self
            .rule
            .window
            .filter(|window| !window.is_open(&self.situation.now))?;
        let opens = window
            .opens(&self.situation.now)
            .map_or_else(String::new, |opens| {
                format!(" until {}", opens.strftime("%Y-%m-%d %H:%M"))
            });
        Some(format!("its hours {window} are over{opens}"))
    }

    /// Stopping a scavenge costs the server its index part, and servers up to 22.10 all of it
    /// (http-api §1).
    fn scavenge(&self) -> Option<String> {
        let scavenge = self.situation.node?.scavenge.as_ref()?;
        let stopped = self
            .situation
            .journal
            .records()
            .iter()
            .rev()
            .find(|record| stopped_a_scavenge(record))
            .map(|record| record.began);
        let rests =
            stopped.is_some_and(|stopped| between(stopped, self.now()) < self.rules.scavenge_rest);
        let too_old = self.situation.exposure.is_none_or(|exposure| {
            let never = self
                .situation
                .repository
                .is_some_and(|repository| repository.newest_good().is_none());
            never
                || exposure
                    .since
                    .is_some_and(|since| between(since, self.now()) >= self.rules.max_age)
        });
        if rests {
            return Some(format!(
                "scavenge {scavenge} runs, and one was stopped within the last {}",
                Span(self.rules.scavenge_rest)
            ));
        }
        (!too_old).then(|| {
            format!(
                "scavenge {scavenge} runs, and nothing is older than {} yet",
                Span(self.rules.max_age)
            )
        })
    }
}

fn stopped_a_scavenge(record: &Record) -> bool {
    record.pauses.iter().any(|pause| pause.what == "scavenge")
}

fn seconds(record: &Record) -> i64 {
    i64::try_from(record.seconds())
        .unwrap_or(i64::MAX)
        .min(86400)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
    use uuid::Uuid;

    use super::*;
    use crate::agent::worker::Order;
    use crate::error::Kind;

    const MINUTE: i64 = 60;
    /// 2026-01-01 in UTC; Berlin changes its clocks on 2026-03-29 and 2026-10-25.
    const YEAR: i64 = 1_767_225_600;
    const LENGTH: i64 = 365 * 86400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn rules(diff: &str) -> Rules {
        let rule = |schedule: &str| Rule {
            schedule: schedule.parse().unwrap(),
            window: None,
        };
        Rules {
            grace: Duration::ZERO,
            jobs: [rule("off"), rule(diff), rule("off"), rule("off")],
            on_change: OnChange::OFF,
            jitter: Duration::ZERO,
            seed: String::new(),
            max_age: Duration::from_hours(26),
            scavenge_rest: Duration::from_hours(24),
        }
    }

    fn ran(outcome: Outcome, began: i64) -> Record {
        let order = Order {
            job: Job::Diff,
            trigger: Trigger::Schedule,
            repository: Some(Uuid::from_u128(1)),
        };
        Record::of(&order, at(began), outcome)
    }

    fn done() -> Outcome {
        Outcome::Done {
            label: None,
            warnings: Vec::new(),
        }
    }

    fn failed(kind: Kind) -> Outcome {
        Outcome::Failed {
            kind: kind.name().to_owned(),
            exit_code: kind.exit_code(),
            message: String::new(),
            hints: Vec::new(),
        }
    }

    fn journal(records: Vec<Record>) -> (tempfile::TempDir, Journal) {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path(), std::path::Path::new("/repo")).unwrap();
        journal.know(Uuid::from_u128(1)).unwrap();
        records
            .into_iter()
            .for_each(|record| journal.remember(record));
        (place, journal)
    }

    fn diff(
        rules: &Rules,
        journal: &Journal,
        now: i64,
        started: i64,
        well_since: Option<i64>,
    ) -> Plan {
        let zone: crate::clock::Zone = "Europe/Berlin".parse().unwrap();
        let situation = Situation {
            cluster: None,
            left_since: None,
            standing: None,
            now: zone.at(at(now)),
            started: at(started),
            journal,
            repository: None,
            node: None,
            well_since: well_since.map(at),
            exposure: None,
            turn: None,
        };
        plan(rules, &situation)
            .into_iter()
            .find(|plan| plan.job == Job::Diff)
            .unwrap()
    }

    /// Times at which no agent runs, in minutes of the year: when, and for how long.
    fn outages() -> impl Strategy<Value = Vec<(i64, i64)>> {
        proptest::collection::vec((1..LENGTH / MINUTE, 1..4000_i64), 0..40).prop_map(
            |mut outages| {
                outages.sort_unstable();
                let mut end = 0;
                outages.retain(|(from, length)| {
                    let is_apart = *from > end + 1;
                    end = if is_apart { from + length } else { end };
                    is_apart
                });
                outages
            },
        )
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

        /// Each time of a cron expression in a year, with the days on which clocks change, once;
        /// those that were missed once together, as soon as somebody is there.
        #[test]
        fn a_year_of_runs(outages in outages(), schedule in 0..4_usize) {
            let rules = rules(["30 2 * * *", "0 */6 * * *", "15,45 1-3 * * *", "0 3 * * sun"][schedule]);
            let outages: Vec<(i64, i64)> =
                outages.iter().map(|(from, length)| (YEAR + from * MINUTE + 1, YEAR + (from + length) * MINUTE + 1)).collect();
            let zone: crate::clock::Zone = "Europe/Berlin".parse().unwrap();
            let mut expected = BTreeSet::new();
            let mut occurrence = zone.at(at(YEAR));
            loop {
                occurrence = rules.jobs[1].schedule.next(&occurrence).unwrap();
                let second = occurrence.timestamp().as_second();
                let made = outages.iter().find(|(from, to)| (*from..*to).contains(&second)).map_or(second, |(_, to)| *to);
                if second >= YEAR + LENGTH || made >= YEAR + LENGTH {
                    break;
                }
                expected.insert(made);
            }
            let (_place, mut journal) = journal(vec![ran(done(), YEAR)]);
            let (mut now, mut started, mut made) = (YEAR, YEAR, BTreeSet::new());
            while now < YEAR + LENGTH {
                if let Some((_, to)) = outages.iter().find(|(from, to)| (*from..*to).contains(&now)) {
                    (now, started) = (*to, *to);
                    continue;
                }
                let plan = diff(&rules, &journal, now, started, None);
                if plan.is_ready(at(now)) {
                    prop_assert!(made.insert(now), "twice at {}", at(now));
                    journal.remember(ran(done(), now));
                    continue;
                }
                let due = plan.due.unwrap().as_second();
                prop_assert!(due > now);
                now = outages.iter().map(|(from, _)| *from).filter(|from| *from > now).min().map_or(due, |from| due.min(from));
            }
            prop_assert_eq!(made, expected);
        }
    }

    #[test]
    fn failures_are_tried_again_later_and_later_and_at_once_when_what_was_missing_is_back() {
        let rules = rules("12h");
        let mut records = vec![ran(done(), YEAR)];
        for (failures, minutes) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (40, 60)] {
            records.resize_with(failures + 1, || ran(failed(Kind::Unreachable), YEAR + 100));
            let (_place, journal) = journal(records.clone());
            let plan = |well_since| diff(&rules, &journal, YEAR + 110, YEAR, well_since);
            assert_eq!(
                (plan(None).due, plan(None).trigger),
                (Some(at(YEAR + 100 + minutes * MINUTE)), Trigger::Retry),
                "{failures}"
            );
            assert_eq!(
                plan(Some(YEAR + 90)).due,
                plan(None).due,
                "it was there all the time"
            );
            assert!(plan(Some(YEAR + 105)).is_ready(at(YEAR + 110)));
        }
        // Another run that is at work is no failure, however often it is met.
        let (_place, journal) = journal(vec![ran(failed(Kind::Locked), YEAR + 100); 9]);
        assert_eq!(
            diff(&rules, &journal, YEAR + 110, YEAR, None).due,
            Some(at(YEAR + 160))
        );
    }

    #[test]
    fn a_clock_that_goes_back_asks_for_one_run() {
        let rules = rules("1h");
        let (_place, mut journal) = journal(vec![ran(done(), YEAR + 86400)]);
        assert!(diff(&rules, &journal, YEAR, YEAR, None).is_ready(at(YEAR)));
        journal.remember(ran(done(), YEAR));
        assert_eq!(
            diff(&rules, &journal, YEAR + 1, YEAR, None).due,
            Some(at(YEAR + 3600))
        );
    }
}
