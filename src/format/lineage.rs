//! Lineages: the epochs of a log, collected from the last one back to the first, and what two logs
//! have in common (disk-format §4.5).

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::epoch::{Epoch, EpochRecord, STRUCTURE};
use super::{LogPosition, Malformed, Result};

/// The most epochs that are read. A cluster that elects a leader every minute has so many after two
/// years.
const MAX_EPOCHS: usize = 1_000_000;

/// Collects the epochs of a log, from the one that `epoch.chk` names back to the first. The caller
/// reads the records.
///
/// ```text
/// let mut chain = Chain::starting_at(epoch_checkpoint);
/// while let Some(position) = chain.wanted() {
///     chain.add(&read_epoch_at(position)?)?;
/// }
/// let lineage = chain.finish();
/// ```
#[derive(Debug, Clone)]
pub struct Chain {
    wanted: Option<LogPosition>,
    newest_first: Vec<Epoch>,
}

impl Chain {
    /// Begins at the last epoch of a log. Takes `None` for a log without epochs.
    #[must_use]
    pub const fn starting_at(last: Option<LogPosition>) -> Self {
        Self {
            wanted: last,
            newest_first: Vec::new(),
        }
    }

    /// The position of the epoch record to add next. Returns `None` after the first epoch was added.
    #[must_use]
    pub const fn wanted(&self) -> Option<LogPosition> {
        self.wanted
    }

    /// Adds the epoch that was wanted. Each added epoch lies before the one added last, so the chain
    /// has an end.
    ///
    /// # Errors
    /// Another epoch than wanted, a number not below that of the epoch after it, or more than a
    /// million epochs.
    pub fn add(&mut self, record: &EpochRecord) -> Result<()> {
        let refuse = |expected: String, found: String| {
            Err(Malformed::new(STRUCTURE, record.offset, expected, found).into())
        };
        let epoch = record.epoch;

        if self.wanted != Some(epoch.position) {
            let expected = match self.wanted {
                Some(wanted) => format!("the epoch at {wanted}"),
                None => "no more epochs".to_owned(),
            };
            return refuse(expected, format!("the one at {}", epoch.position));
        }
        if let Some(later) = self.newest_first.last()
            && later.number <= epoch.number
        {
            let expected = format!(
                "an epoch number below {}, that of the next epoch",
                later.number
            );
            return refuse(expected, epoch.number.to_string());
        }
        if self.newest_first.len() >= MAX_EPOCHS {
            return refuse(format!("at most {MAX_EPOCHS} epochs"), "more".to_owned());
        }

        self.newest_first.push(epoch);
        self.wanted = record.previous;
        Ok(())
    }

    /// Ends the chain if the epoch added last is one of `known`: two logs that share an epoch share
    /// all epochs before it. Returns whether it did.
    pub fn join(&mut self, known: &Lineage) -> bool {
        let Some(epoch) = self.newest_first.last() else {
            return false;
        };
        if !known.contains(epoch) {
            return false;
        }

        let before = known.before(epoch.position);
        self.newest_first.extend(before.iter().rev());
        self.wanted = None;
        true
    }

    /// The epochs that were added, oldest first.
    #[must_use]
    pub fn finish(self) -> Lineage {
        let mut epochs = self.newest_first;
        epochs.reverse();
        Lineage::of(epochs)
    }
}

/// The epochs of a log, oldest first, with rising positions and numbers (disk-format §4.5).
///
/// A clone shares the epochs, and so does the beginning of a lineage. A cluster may have had a
/// hundred thousand elections, and a repository a thousand backups with nearly the same epochs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Vec<Epoch>")]
pub struct Lineage {
    shared: Arc<[Epoch]>,
    /// How many of the shared epochs belong to this lineage, from the first on.
    count: usize,
}

/// How two logs are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// One log continues the other: they are on one branch.
    Same {
        /// The end of the shorter log. Up to here they hold the same records.
        shared: LogPosition,
    },
    /// The logs share their beginning and then differ.
    Fork {
        /// The end of the common part. Up to here they hold the same records.
        at: LogPosition,
    },
    /// Nothing shows that the logs have anything in common.
    Unrelated,
}

