//! Epochs: one for each election, and the lineage they make (disk-format §4.4, §4.5).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Frame, Record, System, Ticks};
use super::{LogPosition, Malformed, Result};

/// The most epochs that are followed back; a cluster that elects a leader every minute has them
/// after two years.
const MAX_EPOCHS: usize = 1_000_000;

/// One election: the record that a new leader writes first (disk-format §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Where its record stands in the log.
    pub position: LogPosition,
    /// Counts elections; 0 for the first.
    pub number: i32,
    /// Random id.
    pub id: Uuid,
}

/// All that an epoch's record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRecord {
    /// The election.
    pub epoch: Epoch,
    /// Where the epoch before it stands; none in the first.
    pub previous: Option<LogPosition>,
    /// The leader's process, new at each of its starts; since 20.6.
    pub leader_instance: Option<Uuid>,
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
    /// Where the record stands in its file, in bytes.
    offset: u64,
}

/// The JSON of an epoch. The server leaves out every member that is 0: the first epoch has no
/// number and no position, and **the second has no previous position** where the first stands at 0
/// (seen on 20.10 to 26.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    #[serde(default)]
    epoch_position: i64,
    #[serde(default)]
    epoch_number: i32,
    epoch_id: Uuid,
    #[serde(default)]
    prev_epoch_position: i64,
    #[serde(default)]
    leader_instance_id: Option<Uuid>,
}

impl EpochRecord {
    /// Reads an epoch out of its record.
    ///
    /// # Errors
    /// Another kind of record, other JSON, a position that is not the record's own, or a previous
    /// one that does not lie before it.
    pub fn parse(frame: &Frame<'_>) -> Result<Self> {
        Ok(Self::fields(frame)?)
    }

    fn fields(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wrong = |expected: &str, found: String| {
            Malformed::new("epoch record", frame.offset, expected, found)
        };
        let system = match &frame.record {
            Record::System(system) if system.is_epoch() => system,
            Record::System(system) => {
                return Err(wrong(
                    "an epoch",
                    format!("a system record of subtype {}", system.subtype),
                ));
            }
            Record::Prepare(_) => return Err(wrong("an epoch", "an event".to_owned())),
            Record::Commit(_) => return Err(wrong("an epoch", "a commit".to_owned())),
        };
        if system.serialization != System::JSON {
            return Err(wrong(
                "an epoch as JSON",
                format!("serialization {}", system.serialization),
            ));
        }
        let json: Json = serde_json::from_slice(system.data)
            .map_err(|error| wrong("an epoch as JSON", error.to_string()))?;
        if LogPosition::from_signed(json.epoch_position) != Some(frame.position) {
            return Err(wrong(
                "an epoch that says where its record stands",
                format!("{} at {}", json.epoch_position, frame.position),
            ));
        }
        if json.epoch_number < 0 {
            return Err(wrong("an epoch number", json.epoch_number.to_string()));
        }
        let previous = match json.prev_epoch_position {
            -1 => None,
            position => Some(
                LogPosition::from_signed(position)
                    .filter(|previous| *previous < frame.position)
                    .ok_or_else(|| {
                        wrong(
                            "a previous epoch before this one, or -1 for none",
                            position.to_string(),
                        )
                    })?,
            ),
        };
        Ok(Self {
            epoch: Epoch {
                position: frame.position,
                number: json.epoch_number,
                id: json.epoch_id,
            },
            previous,
            leader_instance: json.leader_instance_id,
            timestamp: system.timestamp,
            offset: frame.offset,
        })
    }
}

