//! The plans of whole years, and of failures and clocks that jump.

use std::collections::BTreeSet;

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use uuid::Uuid;

use super::*;
use crate::agent::run_record::JobOrder;
use crate::error::Kind;

const MINUTE: i64 = 60;
/// 2026-01-01 in UTC; Berlin changes its clocks on 2026-03-29 and 2026-10-25.
const YEAR: i64 = 1_767_225_600;
const LENGTH: i64 = 365 * 86400;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn rules(diff: &str) -> PlanningRules {
    let rule = |schedule: &str| JobRule {
        schedule: schedule.parse().unwrap(),
        window: None,
        scavenging: ScavengingRule {
            manner: ScavengeManner::Wait,
            rest: Duration::from_hours(24),
            max_age: Duration::from_hours(26),
        },
    };
    PlanningRules {
        grace: Duration::ZERO,
        jobs: [rule("off"), rule(diff), rule("off"), rule("off")],
        on_change: OnChange::OFF,
        jitter: Duration::ZERO,
        seed: String::new(),
    }
}

fn ran(outcome: RunOutcome, began: i64) -> RunRecord {
    let order = JobOrder {
        job: Job::Diff,
        trigger: Trigger::Schedule,
        repository: Some(Uuid::from_u128(1)),
        may_stop_scavenges: false,
    };
    RunRecord::of(&order, at(began), outcome)
}

fn done() -> RunOutcome {
    RunOutcome::Done {
        label: None,
        warnings: Vec::new(),
    }
}

fn failed(kind: Kind) -> RunOutcome {
    RunOutcome::Failed {
        kind: kind.name().to_owned(),
        exit_code: kind.exit_code(),
        message: String::new(),
        hints: Vec::new(),
    }
}

fn journal(records: Vec<RunRecord>) -> Journal {
    let mut journal = Journal::default();
    journal.know(Uuid::from_u128(1));
    for record in records {
        journal.remember(record).unwrap();
    }
    journal
}

fn diff(
    rules: &PlanningRules,
    journal: &Journal,
    now: i64,
    started: i64,
    well_since: Option<i64>,
) -> JobPlan {
    let zone: crate::clock::Zone = "Europe/Berlin".parse().unwrap();
    let input = PlannerInput {
        cluster: None,
        backup_due_since: None,
        rank: None,
        now: zone.at(at(now)),
        started: at(started),
        journal,
        repository: None,
        node: None,
        well_since: well_since.map(at),
        exposure: None,
        waits_for_turn: None,
        next_login: None,
    };

    plan(rules, &input)
        .into_iter()
        .find(|plan| plan.job == Job::Diff)
        .unwrap()
}

/// One second after a minute of the year.
fn second(minute: i64) -> i64 {
    YEAR + minute * MINUTE + 1
}

/// Times at which no agent runs, in minutes of the year: when, and for how long.
fn outages() -> impl Strategy<Value = Vec<(i64, i64)>> {
    proptest::collection::vec((1..LENGTH / MINUTE, 1..4000_i64), 0..40).prop_map(|mut outages| {
        outages.sort_unstable();
        let mut end = 0;
        outages.retain(|(from, length)| {
            let is_apart = *from > end + 1;
            end = if is_apart { from + length } else { end };
            is_apart
        });
        outages
    })
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]

    /// Each time of a cron expression in a year gets one run, also on the days on which clocks
    /// change. The times that an outage missed get one run together, at its end.
    #[test]
    fn a_year_of_runs(outages in outages(), schedule in 0..4_usize) {
        let schedules = ["30 2 * * *", "0 */6 * * *", "15,45 1-3 * * *", "0 3 * * sun"];
        let rules = rules(schedules[schedule]);
        let outages: Vec<(i64, i64)> =
            outages.iter().map(|(from, length)| (second(*from), second(from + length))).collect();

        let zone: crate::clock::Zone = "Europe/Berlin".parse().unwrap();
        let mut expected = BTreeSet::new();
        let mut occurrence = zone.at(at(YEAR));
        loop {
            occurrence = rules.jobs[1].schedule.next(&occurrence).unwrap();
            let second = occurrence.timestamp().as_second();
            let outage = outages.iter().find(|(from, to)| (*from..*to).contains(&second));
            let made = outage.map_or(second, |(_, to)| *to);
            if second >= YEAR + LENGTH || made >= YEAR + LENGTH {
                break;
            }
            expected.insert(made);
        }

        let mut journal = journal(vec![ran(done(), YEAR)]);
        let (mut now, mut started, mut made) = (YEAR, YEAR, BTreeSet::new());
        while now < YEAR + LENGTH {
            if let Some((_, to)) = outages.iter().find(|(from, to)| (*from..*to).contains(&now)) {
                (now, started) = (*to, *to);
                continue;
            }

            let plan = diff(&rules, &journal, now, started, None);
            if plan.is_ready(at(now)) {
                prop_assert!(made.insert(now), "twice at {}", at(now));
                journal.remember(ran(done(), now)).unwrap();
                continue;
            }

            let due = plan.due.unwrap().as_second();
            prop_assert!(due > now);
            let outages = outages.iter().map(|(from, _)| *from);
            let next_outage = outages.filter(|from| *from > now).min();
            now = next_outage.map_or(due, |from| due.min(from));
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
        let journal = journal(records.clone());
        let plan = |well_since| diff(&rules, &journal, YEAR + 110, YEAR, well_since);

        assert_eq!(
            (plan(None).due, plan(None).trigger),
            (Some(at(YEAR + 100 + minutes * MINUTE)), Trigger::Retry),
            "{failures}"
        );
        assert_eq!(
            plan(Some(YEAR + 90)).due,
            plan(None).due,
            "the node was there all the time"
        );
        assert!(plan(Some(YEAR + 105)).is_ready(at(YEAR + 110)));
    }

    // Another run that holds the repository is not a failure, however often that happens.
    let journal = journal(vec![ran(failed(Kind::Locked), YEAR + 100); 9]);
    assert_eq!(
        diff(&rules, &journal, YEAR + 110, YEAR, None).due,
        Some(at(YEAR + 160))
    );
}

#[test]
fn a_clock_that_goes_back_asks_for_one_run() {
    let rules = rules("1h");
    let mut journal = journal(vec![ran(done(), YEAR + 86400)]);
    assert!(diff(&rules, &journal, YEAR, YEAR, None).is_ready(at(YEAR)));
    journal.remember(ran(done(), YEAR)).unwrap();
    assert_eq!(
        diff(&rules, &journal, YEAR + 1, YEAR, None).due,
        Some(at(YEAR + 3600))
    );
}

#[test]
fn a_backup_goes_first_and_then_what_is_due_longest() {
    let due = |job: Job, second: i64| JobPlan {
        job,
        due: Some(at(second)),
        trigger: Trigger::Schedule,
        hold: None,
    };
    let chosen = |plans: &[JobPlan]| most_urgent(plans, at(100)).map(|plan| plan.job);

    let verify_often = due(Job::Verify, 99);
    let expire = due(Job::Expire, 50);
    assert_eq!(
        chosen(&[verify_often.clone(), expire.clone()]),
        Some(Job::Expire)
    );
    assert_eq!(
        chosen(&[due(Job::Diff, 99), verify_often, expire]),
        Some(Job::Diff)
    );
    assert_eq!(chosen(&[due(Job::Verify, 101)]), None);
}
