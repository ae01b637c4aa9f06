use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn good(branch: u32, finished: Timestamp) -> RetentionFacts {
    RetentionFacts {
        branch,
        finished,
        good: true,
        verified: false,
    }
}

fn series(times: &[&str]) -> Vec<RetentionFacts> {
    times.iter().map(|time| good(1, at(time))).collect()
}

fn utc() -> Zone {
    "UTC".parse().unwrap()
}

fn berlin() -> Zone {
    "Europe/Berlin".parse().unwrap()
}

fn told(policy: &Policy, backups: &[RetentionFacts], zone: &Zone) -> Vec<String> {
    let now = backups.iter().map(|backup| backup.finished).max().unwrap();

    let mut told = Vec::new();
    for reasons in reasons(policy, backups, now, zone) {
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        told.push(reasons.join(", "));
    }
    told
}

#[test]
fn the_newest_of_each_period_in_local_time_stays() {
    // 23:30 UTC is the next day in Berlin.
    let backups = series(&[
        "2026-11-18T08:00:00Z",
        "2026-11-18T20:00:00Z",
        "2026-11-18T23:30:00Z",
        "2026-11-20T10:00:00Z",
    ]);
    let policy = Policy {
        daily: 3,
        ..Policy::default()
    };
    let last = ", last good of branch 1, newest of all";

    assert_eq!(
        told(&policy, &backups, &berlin()),
        [
            "",
            "daily 2026-11-18",
            "daily 2026-11-19",
            &format!("daily 2026-11-20{last}")
        ]
    );

    assert_eq!(
        told(&policy, &backups, &utc()),
        [
            "",
            "",
            "daily 2026-11-18",
            &format!("daily 2026-11-20{last}")
        ]
    );
}

#[test]
fn weeks_begin_on_monday_and_years_with_them() {
    // Monday the 28th of December belongs to the last week of 2026, as Sunday the 3rd of
    // January does.
    let backups = series(&[
        "2026-12-27T12:00:00Z",
        "2026-12-28T12:00:00Z",
        "2027-01-03T12:00:00Z",
        "2027-01-04T12:00:00Z",
    ]);
    let policy = Policy {
        weekly: 9,
        ..Policy::default()
    };
    let last = ", last good of branch 1, newest of all";

    assert_eq!(
        told(&policy, &backups, &utc()),
        [
            "weekly 2026-W52",
            "",
            "weekly 2026-W53",
            &format!("weekly 2027-W01{last}")
        ]
    );
}

#[test]
fn the_hour_that_comes_twice_is_two_periods() {
    // Berlin sets its clocks back at 01:00 UTC on 2026-10-25.
    let backups = series(&[
        "2026-10-25T00:10:00Z",
        "2026-10-25T00:20:00Z",
        "2026-10-25T01:10:00Z",
    ]);

    let told = told(
        &Policy {
            hourly: 9,
            ..Policy::default()
        },
        &backups,
        &berlin(),
    );

    assert_eq!(told[..2], ["", "hourly 2026-10-25 02:00+02:00"]);
    assert!(
        told[2].starts_with("hourly 2026-10-25 02:00+01:00, "),
        "{told:?}"
    );
}

#[test]
fn a_damaged_one_does_not_count_and_stays_as_long_as_a_good_one_would() {
    let mut backups = series(&[
        "2026-11-16T00:00:00Z",
        "2026-11-17T00:00:00Z",
        "2026-11-18T00:00:00Z",
        "2026-11-19T00:00:00Z",
    ]);
    let policy = Policy {
        last: 2,
        ..Policy::default()
    };
    assert_eq!(told(&policy, &backups, &utc())[..3], ["", "", "last"]);

    backups[2].good = false;
    assert_eq!(told(&policy, &backups, &utc())[..3], ["", "last", "last"]);

    backups.push(good(1, at("2026-11-20T00:00:00Z")));
    assert_eq!(told(&policy, &backups, &utc())[..4], ["", "", "", "last"]);
}

#[test]
fn the_time_counts_from_the_newest_good_one_and_never_from_the_future() {
    let policy = Policy {
        within: Some(Duration::from_secs(86400)),
        ..Policy::default()
    };
    let backups = series(&[
        "2026-11-01T00:00:00Z",
        "2026-11-02T00:00:00Z",
        "2026-11-03T00:00:00Z",
    ]);

    assert_eq!(
        are_within(&policy, &backups, "2030-01-01T00:00:00Z"),
        [false, true, true],
        "none was made for years: nothing more goes"
    );

    let mut jumped = backups;
    jumped[2].finished = at("2099-01-01T00:00:00Z");
    assert_eq!(
        are_within(&policy, &jumped, "2026-11-03T00:00:00Z"),
        [false, true, true],
        "one backup's clock was ahead"
    );
}

/// Which of the backups [`KeepRule::Within`] keeps.
fn are_within(policy: &Policy, backups: &[RetentionFacts], now: &str) -> Vec<bool> {
    let mut are_within = Vec::new();
    for reasons in reasons(policy, backups, at(now), &utc()) {
        are_within.push(reasons.iter().any(|reason| reason.rule == KeepRule::Within));
    }
    are_within
}