/// Follows the epochs of a log back, from the one that `epoch.chk` names to the first.
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
    /// Begins at the last epoch of a log; none for a log without any.
    #[must_use]
    pub const fn starting_at(last: Option<LogPosition>) -> Self {
        Self {
            wanted: last,
            newest_first: Vec::new(),
        }
    }

    /// Where the next epoch record to add stands; none when the first has been added.
    #[must_use]
    pub const fn wanted(&self) -> Option<LogPosition> {
        self.wanted
    }

    /// Adds the epoch that was wanted. As each lies before the last, this ends.
    ///
    /// # Errors
    /// Another epoch than wanted, a number not below that of the epoch after it, or more than a
    /// million epochs.
    pub fn add(&mut self, record: &EpochRecord) -> Result<()> {
        let wrong = |expected: String, found: String| {
            Malformed::new("epoch record", record.offset, expected, found)
        };
        let epoch = record.epoch;
        if self.wanted != Some(epoch.position) {
            let wanted = self.wanted.map_or_else(
                || "no more epochs".to_owned(),
                |wanted| format!("the epoch at {wanted}"),
            );
            return Err(wrong(wanted, format!("the one at {}", epoch.position)).into());
        }
        if let Some(later) = self
            .newest_first
            .last()
            .filter(|later| later.number <= epoch.number)
        {
            return Err(wrong(
                format!(
                    "an epoch number below {}, that of the next epoch",
                    later.number
                ),
                epoch.number.to_string(),
            )
            .into());
        }
        if self.newest_first.len() >= MAX_EPOCHS {
            return Err(wrong(format!("at most {MAX_EPOCHS} epochs"), "more".to_owned()).into());
        }
        self.newest_first.push(epoch);
        self.wanted = record.previous;
        Ok(())
    }

    /// The epochs that were added, oldest first.
    #[must_use]
    pub fn finish(self) -> Lineage {
        let mut epochs = self.newest_first;
        epochs.reverse();
        Lineage(epochs)
    }
}

/// The epochs of a log, oldest first, with rising positions and numbers (disk-format §4.5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Epoch>")]
pub struct Lineage(Vec<Epoch>);

/// How two logs are related (design: *branch*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// One log continues the other.
    Same {
        /// The end of the shorter log: up to here they hold the same records.
        shared: LogPosition,
    },
    /// They have a trunk in common and then differ.
    Fork {
        /// The end of the trunk: up to here they hold the same records.
        at: LogPosition,
    },
    /// Nothing shows that they have anything in common.
    Unrelated,
}

impl Lineage {
    /// The epochs, oldest first.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        &self.0
    }

    /// The first epoch, whose id names the database.
    #[must_use]
    pub fn first(&self) -> Option<&Epoch> {
        self.0.first()
    }

    /// The last epoch.
    #[must_use]
    pub fn last(&self) -> Option<&Epoch> {
        self.0.last()
    }

    /// The last epoch of the log cut at `end`: what `epoch.chk` must name there.
    #[must_use]
    pub fn last_before(&self, end: LogPosition) -> Option<&Epoch> {
        self.before(end).last()
    }

    /// The lineage of the log cut at `end`.
    #[must_use]
    pub fn at(&self, end: LogPosition) -> Self {
        Self(self.before(end).to_vec())
    }

    fn before(&self, end: LogPosition) -> &[Epoch] {
        let count = self.0.partition_point(|epoch| epoch.position < end);
        self.0.get(..count).unwrap_or_default()
    }

    /// Compares the log of this lineage, which ends at `end`, with another one. Epochs at or beyond
    /// an end are not looked at.
    ///
    /// One leader writes everything from its epoch to the next, so two logs that share an epoch
    /// hold the same records from there to whatever comes first: the next epoch of either, or the
    /// end of either (disk-format §4.5).
    #[must_use]
    pub fn relation(&self, end: LogPosition, other: &Self, other_end: LogPosition) -> Relation {
        let (mine, others) = (self.before(end), other.before(other_end));
        let common = mine
            .iter()
            .zip(others)
            .take_while(|(one, two)| one == two)
            .count();
        let shared = end.min(other_end);
        if common == 0 {
            // An empty log is the beginning of every log.
            return if shared == LogPosition::ZERO {
                Relation::Same { shared }
            } else {
                Relation::Unrelated
            };
        }
        let next = |epochs: &[Epoch]| epochs.get(common).map(|epoch| epoch.position);
        match (next(mine), next(others)) {
            (None, None) => Relation::Same { shared },
            (None, Some(next)) if end <= next => Relation::Same { shared },
            (Some(next), None) if other_end <= next => Relation::Same { shared },
            (one, two) => Relation::Fork {
                at: one.into_iter().chain(two).fold(shared, LogPosition::min),
            },
        }
    }
}

impl TryFrom<Vec<Epoch>> for Lineage {
    type Error = &'static str;

