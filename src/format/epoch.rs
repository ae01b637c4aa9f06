//! Epochs: one for each election, and the lineage they make (disk-format §4.4, §4.5).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Frame, Record, System, Ticks};
use super::{LogPosition, Malformed, Result};

/// The most epochs that are followed back; a cluster that elects a leader every minute has them after two years.
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

/// The JSON of an epoch. The server leaves out every member that is 0: the first epoch has no number and no position, and **the second has no previous
/// position** where the first stands at 0 (seen on 20.10 to 26.1).
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
    /// Another kind of record, other JSON, a position that is not the record's own, or a previous one that does not lie before it.
    pub fn parse(frame: &Frame<'_>) -> Result<Self> {
        Ok(Self::fields(frame)?)
    }

    fn fields(frame: &Frame<'_>) -> Result<Self, Malformed> {
        let wrong = |expected: &str, found: String| Malformed::new("epoch record", frame.offset, expected, found);
        let system = match &frame.record {
            Record::System(system) if system.is_epoch() => system,
            Record::System(system) => return Err(wrong("an epoch", format!("a system record of subtype {}", system.subtype))),
            Record::Prepare(_) => return Err(wrong("an epoch", "an event".to_owned())),
            Record::Commit(_) => return Err(wrong("an epoch", "a commit".to_owned())),
        };
        if system.serialization != System::JSON {
            return Err(wrong("an epoch as JSON", format!("serialization {}", system.serialization)));
        }
        let json: Json = serde_json::from_slice(system.data).map_err(|error| wrong("an epoch as JSON", error.to_string()))?;
        if LogPosition::from_signed(json.epoch_position) != Some(frame.position) {
            return Err(wrong("an epoch that says where its record stands", format!("{} at {}", json.epoch_position, frame.position)));
        }
        if json.epoch_number < 0 {
            return Err(wrong("an epoch number", json.epoch_number.to_string()));
        }
        let previous = match json.prev_epoch_position {
            -1 => None,
            position => Some(
                LogPosition::from_signed(position)
                    .filter(|previous| *previous < frame.position)
                    .ok_or_else(|| wrong("a previous epoch before this one, or -1 for none", position.to_string()))?,
            ),
        };
        Ok(Self {
            epoch: Epoch { position: frame.position, number: json.epoch_number, id: json.epoch_id },
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
        Self { wanted: last, newest_first: Vec::new() }
    }

    /// Where the next epoch record to add stands; none when the first has been added.
    #[must_use]
    pub const fn wanted(&self) -> Option<LogPosition> {
        self.wanted
    }

    /// Adds the epoch that was wanted. As each lies before the last, this ends.
    ///
    /// # Errors
    /// Another epoch than wanted, a number not below that of the epoch after it, or more than a million epochs.
    pub fn add(&mut self, record: &EpochRecord) -> Result<()> {
        let wrong = |expected: String, found: String| Malformed::new("epoch record", record.offset, expected, found);
        let epoch = record.epoch;
        if self.wanted != Some(epoch.position) {
            let wanted = self.wanted.map_or_else(|| "no more epochs".to_owned(), |wanted| format!("the epoch at {wanted}"));
            return Err(wrong(wanted, format!("the one at {}", epoch.position)).into());
        }
        if let Some(later) = self.newest_first.last().filter(|later| later.number <= epoch.number) {
            return Err(wrong(format!("an epoch number below {}, that of the next epoch", later.number), epoch.number.to_string()).into());
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

    /// Compares the log of this lineage, which ends at `end`, with another one. Epochs at or beyond an end are not looked at.
    ///
    /// One leader writes everything from its epoch to the next, so two logs that share an epoch hold the same records from there to whatever comes first: the next
    /// epoch of either, or the end of either (disk-format §4.5).
    #[must_use]
    pub fn relation(&self, end: LogPosition, other: &Self, other_end: LogPosition) -> Relation {
        let (mine, others) = (self.before(end), other.before(other_end));
        let common = mine.iter().zip(others).take_while(|(one, two)| one == two).count();
        let shared = end.min(other_end);
        if common == 0 {
            // An empty log is the beginning of every log.
            return if shared == LogPosition::ZERO { Relation::Same { shared } } else { Relation::Unrelated };
        }
        let next = |epochs: &[Epoch]| epochs.get(common).map(|epoch| epoch.position);
        match (next(mine), next(others)) {
            (None, None) => Relation::Same { shared },
            (None, Some(next)) if end <= next => Relation::Same { shared },
            (Some(next), None) if other_end <= next => Relation::Same { shared },
            (one, two) => Relation::Fork { at: one.into_iter().chain(two).fold(shared, LogPosition::min) },
        }
    }
}

impl TryFrom<Vec<Epoch>> for Lineage {
    type Error = &'static str;

    fn try_from(epochs: Vec<Epoch>) -> Result<Self, Self::Error> {
        let rises = |pair: &[Epoch]| matches!(pair, [one, two] if one.position < two.position && one.number < two.number);
        if epochs.windows(2).all(rises) { Ok(Self(epochs)) } else { Err("the positions and numbers of epochs rise from each to the next") }
    }
}