#[test]
fn each_branch_counts_on_its_own_and_keeps_its_last_good_one() {
    let mut backups = series(&[
        "2026-11-01T00:00:00Z",
        "2026-11-02T00:00:00Z",
        "2026-11-03T00:00:00Z",
        "2026-11-04T00:00:00Z",
    ]);
    (backups[2].branch, backups[3].branch) = (2, 2);

    let told = told(
        &Policy {
            last: 1,
            ..Policy::default()
        },
        &backups,
        &utc(),
    );

    assert_eq!(
        told,
        [
            "",
            "last, last good of branch 1",
            "",
            "last, last good of branch 2, newest of all"
        ]
    );
}

fn sequences() -> impl Strategy<Value = Vec<RetentionFacts>> {
    let step = prop_oneof![8 => 60_i64..200_000, 1 => -40_000_000_i64..40_000_000];
    let one = (
        1_u32..4,
        step,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.3),
    );

    prop::collection::vec(one, 0..60).prop_map(|steps| {
        let mut second = 1_767_225_600;
        let facts = steps.into_iter().map(|(branch, step, good, verified)| {
            second += step;
            RetentionFacts {
                branch,
                finished: Timestamp::from_second(second).unwrap(),
                good,
                verified: verified && good,
            }
        });
        facts.collect()
    })
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), 1_u32..6]
}

fn policies() -> impl Strategy<Value = Policy> {
    let within = prop::option::of((0_u64..5_000_000).prop_map(Duration::from_secs));
    let counts = (count(), count(), count(), count(), count(), count(), within);
    counts.prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

fn apply(policy: &Policy, backups: &[RetentionFacts], now: Timestamp) -> Vec<bool> {
    let reasons = reasons(policy, backups, now, &berlin());
    reasons.iter().map(|reasons| !reasons.is_empty()).collect()
}

proptest! {
    #[test]
    fn every_policy_keeps_what_is_needed_of_every_sequence_of_backups(
        backups in sequences(),
        policy in policies(),
        ahead in -50_000_000_i64..50_000_000,
    ) {
        let now = Timestamp::from_second(1_767_225_600 + ahead).unwrap();
        let stays = apply(&policy, &backups, now);

        keeps_the_newest_and_the_last_good_and_verified(&policy, &backups, &stays)?;
        a_second_time_keeps_all(&policy, &backups, &stays, now)?;
        damage_to_one_leaves_the_others(&policy, &backups, &stays, now)?;

        let more = Policy { last: policy.last + 1, daily: policy.daily + 1, ..policy };
        for (more, stays) in apply(&more, &backups, now).into_iter().zip(stays) {
            prop_assert!(more || !stays, "more rules keep less");
        }
    }
}

fn keeps_the_newest_and_the_last_good_and_verified(
    policy: &Policy,
    backups: &[RetentionFacts],
    stays: &[bool],
) -> Result<(), TestCaseError> {
    if let Some(newest) = stays.last() {
        prop_assert!(*newest, "the newest");
    }
    if let Some(index) = backups
        .iter()
        .rposition(|backup| backup.good && backup.verified)
    {
        prop_assert!(stays[index], "the last verified one");
    }

    for branch in 1..4 {
        let is_good = |backup: &RetentionFacts| backup.branch == branch && backup.good;
        if let Some(index) = backups.iter().rposition(is_good) {
            prop_assert!(stays[index], "the last good one of branch {}", branch);
        }

        let good = backups.iter().filter(|backup| is_good(backup)).count();
        let kept = kept_of(backups, stays);
        let kept = kept.iter().filter(|backup| is_good(backup)).count();
        prop_assert!(
            kept >= good.min(policy.last as usize),
            "{} of {} good ones stay",
            kept,
            good
        );
    }
    Ok(())
}

/// Nothing goes if the policy is applied once more.
fn a_second_time_keeps_all(
    policy: &Policy,
    backups: &[RetentionFacts],
    stays: &[bool],
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let left = kept_of(backups, stays);
    let all_stay = apply(policy, &left, now).into_iter().all(|stays| stays);
    prop_assert!(all_stay, "a second time more goes");
    Ok(())
}

/// The good backups stay as if there were no damaged ones.
fn damage_to_one_leaves_the_others(
    policy: &Policy,
    backups: &[RetentionFacts],
    stays: &[bool],
    now: Timestamp,
) -> Result<(), TestCaseError> {
    let (mut good, mut good_stay) = (Vec::new(), Vec::new());
    for (backup, stays) in backups.iter().zip(stays) {
        if backup.good {
            good.push(backup.clone());
            good_stay.push(*stays);
        }
    }

    let without_damaged = apply(policy, &good, now);
    prop_assert_eq!(
        good_stay,
        without_damaged,
        "damage to one decides about others"
    );
    Ok(())
}

fn kept_of(backups: &[RetentionFacts], stays: &[bool]) -> Vec<RetentionFacts> {
    let kept = backups.iter().zip(stays).filter(|(_, stays)| **stays);
    kept.map(|(backup, _)| backup.clone()).collect()
}
