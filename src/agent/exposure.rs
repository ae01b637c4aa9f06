//! What the node has written that is in no backup: how many bytes, and since when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::facts::BackupFacts;
use crate::clock::Timestamp;

/// How many moments are remembered. If there are more, every two become one.
const MOST: usize = 1024;

/// What was written since the newest good backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// Where the node's log ends, in bytes.
    pub writer: u64,
    /// How many bytes of the log are in no good backup.
    pub bytes: u64,
    /// Since when something is in no good backup. `None` if everything is in one.
    pub since: Option<Timestamp>,
}

/// Remembers where the log ended, and when the agent saw that.
#[derive(Debug, Default)]
pub(super) struct WriterHistory {
    /// Each position, and when it was read first. The oldest is first, and the positions ascend.
    moments: VecDeque<(Timestamp, u64)>,
    /// When the position was read last.
    last_read: Timestamp,
    /// Since when the position cannot be read.
    blind_since: Option<Instant>,
}

impl WriterHistory {
    /// The log ends at `writer` now.
    pub(super) fn see(&mut self, now: Timestamp, writer: u64) {
        // If the clock went back, the moments go back, too. So nothing becomes younger.
        if now < self.last_read {
            let back = self.last_read.duration_since(now);
            for (at, _) in &mut self.moments {
                *at = at.checked_sub(back).unwrap_or(*at);
            }
        }
        (self.last_read, self.blind_since) = (now, None);

        match self.moments.back() {
            Some((_, newest)) if *newest == writer => {}
            // The log became shorter. So it is another log, and the old moments say nothing of it.
            Some((_, newest)) if *newest > writer => self.moments = VecDeque::from([(now, writer)]),
            _ => self.moments.push_back((now, writer)),
        }

        if self.moments.len() > MOST {
            self.halve();
        }
    }

    /// Makes one moment of every two, with the earlier time and the later position. So bytes may
    /// seem older than they are, but never younger.
    fn halve(&mut self) {
        let mut halved = VecDeque::new();
        for pair in self.moments.make_contiguous().chunks(2) {
            if let (Some((at, _)), Some((_, writer))) = (pair.first(), pair.last()) {
                halved.push_back((*at, *writer));
            }
        }

        self.moments = halved;
    }

    /// Where the log ended at the last read.
    pub(super) fn writer(&self) -> Option<u64> {
        let &(_, writer) = self.moments.back()?;
        Some(writer)
    }

    /// Whether nothing is known of the position now.
    pub(super) fn is_unknown(&self) -> bool {
        self.blind_since.is_some() || self.moments.is_empty()
    }

    /// The position cannot be read. The node may have written since the last read.
    pub(super) fn lose_sight(&mut self) {
        self.blind_since.get_or_insert_with(Instant::now);
    }

    /// Whether the position has not been readable for at least this time.
    pub(super) fn has_been_blind_for(&self, time: Duration) -> bool {
        match self.blind_since {
            Some(since) => since.elapsed() >= time,
            None => false,
        }
    }

    /// Everything before `writer` is in a good backup. Forgets all moments up to it but the last.
    pub(super) fn forget_before(&mut self, writer: u64) {
        while let Some((_, second)) = self.moments.get(1)
            && *second <= writer
        {
            self.moments.pop_front();
        }
    }

    /// As [`Self::exposure`], if another member took the newest backup. This node may lag behind
    /// that member.
    pub(super) fn exposure_beside(&self, newest: &BackupFacts) -> Option<Exposure> {
        let &(_, writer) = self.moments.back()?;

        self.exposure(Some(&BackupFacts {
            writer: newest.writer.min(writer),
            ..*newest
        }))
    }

    /// What is in no good backup, if `newest` is the newest good one. Returns `None` if the
    /// position cannot be read.
    pub(super) fn exposure(&self, newest: Option<&BackupFacts>) -> Option<Exposure> {
        if self.blind_since.is_some() {
            return None;
        }
        let &(first_seen, first) = self.moments.front()?;
        let &(_, writer) = self.moments.back()?;

        let Some(newest) = newest else {
            return Some(Exposure {
                writer,
                bytes: writer,
                since: (writer > 0).then_some(first_seen),
            });
        };

        if writer < newest.writer {
            return Some(self.exposure_of_shorter_log(first_seen, writer, newest));
        }

        let beyond = self
            .moments
            .iter()
            .find(|(_, position)| *position > newest.writer);
        let since = match beyond {
            None => None,
            Some((at, _)) if first <= newest.writer => Some(*at),
            // The log was already longer than the backup at the first read. The bytes may be as old
            // as the begin of the backup.
            Some((at, _)) => Some(newest.started.min(*at)),
        };

        Some(Exposure {
            writer,
            bytes: writer - newest.writer,
            since,
        })
    }

