//! The rules that keep backups: a pure function of the facts about them.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::clock::{Timestamp, Zone, Zoned};

/// What to keep of each branch. A count of 0 is a rule that was not given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Policy {
    /// How many of the newest to keep.
    pub last: u32,
    /// The newest of each hour, for so many hours that have a backup.
    pub hourly: u32,
    /// The newest of each day, for so many days.
    pub daily: u32,
    /// The newest of each week, for so many weeks; a week begins on Monday.
    pub weekly: u32,
    /// The newest of each month, for so many months.
    pub monthly: u32,
    /// The newest of each year, for so many years.
    pub yearly: u32,
    /// All that were finished no longer than this before the newest good one of the repository.
    #[serde(rename = "within_seconds", serialize_with = "seconds")]
    pub within: Option<Duration>,
}

impl Policy {
    /// Whether no rule was given, so that everything would go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn counted(&self) -> [(KeepRule, u32); 6] {
        [
            (KeepRule::Last, self.last),
            (KeepRule::Hourly, self.hourly),
            (KeepRule::Daily, self.daily),
            (KeepRule::Weekly, self.weekly),
            (KeepRule::Monthly, self.monthly),
            (KeepRule::Yearly, self.yearly),
        ]
    }
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn seconds<S: Serializer>(within: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    within.map(|within| within.as_secs()).serialize(serializer)
}

/// A rule by which a backup stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepRule {
    /// [`Policy::last`].
    Last,
    /// [`Policy::hourly`].
    Hourly,
    /// [`Policy::daily`].
    Daily,
    /// [`Policy::weekly`].
    Weekly,
    /// [`Policy::monthly`].
    Monthly,
    /// [`Policy::yearly`].
    Yearly,
    /// [`Policy::within`].
    Within,
    /// It is the newest of all: the next backup may reuse its files.
    Newest,
    /// It is the newest good backup of its branch.
    LastGood,
    /// Its branch has no good backup.
    NoGood,
    /// It is the newest backup that a verification has read whole and found intact.
    LastVerified,
    /// The newest backup is not good: nothing goes while new backups fail.
    NewestNotGood,
    /// Its manifest cannot be read, so kbackup knows nothing of it.
    Unreadable,
    /// It is being restored or verified.
    InUse,
    /// The store removes it later, such as when a retention lock ends.
    RemovedLater,
}

/// Why a backup stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeepReason {
    /// The rule that keeps it.
    pub rule: KeepRule,
    /// What the rule is about: the period of which the backup is the newest, such as `2026-11-20`,
    /// `2026-W47` or `2026-11`; its branch; or what failed.
    pub of: Option<String>,
}

impl KeepReason {
    pub(super) fn new(rule: KeepRule, of: Option<String>) -> Self {
        Self { rule, of }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.rule {
            KeepRule::Last => "last",
            KeepRule::Hourly => "hourly",
            KeepRule::Daily => "daily",
            KeepRule::Weekly => "weekly",
            KeepRule::Monthly => "monthly",
            KeepRule::Yearly => "yearly",
            KeepRule::Within => "within the time",
            KeepRule::Newest => "newest of all",
            KeepRule::LastGood => "last good of",
            KeepRule::NoGood => "no good one in",
            KeepRule::LastVerified => "last verified",
            KeepRule::NewestNotGood => "the newest is not good:",
            KeepRule::Unreadable => "unreadable:",
            KeepRule::InUse => "being restored or verified",
            KeepRule::RemovedLater => "removed later by the store",
        })?;
        match &self.of {
            Some(of) => write!(f, " {of}"),
            None => Ok(()),
        }
    }
}

/// What the rules have to know of a backup.
#[derive(Debug, Clone)]
pub(super) struct BackupFacts {
    pub(super) branch: u32,
    pub(super) finished: Timestamp,
    /// No damage is known of it.
    pub(super) good: bool,
    /// A verification has read all of its bytes, and found nothing wrong.
    pub(super) verified: bool,
}

