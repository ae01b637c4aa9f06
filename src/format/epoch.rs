//! Epochs: one for each election (disk-format §4.4).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Frame, Record, System, Ticks};
use super::{LogPosition, Malformed, Result};

pub(super) const STRUCTURE: &str = "epoch record";

/// One election: the record that a new leader writes first (disk-format §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// The log position of its record.
    pub position: LogPosition,
    /// The number of the election, from 0 on.
    pub number: i32,
    /// A random id.
    pub id: Uuid,
}

/// All that the record of an epoch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochRecord {
    /// The election.
    pub epoch: Epoch,
    /// The position of the epoch before it. `None` in the first epoch.
    pub previous: Option<LogPosition>,
    /// The id of the leader's process, new at each of its starts. Old servers do not write it
    /// (disk-format §4.4).
    pub leader_instance: Option<Uuid>,
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
    /// The byte of the file at which the record begins.
    pub(super) offset: u64,
}

/// The JSON of an epoch. The server leaves out every member that is 0: the first epoch has no
/// number and no position, and **the second has no previous position** if the first is at
/// position 0 (seen on every line that was run).
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
            Malformed::new(STRUCTURE, frame.offset, expected, found)
        };

        let system = epoch_in(frame)?;
        if system.serialization != System::JSON {
            let found = format!("serialization {}", system.serialization);
            return Err(wrong("an epoch as JSON", found));
        }
        let json: Json = serde_json::from_slice(system.data)
            .map_err(|error| wrong("an epoch as JSON", error.to_string()))?;

        if LogPosition::from_signed(json.epoch_position) != Some(frame.position) {
            let found = format!("{} at {}", json.epoch_position, frame.position);
            return Err(wrong("an epoch with the position of its own record", found));
        }
        if json.epoch_number < 0 {
            return Err(wrong("an epoch number", json.epoch_number.to_string()));
        }
        let Some(previous) = previous_epoch(&json, frame.position) else {
            let expected = "a previous epoch before this one, or -1 for none";
            return Err(wrong(expected, json.prev_epoch_position.to_string()));
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

/// The system record of an epoch.
fn epoch_in<'a>(frame: &Frame<'a>) -> Result<System<'a>, Malformed> {
    let found = match &frame.record {
        Record::System(system) if system.is_epoch() => return Ok(*system),
        Record::System(system) => format!("a system record of subtype {}", system.subtype),
        Record::Prepare(_) => "an event".to_owned(),
        Record::Commit(_) => "a commit".to_owned(),
    };
    Err(Malformed::new(STRUCTURE, frame.offset, "an epoch", found))
}

/// The position of the previous epoch, and `Some(None)` in the first epoch. Returns `None` if the
/// member is neither a position before this one nor −1.
fn previous_epoch(json: &Json, position: LogPosition) -> Option<Option<LogPosition>> {
    if json.prev_epoch_position == -1 {
        return Some(None);
    }
    let previous = LogPosition::from_signed(json.prev_epoch_position)?;
    if previous >= position {
        return None;
    }
    Some(Some(previous))
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

        let second = parse(
            569_439,
            r#"{"epochPosition": 569439, "epochNumber": 1,
                "epochId": "46a934ab-6809-4119-8cb3-9a810a88611a"}"#,
        )
        .unwrap();
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
                "expected an epoch with the position of its own record, found 501 at 500",
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

    /// Any text, or something like the JSON of an epoch.
    const SOME_JSON: &str = "\\PC*|\\{(\"(epoch|prevEpoch)(Position|Number|Id)\
        \": *-?[0-9\"]{1,20},?){0,6}\\}";

    proptest! {
        #[test]
        fn no_json_makes_it_panic(json in SOME_JSON) {
            let _ = parse(500, &json);
        }
    }
}