impl Lineage {
    fn of(epochs: Vec<Epoch>) -> Self {
        Self {
            count: epochs.len(),
            shared: epochs.into(),
        }
    }

    /// The epochs, oldest first.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        self.shared.get(..self.count).unwrap_or_default()
    }

    /// Lets this lineage and another one share their epochs in memory, if one of them is the
    /// beginning of the other. Returns whether they share them now.
    pub fn share_with(&mut self, other: &mut Self) -> bool {
        let (shorter, longer) = if self.count <= other.count {
            (self, other)
        } else {
            (other, self)
        };
        if !longer.epochs().starts_with(shorter.epochs()) {
            return false;
        }
        shorter.shared = Arc::clone(&longer.shared);
        true
    }

    /// Whether the epoch is one of these.
    #[must_use]
    pub fn contains(&self, epoch: &Epoch) -> bool {
        let place = self.before(epoch.position).len();
        self.epochs().get(place) == Some(epoch)
    }

    /// The first epoch, whose id names the database.
    #[must_use]
    pub fn first(&self) -> Option<&Epoch> {
        self.epochs().first()
    }

    /// The last epoch.
    #[must_use]
    pub fn last(&self) -> Option<&Epoch> {
        self.epochs().last()
    }

    /// The last epoch of the log cut at `end`: the one that `epoch.chk` must name there.
    #[must_use]
    pub fn last_before(&self, end: LogPosition) -> Option<&Epoch> {
        self.before(end).last()
    }

    /// The lineage of the log cut at `end`.
    #[must_use]
    pub fn at(&self, end: LogPosition) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            count: self.before(end).len(),
        }
    }

    fn before(&self, end: LogPosition) -> &[Epoch] {
        let epochs = self.epochs();
        let count = epochs.partition_point(|epoch| epoch.position < end);
        epochs.get(..count).unwrap_or_default()
    }

    /// Compares the log of this lineage, which ends at `end`, with another one. Epochs at or beyond
    /// an end do not count.
    ///
    /// One leader writes everything from its epoch to the next. So two logs that share an epoch hold
    /// the same records from there to whatever comes first: the next epoch of either, or the end of
    /// either (disk-format §4.5).
    #[must_use]
    pub fn relation(&self, end: LogPosition, other: &Self, other_end: LogPosition) -> Relation {
        let (mine, others) = (self.before(end), other.before(other_end));
        let shared = end.min(other_end);

        let common = common_epochs(mine, others);
        if common == 0 {
            // An empty log is the beginning of every log.
            if shared == LogPosition::ZERO {
                return Relation::Same { shared };
            }
            return Relation::Unrelated;
        }

        let my_next = mine.get(common).map(|epoch| epoch.position);
        let other_next = others.get(common).map(|epoch| epoch.position);
        match (my_next, other_next) {
            (None, None) => Relation::Same { shared },
            (None, Some(next)) if end <= next => Relation::Same { shared },
            (Some(next), None) if other_end <= next => Relation::Same { shared },
            (None, Some(next)) | (Some(next), None) => Relation::Fork {
                at: shared.min(next),
            },
            (Some(one), Some(two)) => Relation::Fork {
                at: shared.min(one).min(two),
            },
        }
    }
}

/// How many epochs two lineages share from the first one on.
fn common_epochs(mine: &[Epoch], others: &[Epoch]) -> usize {
    // Lineages that share their memory need no comparison.
    if std::ptr::eq(mine.as_ptr(), others.as_ptr()) {
        return mine.len().min(others.len());
    }
    let pairs = mine.iter().zip(others);
    pairs.take_while(|(one, two)| one == two).count()
}

impl TryFrom<Vec<Epoch>> for Lineage {
    type Error = &'static str;

    fn try_from(epochs: Vec<Epoch>) -> Result<Self, Self::Error> {
        for (one, two) in epochs.iter().zip(epochs.iter().skip(1)) {
            if one.position >= two.position || one.number >= two.number {
                return Err("the positions and numbers of epochs rise from each to the next");
            }
        }
        Ok(Self::of(epochs))
    }
}

