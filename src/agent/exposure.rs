//! What the node has written and is in no backup: how much, and since when.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::observation::Made;
use crate::clock::Timestamp;

/// So many moments are remembered; of more, two become one.
const MOST: usize = 1024;

/// What was written since the newest good backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// The node's log ends here, in bytes.
    pub writer: u64,
    /// Bytes of log that are in no good backup; all of it where there is none.
    pub bytes: u64,
    /// Since when something is in no good backup; none while everything is.
    pub since: Option<Timestamp>,
}

/// Remembers when the end of the log was seen where.
#[derive(Debug, Default)]
pub(super) struct History {
    /// When each position was seen first, oldest first; positions ascend.
    moments: VecDeque<(Timestamp, u64)>,
    /// When the last of them was seen last.
    looked: Timestamp,
    /// Nothing can be seen now.
    is_blind: bool,
}

impl History {
    /// The log ends at `writer` now.
    pub(super) fn see(&mut self, now: Timestamp, writer: u64) {
        // A clock that went back makes nothing younger.
        if now < self.looked {
            let back = self.looked.duration_since(now);
            self.moments
                .iter_mut()
                .for_each(|(at, _)| *at = at.checked_sub(back).unwrap_or(*at));
        }
        (self.looked, self.is_blind) = (now, false);
        match self.moments.back_mut() {
            Some((_, newest)) if *newest == writer => {}
            // It went back: another log, of which nothing is known yet.
            Some((_, newest)) if *newest > writer => self.moments = VecDeque::from([(now, writer)]),
            _ => self.moments.push_back((now, writer)),
        }
        if self.moments.len() > MOST {
            // The earlier time of two with the later position: something may seem older than it is,
            // never younger.
            let moments = self.moments.make_contiguous().chunks(2);
            self.moments = moments
                .filter_map(|pair| Some((pair.first()?.0, pair.last()?.1)))
                .collect();
        }
    }

    /// The end of the log cannot be read: nothing is known of it, and what was known may be long
    /// past.
    pub(super) const fn lose_sight(&mut self) {
        self.is_blind = true;
    }

    /// As [`Self::exposure`], where another member has taken the newest one: this node may lag
    /// behind it.
    pub(super) fn exposure_beside(&mut self, newest: &Made) -> Option<Exposure> {
        let &(_, writer) = self.moments.back()?;
        self.exposure(Some(&Made {
            writer: newest.writer.min(writer),
            ..*newest
        }))
    }

