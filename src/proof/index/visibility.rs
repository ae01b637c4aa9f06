//! Would the server show an event of the log to a reader of its stream? These are the server's own
//! rules: the metadata of the stream ($maxCount, $maxAge, $tb) and its deletion hide events, and a
//! scavenge may drop hidden events from the index while a chunk still holds them (O48).
//!
//! This file only judges. `streams` reads what there is to judge.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::format::LogPosition;

/// The most seconds that the server can hold as a length of time. It ignores metadata with more.
const LONGEST_AGE: i64 = 922_337_203_685;

/// An event of the log, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedEvent {
    pub(super) position: LogPosition,
    pub(super) stream: String,
    pub(super) number: i64,
    pub(super) written: Timestamp,
}

/// The parts of a stream's metadata that hide events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StreamLimits {
    /// Only so many of the last events are shown.
    max_count: Option<i64>,
    /// Only events of the last so many seconds are shown.
    max_age: Option<i64>,
    /// Only events from this number on are shown. A soft delete sets it to the highest number.
    truncate_before: Option<i64>,
}

impl StreamLimits {
    /// The limits of every stream that holds metadata: only the last event counts.
    pub(super) const OF_METASTREAM: Self = Self {
        max_count: Some(1),
        max_age: None,
        truncate_before: None,
    };

    /// Reads the data of a metadata event. As the server does, takes metadata with a wrong value
    /// for no metadata at all. Returns `None` if the data is not strict JSON: the server's parser
    /// tolerates more, so nobody knows what it reads.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(data).ok()?;
        match value.as_object().map(Self::of_object) {
            Some(Ok(limits)) => Some(limits),
            Some(Err(Unusable)) | None => Some(Self::default()),
        }
    }

    fn of_object(metadata: &Map<String, Value>) -> Result<Self, Unusable> {
        let max_age = whole_number(metadata, "$maxAge")?;
        if max_age.is_some_and(|seconds| seconds > LONGEST_AGE) {
            return Err(Unusable);
        }
        Ok(Self {
            max_count: whole_number(metadata, "$maxCount")?.filter(|count| *count > 0),
            max_age: max_age.filter(|seconds| *seconds > 0),
            truncate_before: whole_number(metadata, "$tb")?,
        })
    }

    /// Whether these limits hide an event of a stream whose last event has number `last`.
    fn hide(&self, event: &LoggedEvent, last: i64, at: Timestamp) -> bool {
        let is_beyond_count = self
            .max_count
            .is_some_and(|count| event.number <= last.saturating_sub(count));
        let is_truncated = self
            .truncate_before
            .is_some_and(|first| event.number < first);
        let is_too_old = self.max_age.is_some_and(|seconds| {
            let age = at.as_second().saturating_sub(event.written.as_second());
            age > seconds
        });
        is_beyond_count || is_truncated || is_too_old
    }
}

/// Metadata holds a value that the server does not accept, such as a number beyond 64 bits.
struct Unusable;

fn whole_number(metadata: &Map<String, Value>, key: &str) -> Result<Option<i64>, Unusable> {
    match metadata.get(key) {
        None => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or(Unusable),
    }
}

/// One metadata event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MetadataEvent {
    pub(super) number: i64,
    pub(super) position: LogPosition,
    /// `None` if nobody knows what the server reads from it.
    pub(super) limits: Option<StreamLimits>,
}

/// A scavenge of the server, as it noted it in the log. It may drop events before this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScavengePoint {
    pub(super) position: LogPosition,
    pub(super) written: Timestamp,
}

/// What index and log say of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StreamHistory {
    /// The number of the last event that the server finds. `None` if it finds none.
    pub(super) last: Option<i64>,
    /// Whether the stream, or the stream that it holds metadata of, was deleted for good.
    pub(super) is_deleted: bool,
    /// Whether the stream holds the metadata of another stream.
    pub(super) is_metastream: bool,
    /// Its metadata, the newest first. The oldest may be gone.
    pub(super) metadata: Vec<MetadataEvent>,
}

/// Whether a server would show an event that the index lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    /// It would, if the index had the event.
    Shown,
    /// It would not, or a scavenge of the log has dropped the event from the index rightly.
    Hidden,
    /// The metadata that was in force at a scavenge is gone, so nobody knows.
    Unknown,
}

impl StreamHistory {
    /// Judges an event that the log holds and the index lacks.
    pub(super) fn judge(
        &self,
        event: &LoggedEvent,
        scavenges: &[ScavengePoint],
        now: Timestamp,
    ) -> Visibility {
        if self.is_deleted {
            return Visibility::Hidden;
        }

        // No scavenge removes the last event of a stream. Without it the server would give its
        // number again.
        let Some(last) = self.last else {
            return Visibility::Shown;
        };
        if event.number > last {
            return Visibility::Shown;
        }

        // What the server hides now, nobody misses.
        let mut is_unknown = false;
        match self.limits_at(LogPosition::MAX) {
            Some(limits) if limits.hide(event, last, now) => return Visibility::Hidden,
            Some(_) => {}
            None => is_unknown = true,
        }

        // Metadata may have been widened since. What a scavenge dropped before, stays dropped.
        for scavenge in scavenges {
            if scavenge.position <= event.position {
                continue;
            }
            match self.limits_at(scavenge.position) {
                Some(limits) if limits.hide(event, last, scavenge.written) => {
                    return Visibility::Hidden;
                }
                Some(_) => {}
                None => is_unknown = true,
            }
        }

        if is_unknown {
            Visibility::Unknown
        } else {
            Visibility::Shown
        }
    }