    /// What is in no good backup, if the log ends before the newest one.
    fn exposure_of_shorter_log(
        &self,
        first_seen: Timestamp,
        writer: u64,
        newest: &BackupFacts,
    ) -> Exposure {
        // The backup read the log later, and saw more of it.
        if self.last_read <= newest.finished {
            return Exposure {
                writer: newest.writer,
                bytes: 0,
                since: None,
            };
        }

        // The log was restored, or is another one. The backup holds nothing of it.
        Exposure {
            writer,
            bytes: writer,
            since: Some(first_seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(started: i64, writer: u64) -> BackupFacts {
        BackupFacts {
            started: at(started),
            finished: at(started + 1),
            position: writer,
            writer,
            ..BackupFacts::sample()
        }
    }

    fn seen(moments: &[(i64, u64)]) -> WriterHistory {
        let mut history = WriterHistory::default();
        for (second, writer) in moments {
            history.see(at(*second), *writer);
        }
        history
    }

    #[test]
    fn exposure_counts_from_the_first_byte_that_is_in_no_backup() {
        let exposure =
            seen(&[(10, 100), (20, 100), (30, 150), (40, 200)]).exposure(Some(&backup(5, 100)));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 200,
                bytes: 100,
                since: Some(at(30))
            })
        );
    }

    #[test]
    fn without_writes_nothing_is_exposed() {
        let exposure = seen(&[(10, 50), (20, 100)]).exposure(Some(&backup(15, 100)));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 100,
                bytes: 0,
                since: None
            })
        );
        assert_eq!(
            WriterHistory::default().exposure(Some(&backup(15, 100))),
            None
        );
    }

    #[test]
    fn bytes_from_before_the_first_read_are_as_old_as_they_can_be() {
        let exposure = seen(&[(1000, 300)]).exposure(Some(&backup(5, 100)));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 300,
                bytes: 200,
                since: Some(at(5))
            })
        );
    }

    #[test]
    fn a_log_that_cannot_be_read_has_no_exposure() {
        let mut history = seen(&[(10, 100)]);
        history.lose_sight();
        assert_eq!(history.exposure(Some(&backup(5, 100))), None);
        history.see(at(20), 150);
        assert_eq!(
            history.exposure(Some(&backup(5, 100))),
            Some(Exposure {
                writer: 150,
                bytes: 50,
                since: Some(at(20))
            })
        );
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_younger() {
        let history = seen(&[
            (100_000, 100),
            (100_010, 150),
            (100_030, 150),
            (13_600, 150),
        ]);
        let since = history.exposure(Some(&backup(99_000, 100))).unwrap().since;
        assert_eq!(
            since,
            Some(at(13_580)),
            "20 seconds before the clock jumped"
        );
        let unseen = seen(&[(100, 150)]);
        assert_eq!(
            unseen.exposure(Some(&backup(86_500, 100))).unwrap().since,
            Some(at(100))
        );
    }

    #[test]
    fn a_log_that_went_back_is_in_no_backup() {
        let exposure = seen(&[(10, 300), (20, 80)]).exposure(Some(&backup(5, 100)));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 80,
                bytes: 80,
                since: Some(at(20))
            })
        );
    }

    #[test]
    fn a_member_that_lags_behind_the_one_with_the_backup_has_lost_nothing() {
        let exposure = seen(&[(10, 300), (20, 310)]).exposure_beside(&backup(5, 320));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 310,
                bytes: 0,
                since: None
            })
        );
    }

    #[test]
    fn a_backup_that_saw_more_of_the_log_counts() {
        let exposure = seen(&[(10, 300)]).exposure(Some(&backup(9, 320)));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 320,
                bytes: 0,
                since: None
            })
        );
    }

    proptest::proptest! {
        /// However much is forgotten, nothing seems younger than it is.
        #[test]
        fn what_is_forgotten_makes_nothing_younger(
            steps in proptest::collection::vec(1..50_u64, 1..4000),
            share in 0..=100_u64,
        ) {
            let held = steps.iter().sum::<u64>() * share / 100;
            let mut history = WriterHistory::default();
            let (mut writer, mut first_beyond) = (0, None);
            for (second, step) in (0..).zip(&steps) {
                writer += step;
                history.see(at(second), writer);
                if writer > held {
                    first_beyond.get_or_insert(at(second));
                }
            }
            let since = history.exposure(Some(&backup(-1, held))).unwrap().since;
            proptest::prop_assert_eq!(since.is_some(), first_beyond.is_some());
            proptest::prop_assert!(since <= first_beyond);
        }
    }
}
