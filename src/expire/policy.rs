//! The rules that keep backups: a pure function of the facts about them.

#[cfg(test)]
mod tests;

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
    /// The newest of each hour, for this many hours that have a backup.
    pub hourly: u32,
    /// The newest of each day, for this many days.
    pub daily: u32,
    /// The newest of each week, for this many weeks; a week begins on Monday.
    pub weekly: u32,
    /// The newest of each month, for this many months.
    pub monthly: u32,
    /// The newest of each year, for this many years.
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
    /// Two backups carry the same number: nothing goes while nobody knows which is newer.
    SameNumber,
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
            KeepRule::SameNumber => "same number:",
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
pub(super) struct RetentionFacts {
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
    backups: &[RetentionFacts],
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
        of_branch: &[(usize, &RetentionFacts)],
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
    fn within(&mut self, within: Duration, backups: &[RetentionFacts], now: Timestamp) {
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
    of_branch: &[(usize, &RetentionFacts)],
    zone: &Zone,
) -> Vec<(usize, Option<String>)> {
    let (mut with_good, mut with_damaged) = (BTreeSet::new(), BTreeSet::new());
    let mut newest = Vec::new();
    for (index, backup) in of_branch {
        if with_good.len() as u64 >= u64::from(count) {
            break;
        }

        let period = period(rule, &zone.at(backup.finished));
        // Under `last`, each backup counts as a period.
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