/// Why each of the backups stays. The list of a backup that may go is empty. `backups` are all
/// whose manifest can be read, by sequence, the oldest first.
///
/// The rules count on each branch separately. A damaged backup does not count: the good ones stay
/// as if it did not exist, and it stays as long as it would if it were good.
pub(super) fn reasons(
    policy: &Policy,
    backups: &[BackupFacts],
    now: Timestamp,
    zone: &Zone,
) -> Vec<Vec<KeepReason>> {
    let mut kept = ReasonsFound {
        reasons: vec![Vec::new(); backups.len()],
    };

    let branches: BTreeSet<u32> = backups.iter().map(|backup| backup.branch).collect();
    for branch in branches {
        let mut of_branch = Vec::new();
        for (index, backup) in backups.iter().enumerate().rev() {
            if backup.branch == branch {
                of_branch.push((index, backup));
            }
        }
        kept.by_branch(policy, branch, &of_branch, zone);
    }

    if let Some(within) = policy.within {
        kept.within(within, backups, now);
    }
    if let Some(index) = backups
        .iter()
        .rposition(|backup| backup.good && backup.verified)
    {
        kept.add(index, KeepRule::LastVerified, None);
    }
    if let Some(newest) = backups.len().checked_sub(1) {
        kept.add(newest, KeepRule::Newest, None);
    }
    kept.reasons
}

/// The reasons that were found so far, for each backup.
struct ReasonsFound {
    reasons: Vec<Vec<KeepReason>>,
}

impl ReasonsFound {
    fn add(&mut self, index: usize, rule: KeepRule, of: Option<String>) {
        if let Some(reasons) = self.reasons.get_mut(index) {
            reasons.push(KeepReason::new(rule, of));
        }
    }

    /// Applies the rules that count, and keeps the last good backup of a branch, or all of them if
    /// none is good. `of_branch` begins with the newest.
    fn by_branch(
        &mut self,
        policy: &Policy,
        branch: u32,
        of_branch: &[(usize, &BackupFacts)],
        zone: &Zone,
    ) {
        for (rule, count) in policy.counted() {
            for (index, period) in newest_of_periods(rule, count, of_branch, zone) {
                self.add(index, rule, period);
            }
        }

        let name = Some(format!("branch {branch}"));
        for (index, backup) in of_branch {
            if backup.good {
                self.add(*index, KeepRule::LastGood, name);
                return;
            }
        }
        for (index, _) in of_branch {
            self.add(*index, KeepRule::NoGood, name.clone());
        }
    }

    /// Keeps what was finished within a time before the newest good backup.
    fn within(&mut self, within: Duration, backups: &[BackupFacts], now: Timestamp) {
        let Some(newest) = backups.iter().rfind(|backup| backup.good) else {
            return;
        };
        // If a wrong clock gave the newest a time in the future, all others must not become too
        // old.
        let newest = newest.finished.min(now);

        for (index, backup) in backups.iter().enumerate() {
            let age = newest.duration_since(backup.finished).unsigned_abs();
            if backup.finished >= newest || age <= within {
                self.add(index, KeepRule::Within, None);
            }
        }
    }
}

/// The newest backup of each of the last `count` periods of a branch, the newest first. The clock
/// tells periods apart. The order of the backups says which is the newest of a period, because a
/// clock may jump.
fn newest_of_periods(
    rule: KeepRule,
    count: u32,
    of_branch: &[(usize, &BackupFacts)],
    zone: &Zone,
) -> Vec<(usize, Option<String>)> {
    let (mut with_good, mut with_damaged) = (BTreeSet::new(), BTreeSet::new());
    let mut newest = Vec::new();
    for (index, backup) in of_branch {
        if with_good.len() as u64 >= u64::from(count) {
            break;
        }

        let period = period(rule, &zone.at(backup.finished));
        // Without periods, each backup is a period of its own.
        let key = period.clone().unwrap_or_else(|| index.to_string());
        if with_good.contains(&key) {
            continue;
        }
        let is_first = if backup.good {
            with_good.insert(key)
        } else {
            with_damaged.insert(key)
        };
        if is_first {
            newest.push((*index, period));
        }
    }
    newest
}