    /// The limits in force at a position of the log. Returns `None` if nobody knows them.
    fn limits_at(&self, position: LogPosition) -> Option<StreamLimits> {
        if self.is_metastream {
            return Some(StreamLimits::OF_METASTREAM);
        }

        let mut events = self.metadata.iter();
        if let Some(in_force) = events.find(|event| event.position < position) {
            return in_force.limits;
        }
        // A scavenge keeps only the newest metadata, so earlier metadata may be gone.
        match self.metadata.last() {
            Some(oldest) if oldest.number > 0 => None,
            _ => Some(StreamLimits::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn position(bytes: u64) -> LogPosition {
        LogPosition::new(bytes).unwrap()
    }

    /// Event `number` lies at ten times its number, and is as many seconds old.
    fn event(number: i64) -> LoggedEvent {
        LoggedEvent {
            position: position(number.unsigned_abs() * 10),
            stream: "orders".to_owned(),
            number,
            written: at(NOW - number),
        }
    }

    fn metadata(number: i64, position: u64, json: &str) -> MetadataEvent {
        MetadataEvent {
            number,
            position: self::position(position),
            limits: StreamLimits::parse(json.as_bytes()),
        }
    }

    fn history(last: i64, metadata: Vec<MetadataEvent>) -> StreamHistory {
        StreamHistory {
            last: Some(last),
            metadata,
            ..StreamHistory::default()
        }
    }

    fn judged(history: &StreamHistory, number: i64, scavenges: &[u64]) -> Visibility {
        let point = |bytes: &u64| ScavengePoint {
            position: position(*bytes),
            written: at(NOW),
        };
        let scavenges: Vec<ScavengePoint> = scavenges.iter().map(point).collect();
        history.judge(&event(number), &scavenges, at(NOW))
    }

    #[test]
    fn metadata_hides_what_the_server_hides() {
        let cases = [
            (r#"{"$maxCount": 3}"#, 17, 18),
            (r#"{"$tb": 5}"#, 4, 5),
            (r#"{"$tb": 9223372036854775807}"#, 19, -1),
            (r#"{"$maxAge": 7, "x": [1.5]}"#, 8, 7),
        ];
        for (json, hidden, shown) in cases {
            let history = history(20, vec![metadata(0, 1, json)]);
            assert_eq!(judged(&history, hidden, &[]), Visibility::Hidden, "{json}");
            if shown >= 0 {
                assert_eq!(judged(&history, shown, &[]), Visibility::Shown, "{json}");
            }
        }
    }

    #[test]
    fn metadata_with_a_wrong_value_counts_as_none() {
        for json in [
            r#"{"$maxCount": "3"}"#,
            r#"{"$maxCount": 3.0}"#,
            r#"{"$maxCount": 3, "$tb": 99999999999999999999}"#,
            r#"{"$maxCount": 3, "$maxAge": 922337203686}"#,
            r#"{"$maxCount": 0, "$maxAge": -1}"#,
            "[]",
        ] {
            let history = history(20, vec![metadata(0, 1, json)]);
            assert_eq!(judged(&history, 0, &[]), Visibility::Shown, "{json}");
        }
    }

    #[test]
    fn metadata_that_only_the_server_can_read_leaves_it_unknown() {
        let history = history(20, vec![metadata(0, 1, "{'$maxCount': 3}")]);
        assert_eq!(judged(&history, 0, &[]), Visibility::Unknown);
    }

    #[test]
    fn what_was_dropped_before_the_metadata_was_widened_is_not_missing() {
        let narrow = metadata(0, 1, r#"{"$maxCount": 3}"#);
        let wide = metadata(1, 300, r#"{"$maxCount": 300}"#);
        let widened = history(20, vec![wide, narrow]);

        assert_eq!(judged(&widened, 5, &[]), Visibility::Shown);
        assert_eq!(judged(&widened, 5, &[400]), Visibility::Shown);
        assert_eq!(judged(&widened, 5, &[200, 400]), Visibility::Hidden);
        assert_eq!(judged(&widened, 5, &[40]), Visibility::Shown, "not reached");
    }

    #[test]
    fn metadata_that_a_scavenge_removed_leaves_it_unknown() {
        let wide = metadata(1, 300, r#"{"$maxCount": 300}"#);
        let widened = history(20, vec![wide]);

        assert_eq!(judged(&widened, 5, &[200, 400]), Visibility::Unknown);
        assert_eq!(judged(&widened, 5, &[400]), Visibility::Shown);
        assert_eq!(judged(&widened, 5, &[]), Visibility::Shown);
    }

    #[test]
    fn the_last_event_of_a_stream_is_never_dropped_rightly() {
        let limited = history(4, vec![metadata(0, 1, r#"{"$maxAge": 1}"#)]);
        assert_eq!(judged(&limited, 5, &[900]), Visibility::Shown);

        let forgotten = StreamHistory {
            last: None,
            ..limited
        };
        assert_eq!(judged(&forgotten, 3, &[900]), Visibility::Shown);
    }

    #[test]
    fn a_deleted_stream_and_old_metadata_are_hidden() {
        let deleted = StreamHistory {
            is_deleted: true,
            ..StreamHistory::default()
        };
        assert_eq!(judged(&deleted, 5, &[]), Visibility::Hidden);

        let metastream = StreamHistory {
            is_metastream: true,
            ..history(20, Vec::new())
        };
        assert_eq!(judged(&metastream, 19, &[]), Visibility::Hidden);
        assert_eq!(judged(&metastream, 20, &[]), Visibility::Shown);
    }
}