impl PartialEq for Lineage {
    fn eq(&self, other: &Self) -> bool {
        self.epochs() == other.epochs()
    }
}

impl Eq for Lineage {}

impl Serialize for Lineage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.epochs().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::record::Ticks;
    use super::*;

    fn position(bytes: u64) -> LogPosition {
        LogPosition::new(bytes).unwrap()
    }

    /// A lineage of epochs, each given by its position and an id.
    fn lineage(epochs: &[(u64, u128)]) -> Lineage {
        let epochs = (0..).zip(epochs).map(|(number, (at, id))| Epoch {
            position: position(*at),
            number,
            id: Uuid::from_u128(*id),
        });
        Lineage::try_from(epochs.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_chain_only_leads_down() {
        let at = |at: u64, number: i32, previous: i64| EpochRecord {
            epoch: Epoch {
                position: position(at),
                number,
                id: Uuid::nil(),
            },
            previous: LogPosition::from_signed(previous),
            leader_instance: None,
            timestamp: Ticks::MAX,
            offset: 128,
        };

        let mut chain = Chain::starting_at(Some(position(900)));
        chain.add(&at(900, 7, 400)).unwrap();
        assert_eq!(chain.wanted(), Some(position(400)));

        assert!(
            chain.add(&at(300, 5, 0)).is_err(),
            "not the one that is wanted"
        );
        assert!(chain.add(&at(400, 7, 0)).is_err(), "numbers rise");

        chain.add(&at(400, 5, -1)).unwrap();
        assert_eq!(chain.wanted(), None);
        assert!(chain.add(&at(400, 4, -1)).is_err(), "no more");
        assert_eq!(
            chain
                .finish()
                .epochs()
                .iter()
                .map(|epoch| epoch.number)
                .collect::<Vec<_>>(),
            [5, 7]
        );
        assert_eq!(Chain::starting_at(None).finish(), Lineage::default());
    }

    #[test]
    fn a_chain_ends_at_a_known_epoch() {
        let known = lineage(&[(0, 1), (500, 2), (900, 3)]);
        let record = |epoch: &Epoch, previous: u64| EpochRecord {
            epoch: *epoch,
            previous: Some(position(previous)),
            leader_instance: None,
            timestamp: Ticks::MAX,
            offset: 128,
        };

        let longer = lineage(&[(0, 1), (500, 2), (900, 3), (1200, 4)]);
        let mut chain = Chain::starting_at(Some(position(1200)));
        chain.add(&record(&longer.epochs()[3], 900)).unwrap();
        assert!(!chain.join(&known));
        chain.add(&record(&longer.epochs()[2], 500)).unwrap();
        assert!(chain.join(&known));
        assert_eq!(chain.wanted(), None);
        assert_eq!(chain.finish(), longer);

        // An epoch of another branch at the same place is not known.
        let other = lineage(&[(0, 1), (500, 9)]);
        let mut chain = Chain::starting_at(Some(position(500)));
        chain.add(&record(&other.epochs()[1], 0)).unwrap();
        assert!(!chain.join(&known));
    }

    #[test]
    fn lineages_of_one_branch_share_their_memory() {
        let mut long = lineage(&[(0, 1), (500, 2), (900, 3)]);
        let mut short = lineage(&[(0, 1), (500, 2)]);
        assert!(long.share_with(&mut short));
        assert!(Arc::ptr_eq(&long.shared, &short.shared));
        assert_eq!(short, lineage(&[(0, 1), (500, 2)]));

        let mut other = lineage(&[(0, 1), (500, 7), (800, 3)]);
        assert!(!long.share_with(&mut other));
        assert!(!Arc::ptr_eq(&long.shared, &other.shared));
    }

    #[test]
    fn cut_at_a_position() {
        let whole = lineage(&[(0, 1), (500, 2), (900, 3)]);
        assert_eq!(whole.at(position(900)), lineage(&[(0, 1), (500, 2)]));
        assert_eq!(whole.at(position(901)), whole);
        assert_eq!(
            whole.last_before(position(500)).map(|epoch| epoch.position),
            Some(position(0))
        );
        assert_eq!(whole.last_before(LogPosition::ZERO), None);
    }

    #[test]
    fn logs_of_one_branch_continue_each_other() {
        let (old, new) = (
            lineage(&[(0, 1), (500, 2)]),
            lineage(&[(0, 1), (500, 2), (900, 3)]),
        );
        let same = |shared| Relation::Same {
            shared: position(shared),
        };
        assert_eq!(old.relation(position(900), &new, position(1000)), same(900));
        assert_eq!(new.relation(position(1000), &old, position(800)), same(800));
        assert_eq!(old.relation(position(700), &old, position(600)), same(600));
        assert_eq!(
            Lineage::default().relation(position(0), &new, position(1000)),
            same(0)
        );
        // What lies beyond an end is not part of the log.
        assert_eq!(new.relation(position(500), &new, position(1000)), same(500));
    }

    #[test]
    fn logs_that_went_different_ways_have_a_trunk() {
        let (old, new) = (
            lineage(&[(0, 1), (500, 2)]),
            lineage(&[(0, 1), (500, 2), (900, 3)]),
        );
        let fork = |at| Relation::Fork { at: position(at) };

        // The old log went beyond the place where the new one had its next election.
        assert_eq!(old.relation(position(901), &new, position(1000)), fork(900));
        assert_eq!(new.relation(position(1000), &old, position(950)), fork(900));

        // Two restores of one backup, each with an election of its own.
        let other = lineage(&[(0, 1), (500, 2), (700, 4), (950, 5)]);
        assert_eq!(
            new.relation(position(1000), &other, position(2000)),
            fork(700)
        );

        // Same place and number, another id.
        assert_eq!(
            new.relation(position(1000), &lineage(&[(0, 1), (500, 9)]), position(600)),
            fork(500)
        );
    }

    #[test]
    fn nothing_in_common() {
        let (one, two) = (lineage(&[(0, 1), (500, 2)]), lineage(&[(0, 9), (500, 2)]));
        assert_eq!(
            one.relation(position(600), &two, position(600)),
            Relation::Unrelated
        );
        assert_eq!(
            Lineage::default().relation(position(600), &Lineage::default(), position(600)),
            Relation::Unrelated
        );
    }

    #[test]
    fn a_manifest_cannot_hold_a_lineage_out_of_order() {
        let text = serde_json::to_string(&lineage(&[(0, 1), (500, 2)])).unwrap();
        assert!(
            text.starts_with(r#"[{"position":0,"number":0,"id":"#),
            "{text}"
        );
        assert_eq!(
            serde_json::from_str::<Lineage>(&text).unwrap(),
            lineage(&[(0, 1), (500, 2)])
        );
        assert!(serde_json::from_str::<Lineage>(&text.replace("500", "0")).is_err());
    }

    prop_compose! {
        /// A log that goes on from a trunk: epochs, and an end behind them.
        fn any_log()(
            steps in proptest::collection::vec((1_u64..50, 0_u128..3), 0..6),
            rest in 1_u64..50,
        ) -> (Lineage, LogPosition) {
            let mut at = 0;
            let mut epochs = vec![(0, 0)];
            for (step, id) in steps {
                at += step;
                epochs.push((at, id));
            }
            (lineage(&epochs), position(at + rest))
        }
    }

    proptest! {
        #[test]
        fn relations_are_symmetric_and_cuts_stay_on_the_branch(
            (one, one_end) in any_log(),
            (two, two_end) in any_log(),
            cut in 0_u64..300,
        ) {
            let relation = one.relation(one_end, &two, two_end);
            prop_assert_eq!(relation, two.relation(two_end, &one, one_end));

            let cut = position(cut).min(one_end);
            let relation_of_cut = one.at(cut).relation(cut, &one, one_end);
            prop_assert_eq!(relation_of_cut, Relation::Same { shared: cut });

            if let Relation::Fork { at } = relation {
                // At the fork they are still one log, one byte further no longer.
                prop_assert_eq!(one.relation(at, &two, at), Relation::Same { shared: at });
                prop_assert!(at < one_end && at < two_end);
            }
        }
    }
}