    fn try_from(epochs: Vec<Epoch>) -> Result<Self, Self::Error> {
        let rises = |pair: &[Epoch]| matches!(pair, [one, two] if one.position < two.position && one.number < two.number);
        if epochs.windows(2).all(rises) {
            Ok(Self(epochs))
        } else {
            Err("the positions and numbers of epochs rise from each to the next")
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(bytes: u64) -> LogPosition {
        LogPosition::new(bytes).unwrap()
    }

    fn parse(at: u64, json: &str) -> Result<EpochRecord> {
        let system = System {
            timestamp: Ticks::MAX,
            subtype: System::EPOCH,
            serialization: System::JSON,
            data: json.as_bytes(),
        };
        EpochRecord::parse(&Frame {
            position: position(at),
            offset: 128 + at,
            length: 100,
            record: Record::System(system),
        })
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
    fn members_that_are_zero_are_left_out() {
        let first = parse(
            0,
            r#"{"epochId": "a6e83e25-5906-4b9d-8c00-34188a430bfa", "prevEpochPosition": -1}"#,
        )
        .unwrap();
        assert_eq!(
            (
                first.epoch.position,
                first.epoch.number,
                first.previous,
                first.leader_instance
            ),
            (LogPosition::ZERO, 0, None, None)
        );
        let second =
            parse(569_439, r#"{"epochPosition": 569439, "epochNumber": 1, "epochId": "46a934ab-6809-4119-8cb3-9a810a88611a"}"#).unwrap();
        assert_eq!(
            (second.epoch.number, second.previous),
            (1, Some(LogPosition::ZERO))
        );
    }

    #[test]
    fn epochs_that_cannot_be_are_refused() {
        let id = r#""epochId": "46a934ab-6809-4119-8cb3-9a810a88611a""#;
        let deep = format!(r#"{{"anything": {}"#, "[".repeat(60_000));
        let cases = [
            (
                0,
                format!("{{{id}}}"),
                "expected a previous epoch before this one, or -1 for none, found 0",
            ),
            (
                500,
                format!(r#"{{{id}, "epochPosition": 501}}"#),
                "expected an epoch that says where its record stands, found 501 at 500",
            ),
            (
                500,
                format!(r#"{{{id}, "epochPosition": 500, "prevEpochPosition": 500}}"#),
                "expected a previous epoch before this one",
            ),
            (
                500,
                format!(r#"{{{id}, "epochPosition": 500, "prevEpochPosition": -2}}"#),
                "expected a previous epoch before this one",
            ),
            (
                500,
                format!(r#"{{{id}, "epochPosition": 500, "epochNumber": -1}}"#),
                "expected an epoch number, found -1",
            ),
            (
                500,
                format!(r#"{{{id}, "epochPosition": 1e99}}"#),
                "expected an epoch as JSON",
            ),
            (
                500,
                r#"{"epochPosition": 500}"#.to_owned(),
                "expected an epoch as JSON, found missing field `epochId`",
            ),
            (
                500,
                deep,
                "expected an epoch as JSON, found EOF while parsing a list",
            ),
            (500, String::new(), "expected an epoch as JSON"),
        ];
        for (at, json, message) in cases {
            let error = parse(at, &json).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("epoch record at byte {}: {message}", 128 + at)),
                "{error}"
            );
        }
    }

    #[test]
    fn a_chain_only_leads_down() {
        let id = r#""epochId": "46a934ab-6809-4119-8cb3-9a810a88611a""#;
        let at = |at: u64, number: i32, previous: i64| {
            parse(at, &format!(r#"{{{id}, "epochPosition": {at}, "epochNumber": {number}, "prevEpochPosition": {previous}}}"#)).unwrap()
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
        fn any_log()(steps in proptest::collection::vec((1_u64..50, 0_u128..3), 0..6), rest in 1_u64..50) -> (Lineage, LogPosition) {
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
        fn relations_are_symmetric_and_cuts_stay_on_the_branch((one, one_end) in any_log(), (two, two_end) in any_log(), cut in 0_u64..300) {
            let relation = one.relation(one_end, &two, two_end);
            prop_assert_eq!(relation, two.relation(two_end, &one, one_end));
            let cut = position(cut).min(one_end);
            prop_assert_eq!(one.at(cut).relation(cut, &one, one_end), Relation::Same { shared: cut });
            if let Relation::Fork { at } = relation {
                // At the fork they are still one log, one byte further no longer.
                prop_assert_eq!(one.relation(at, &two, at), Relation::Same { shared: at });
                prop_assert!(at < one_end && at < two_end);
            }
        }

        #[test]
        fn no_json_makes_it_panic(json in "\\PC*|\\{(\"(epoch|prevEpoch)(Position|Number|Id)\": *-?[0-9\"]{1,20},?){0,6}\\}") {
            let _ = parse(500, &json);
        }
    }
}