/// The period that holds a time. Returns `None` for rules without periods. When clocks are set
/// back, the hour that comes twice is two periods.
fn period(rule: KeepRule, time: &Zoned) -> Option<String> {
    match rule {
        KeepRule::Hourly => Some(time.strftime("%Y-%m-%d %H:00%:z").to_string()),
        KeepRule::Daily => Some(time.strftime("%Y-%m-%d").to_string()),
        KeepRule::Weekly => Some(time.strftime("%G-W%V").to_string()),
        KeepRule::Monthly => Some(time.strftime("%Y-%m").to_string()),
        KeepRule::Yearly => Some(time.strftime("%Y").to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn good(branch: u32, finished: Timestamp) -> BackupFacts {
        BackupFacts {
            branch,
            finished,
            good: true,
            verified: false,
        }
    }

    fn series(times: &[&str]) -> Vec<BackupFacts> {
        times.iter().map(|time| good(1, at(time))).collect()
    }

    fn utc() -> Zone {
        "UTC".parse().unwrap()
    }

    fn berlin() -> Zone {
        "Europe/Berlin".parse().unwrap()
    }

    fn told(policy: &Policy, backups: &[BackupFacts], zone: &Zone) -> Vec<String> {
        let now = backups.iter().map(|backup| backup.finished).max().unwrap();
        let reasons = reasons(policy, backups, now, zone);
        reasons
            .iter()
            .map(|reasons| {
                reasons
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect()
    }

    #[test]
    fn the_newest_stands_for_its_period_in_local_time() {
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
    fn the_hour_that_comes_twice_is_two() {
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
    fn a_damaged_one_takes_no_place_and_stays_as_long_as_a_good_one_would() {
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
        let stay = |backups: &[BackupFacts], now: &str| {
            let reasons = reasons(&policy, backups, at(now), &utc());
            reasons
                .iter()
                .map(|reasons| reasons.iter().any(|reason| reason.rule == KeepRule::Within))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            stay(&backups, "2030-01-01T00:00:00Z"),
            [false, true, true],
            "none was made for years: nothing more goes"
        );
        let mut jumped = backups;
        jumped[2].finished = at("2099-01-01T00:00:00Z");
        assert_eq!(
            stay(&jumped, "2026-11-03T00:00:00Z"),
            [false, true, true],
            "one backup's clock was ahead"
        );
    }

    #[test]
    fn each_branch_has_its_own_places_and_its_last_good_one() {
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

    fn histories() -> impl Strategy<Value = Vec<BackupFacts>> {
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
                BackupFacts {
                    branch,
                    finished: Timestamp::from_second(second).unwrap(),
                    good,
                    verified: verified && good,
                }
            });
            facts.collect()
        })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let count = || prop_oneof![Just(0_u32), 1_u32..6];
        let within = prop::option::of((0_u64..5_000_000).prop_map(Duration::from_secs));
        (count(), count(), count(), count(), count(), count(), within).prop_map(
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

    fn apply(policy: &Policy, backups: &[BackupFacts], now: Timestamp) -> Vec<bool> {
        reasons(policy, backups, now, &berlin())
            .iter()
            .map(|reasons| !reasons.is_empty())
            .collect()
    }

    proptest! {
        #[test]
        fn whatever_the_policy_and_the_history(backups in histories(), policy in policies(), ahead in -50_000_000_i64..50_000_000) {
            let now = Timestamp::from_second(1_767_225_600 + ahead).unwrap();
            let stays = apply(&policy, &backups, now);
            prop_assert_eq!(stays.last().copied().unwrap_or(true), true, "the newest");
            let newest = |wanted: &dyn Fn(&BackupFacts) -> bool| backups.iter().rposition(wanted);
            for branch in 1..4 {
                if let Some(index) = newest(&|backup| backup.branch == branch && backup.good) {
                    prop_assert!(stays[index], "the last good one of branch {}", branch);
                }
                let good = backups.iter().zip(&stays).filter(|(backup, _)| backup.branch == branch && backup.good);
                let (all, kept) = (good.clone().count(), good.filter(|(_, stays)| **stays).count());
                prop_assert!(kept >= all.min(policy.last as usize), "{} of {} good ones stay", kept, all);
            }
            if let Some(index) = newest(&|backup| backup.good && backup.verified) {
                prop_assert!(stays[index], "the last verified one");
            }

            // Once more, with nothing new.
            let left: Vec<BackupFacts> = backups.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(backup, _)| backup.clone()).collect();
            prop_assert!(apply(&policy, &left, now).into_iter().all(|stays| stays), "a second time more goes");

            // Damage to one pushes no other one out.
            let sound: Vec<BackupFacts> = backups.iter().filter(|backup| backup.good).cloned().collect();
            let with: Vec<bool> = backups.iter().zip(&stays).filter(|(backup, _)| backup.good).map(|(_, stays)| *stays).collect();
            prop_assert_eq!(with, apply(&policy, &sound, now), "damage to one decides about others");

            // What is kept by more rules is never less.
            let more = Policy { last: policy.last + 1, daily: policy.daily + 1, ..policy.clone() };
            prop_assert!(apply(&more, &backups, now).iter().zip(&stays).all(|(more, stays)| *more || !*stays));
        }
    }
}
