//! What the picture shows: backups, the times without one, and the marks in each slot.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, ToSpan};

use crate::agent::page::formatting::LocalTimes;
use crate::agent::run_record::RunOutcome;
use crate::agent::status::Status;
use crate::clock::{Timestamp, between};
use crate::manifest::BackupKind;

/// How many days the picture may show. It uses the smallest number that shows everything, or else
/// the largest.
const DAYS: [i64; 3] = [7, 14, 28];
/// The picture is divided into this many slots. All backups of one slot are drawn as one mark.
pub(super) const SLOTS: u32 = 168;

/// The time from one moment to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// A backup as it is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct DrawnBackup {
    pub kind: BackupKind,
    pub started: Timestamp,
    pub finished: Timestamp,
    pub stored: u64,
    pub is_good: bool,
    /// It has been removed since.
    pub is_gone: bool,
}

/// The backups of one slot.
#[derive(Debug)]
pub(super) struct Column {
    pub fulls: u32,
    pub diffs: u32,
    pub damaged: u32,
    /// All of them have been removed since.
    pub is_gone: bool,
    pub stored: u64,
    pub longest: Duration,
    pub range: TimeRange,
}

impl Column {
    fn empty(range: TimeRange) -> Self {
        Self {
            fulls: 0,
            diffs: 0,
            damaged: 0,
            is_gone: true,
            stored: 0,
            longest: Duration::ZERO,
            range,
        }
    }

    fn add(&mut self, backup: &DrawnBackup) {
        match backup.kind {
            BackupKind::Full => self.fulls += 1,
            BackupKind::Diff => self.diffs += 1,
        }
        self.damaged += u32::from(!backup.is_good);
        self.is_gone &= backup.is_gone;

        self.stored = self.stored.saturating_add(backup.stored);
        self.longest = self.longest.max(between(backup.started, backup.finished));
        self.range = TimeRange {
            from: self.range.from.min(backup.started),
            to: self.range.to.max(backup.finished),
        };
    }
}

/// The backups by their slots.
pub(super) fn columns(backups: &[DrawnBackup], shown: TimeRange) -> BTreeMap<u32, Column> {
    let mut columns = BTreeMap::new();

    for backup in backups {
        let Some(slot) = shown.slot(backup.started) else {
            continue;
        };
        let range = TimeRange {
            from: backup.started,
            to: backup.finished,
        };

        let column = columns.entry(slot).or_insert_with(|| Column::empty(range));
        column.add(backup);
    }

    columns
}

impl TimeRange {
    /// How many days to show, and since when.
    pub(super) fn to_show(
        status: &Status,
        backups: &[DrawnBackup],
        times: LocalTimes<'_>,
    ) -> (i64, Self) {
        let mut first = status.at;
        for backup in backups {
            first = first.min(backup.started);
        }
        if let Some(record) = status.history.first() {
            first = first.min(record.began);
        }

        let (mut days, mut from) = (0, status.at);
        for number in DAYS {
            (days, from) = (number, midnight_before(status.at, number, times));
            if from <= first {
                break;
            }
        }
        let shown = Self {
            from,
            to: status.at,
        };

        (days, shown)
    }

    /// How far from the left edge of the picture a moment is, from 0 to 1.
    pub(super) fn share(&self, at: Timestamp) -> f64 {
        let whole = seconds(self.to.duration_since(self.from));
        if whole > 0 {
            let past = seconds(at.duration_since(self.from));
            (f64::from(past) / f64::from(whole)).min(1.0)
        } else {
            1.0
        }
    }

    /// The slot of a moment. `None` if it is before the picture.
    pub(super) fn slot(&self, at: Timestamp) -> Option<u32> {
        let past = u64::try_from(at.duration_since(self.from).as_secs()).ok()?;
        let whole = u64::try_from(self.to.duration_since(self.from).as_secs()).ok()?;

        let slot = past.saturating_mul(u64::from(SLOTS)).checked_div(whole)?;
        u32::try_from(slot.min(u64::from(SLOTS) - 1)).ok()
    }
}

/// 0 for a negative length.
fn seconds(length: SignedDuration) -> u32 {
    u32::try_from(length.as_secs()).unwrap_or(0)
}

/// The midnight at which a picture of so many days begins. Today is one of them.
fn midnight_before(now: Timestamp, days: i64, times: LocalTimes<'_>) -> Timestamp {
    let midnight = times
        .at(now)
        .start_of_day()
        .and_then(|today| today.checked_sub((days - 1).days()));

    match midnight {
        Ok(midnight) => midnight.timestamp(),
        Err(_) => now,
    }
}

/// The backups of the repository, and the backups of the history that were removed. Oldest first.
pub(super) fn backups(status: &Status) -> Vec<DrawnBackup> {
    let mut backups = BTreeMap::new();
    // While the repository cannot be read, nobody knows which of them were removed.
    let is_known = status.repository.facts.is_some();

    for record in &status.history {
        let RunOutcome::Done {
            label: Some(label), ..
        } = &record.outcome
        else {
            continue;
        };
        let kind = if label.to_string().ends_with("full") {
            BackupKind::Full
        } else {
            BackupKind::Diff
        };

        let gone = DrawnBackup {
            kind,
            started: record.began,
            finished: record.ended,
            stored: record.bytes_stored,
            is_good: true,
            is_gone: is_known,
        };
        backups.insert(label, gone);
    }

    // The repository knows more about its backups than the history.
    let facts = status.repository.facts.iter();
    for point in facts.flat_map(|facts| &facts.points) {
        let Some(backup) = point.backup else { continue };

        let held = DrawnBackup {
            kind: backup.kind,
            started: backup.started,
            finished: backup.finished,
            stored: backup.bytes_stored,
            is_good: point.good().is_some(),
            is_gone: false,
        };
        backups.insert(&point.label, held);
    }

    let mut backups: Vec<_> = backups.into_values().collect();
    backups.sort_by_key(|backup| backup.finished);
    backups
}

/// The times in which the newest good backup was older than the limit. A run that found nothing new
/// counts as a backup.
pub(super) fn gaps(status: &Status, backups: &[DrawnBackup]) -> Vec<TimeRange> {
    let mut covered = Vec::new();
    for backup in backups {
        if backup.is_good {
            covered.push((backup.started, backup.finished));
        }
    }
    for record in &status.history {
        if record.outcome == RunOutcome::UpToDate {
            covered.push((record.began, record.ended));
        }
    }
    covered.sort_by_key(|(_, until)| *until);

    // A gap that goes on until now ends now.
    let is_all_backed_up = match status.exposure {
        Some(exposure) => exposure.since.is_none(),
        None => false,
    };
    if !is_all_backed_up && !covered.is_empty() {
        covered.push((status.at, status.at));
    }

    let limit = i64::try_from(status.max_age_seconds).unwrap_or(i64::MAX);
    let limit = SignedDuration::from_secs(limit);
    let mut gaps = Vec::new();
    for ((started, _), (_, until)) in covered.iter().zip(covered.iter().skip(1)) {
        let Ok(from) = started.checked_add(limit) else {
            continue;
        };
        if from < *until {
            gaps.push(TimeRange { from, to: *until });
        }
    }

    gaps
}
