//! How long a backup will take, as far as kbackup can tell before it begins.
//!
//! Quiescing asks this: an auto-scavenge that begins only after the copy need not be paused. A
//! wrong estimate costs another attempt or a needless pause, and nothing else.

use std::time::Duration;

use super::estimate::CopyEstimate;
use super::existing::ExistingBackups;
use crate::manifest::Head;

/// What every backup takes beside its bytes: answers of the node, small files, syncs.
const AT_LEAST: Duration = Duration::from_secs(600);
/// The rate for a repository without an earlier backup to learn from.
const UNKNOWN_RATE: u64 = 100 << 20;
/// A backup that read less shows its other costs, not its rate.
const TELLING_BYTES: u64 = 1 << 30;

/// How fast the next backup will copy, in bytes a second: as fast as the newest backup that tells,
/// but not faster than `limit`.
pub(super) fn expected_rate(existing: &ExistingBackups, limit: Option<u64>) -> u64 {
    let mut rate = UNKNOWN_RATE;
    for backup in existing.backups.iter().rev() {
        if let Some(shown) = rate_of(backup) {
            rate = shown;
            break;
        }
    }

    match limit {
        Some(limit) => rate.min(limit),
        None => rate,
    }
}

/// How long the copy will take, with half as much again to spare. `rate`: bytes a second.
pub(super) fn of_copy(estimate: CopyEstimate, rate: u64) -> Duration {
    let seconds = estimate.bytes / rate.max(1);
    AT_LEAST.saturating_add(Duration::from_secs(seconds.saturating_add(seconds / 2)))
}

/// The rate of an earlier backup. Returns `None` if it read too little to tell.
fn rate_of(backup: &Head) -> Option<u64> {
    if backup.cost.bytes_read < TELLING_BYTES {
        return None;
    }

    let (started, finished) = (backup.started.as_second(), backup.finished.as_second());
    let seconds = u64::try_from(finished.saturating_sub(started)).ok()?;
    Some(backup.cost.bytes_read / seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::manifest::samples::head;

    const GIB: u64 = 1 << 30;

    /// A backup that read so many bytes in so many seconds.
    fn backup(bytes_read: u64, seconds: i64) -> Head {
        let mut head = head(0);
        head.cost.bytes_read = bytes_read;
        head.finished = Timestamp::from_second(head.started.as_second() + seconds).unwrap();
        head
    }

    fn rate(backups: Vec<Head>, limit: Option<u64>) -> u64 {
        let mut existing = ExistingBackups::default();
        existing.backups = backups;
        expected_rate(&existing, limit)
    }

    #[test]
    fn the_newest_backup_that_read_enough_tells_the_rate() {
        let backups = vec![backup(4 * GIB, 1), backup(2 * GIB, 64), backup(4096, 30)];
        assert_eq!(rate(backups.clone(), None), 32 << 20);
        assert_eq!(rate(backups, Some(1 << 20)), 1 << 20);
        assert_eq!(rate(Vec::new(), None), UNKNOWN_RATE);
    }

    #[test]
    fn a_clock_that_went_back_breaks_no_estimate() {
        assert_eq!(rate(vec![backup(2 * GIB, -5)], None), UNKNOWN_RATE);
        assert_eq!(rate(vec![backup(2 * GIB, 0)], None), 2 * GIB);
    }

    #[test]
    fn an_estimate_has_time_to_spare() {
        let estimate = CopyEstimate {
            bytes: 100 << 20,
            ..CopyEstimate::default()
        };
        assert_eq!(
            of_copy(estimate, 1 << 20),
            AT_LEAST + Duration::from_secs(150)
        );
        assert_eq!(of_copy(CopyEstimate::default(), 0), AT_LEAST);
    }
}