    /// What is in no good backup, where `newest` is the newest good one; none where the log was
    /// never seen.
    pub(super) fn exposure(&mut self, newest: Option<&Made>) -> Option<Exposure> {
        if self.is_blind {
            return None;
        }
        let &(_, writer) = self.moments.back()?;
        let Some(newest) = newest else {
            let since = self.moments.front().map(|(at, _)| *at);
            return Some(Exposure {
                writer,
                bytes: writer,
                since: since.filter(|_| writer > 0),
            });
        };
        // What was there before the newest backup was taken tells nothing any more, but for the
        // last of it.
        while self
            .moments
            .get(1)
            .is_some_and(|(_, next)| *next <= newest.writer)
        {
            self.moments.pop_front();
        }
        let was_seen_before = self
            .moments
            .front()
            .is_some_and(|(_, first)| *first <= newest.writer);
        let beyond = self
            .moments
            .iter()
            .find(|(_, position)| *position > newest.writer)
            .map(|(at, _)| *at);
        // Where the log was beyond it when it was seen first, it may have been so since the backup.
        let since = if was_seen_before {
            beyond
        } else {
            beyond.map(|beyond| beyond.min(newest.started))
        };
        if writer < newest.writer {
            // The backup saw more of it than we did.
            if self.looked <= newest.finished {
                return Some(Exposure {
                    writer: newest.writer,
                    bytes: 0,
                    since: None,
                });
            }
            // A log that ends before its backup was restored, or is another one: everything of it
            // counts.
            return Some(Exposure {
                writer,
                bytes: writer,
                since: self.moments.front().map(|(at, _)| *at),
            });
        }
        Some(Exposure {
            writer,
            bytes: writer - newest.writer,
            since,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::BackupKind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn made(started: i64, writer: u64) -> Made {
        Made {
            kind: BackupKind::Diff,
            sequence: 1,
            branch: 1,
            started: at(started),
            finished: at(started + 1),
            position: writer,
            writer,
            last_event: None,
            bytes: 0,
            bytes_read: 0,
            bytes_stored: 0,
            is_sound: true,
        }
    }

    fn seen(moments: &[(i64, u64)]) -> History {
        let mut history = History::default();
        moments
            .iter()
            .for_each(|(second, writer)| history.see(at(*second), *writer));
        history
    }

    #[test]
    fn it_counts_from_the_first_byte_that_is_in_no_backup() {
        let exposure =
            seen(&[(10, 100), (20, 100), (30, 150), (40, 200)]).exposure(Some(&made(5, 100)));
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
    fn nothing_is_exposed_where_nothing_was_written() {
        let exposure = seen(&[(10, 50), (20, 100)]).exposure(Some(&made(15, 100)));
        assert_eq!(
            exposure,
            Some(Exposure {
                writer: 100,
                bytes: 0,
                since: None
            })
        );
        assert_eq!(History::default().exposure(Some(&made(15, 100))), None);
    }

    #[test]
    fn what_nobody_saw_begin_is_as_old_as_it_can_be() {
        let exposure = seen(&[(1000, 300)]).exposure(Some(&made(5, 100)));
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
    fn a_log_that_cannot_be_read_is_not_the_one_of_before() {
        let mut history = seen(&[(10, 100)]);
        history.lose_sight();
        assert_eq!(history.exposure(Some(&made(5, 100))), None);
        history.see(at(20), 150);
        assert_eq!(
            history.exposure(Some(&made(5, 100))),
            Some(Exposure {
                writer: 150,
                bytes: 50,
                since: Some(at(20))
            })
        );
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_younger() {
        let mut history = seen(&[
            (100_000, 100),
            (100_010, 150),
            (100_030, 150),
            (13_600, 150),
        ]);
        let since = history.exposure(Some(&made(99_000, 100))).unwrap().since;
        assert_eq!(
            since,
            Some(at(13_580)),
            "20 seconds before the clock jumped"
        );
        let mut unseen = seen(&[(100, 150)]);
        assert_eq!(
            unseen.exposure(Some(&made(86_500, 100))).unwrap().since,
            Some(at(100))
        );
    }

    #[test]
    fn a_log_that_went_back_is_in_no_backup() {
        let exposure = seen(&[(10, 300), (20, 80)]).exposure(Some(&made(5, 100)));
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
        let exposure = seen(&[(10, 300), (20, 310)]).exposure_beside(&made(5, 320));
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
    fn a_backup_that_saw_more_than_we_did_is_believed() {
        let exposure = seen(&[(10, 300)]).exposure(Some(&made(9, 320)));
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
        fn what_is_forgotten_makes_nothing_younger(steps in proptest::collection::vec(1..50_u64, 1..4000), share in 0..=100_u64) {
            let held = steps.iter().sum::<u64>() * share / 100;
            let mut history = History::default();
            let (mut writer, mut first_beyond) = (0, None);
            for (second, step) in (0..).zip(&steps) {
                writer += step;
                history.see(at(second), writer);
                if writer > held {
                    first_beyond.get_or_insert(at(second));
                }
            }
            let since = history.exposure(Some(&made(-1, held))).unwrap().since;
            proptest::prop_assert_eq!(since.is_some(), first_beyond.is_some());
            proptest::prop_assert!(since <= first_beyond);
        }
    }
}
