//! Where records may stand in a chunk file.

use std::ops::Range;

use super::STRUCTURE;
use crate::format::chunk::{ChunkHeader, HEADER_LENGTH};
use crate::format::{LogPosition, Malformed, ReadAt, Result};

/// How log positions and file offsets are related in one chunk file.
#[derive(Debug, Clone, Copy)]
pub(super) enum RecordPlacement {
    /// Every record is where it was first written.
    InPlace {
        /// Log position of the first byte of data.
        start: LogPosition,
    },
    /// A scavenge moved the records together. Their positions rise, and stay in the file's range.
    Compacted {
        /// Where the range begins.
        start: LogPosition,
        /// Where the range ends, exclusive.
        end: LogPosition,
    },
}

impl RecordPlacement {
    pub(super) fn of(header: &ChunkHeader) -> Self {
        let start = header.start_position();
        if header.scavenged {
            let end = header.end_position();
            Self::Compacted { start, end }
        } else {
            Self::InPlace { start }
        }
    }

    /// Checks that the frame of `length` bytes at byte `offset` may have the log position
    /// `position`.
    pub(super) fn check(
        &self,
        offset: u64,
        length: u64,
        position: LogPosition,
    ) -> Result<(), Malformed> {
        // Each match arm returns if the position fits. Otherwise it says which position would.
        let expected = match self {
            Self::InPlace { start } => {
                let place = start.checked_add(offset.saturating_sub(HEADER_LENGTH));
                match place {
                    Some(place) if place == position => return Ok(()),
                    Some(place) => format!("the log position {place}"),
                    None => "a log position".to_owned(),
                }
            }
            Self::Compacted { start, end } => {
                let fits = match position.checked_add(length) {
                    Some(behind) => *start <= position && behind <= *end,
                    None => false,
                };
                if fits {
                    return Ok(());
                }
                format!("a log position from {start} on, and the record's end at most at {end}")
            }
        };

        Err(Malformed::new(STRUCTURE, offset + 6, expected, position))
    }
}

/// Checks that positions rise from record to record, also where a scavenge moved them together.
pub(super) fn check_order(
    earlier: LogPosition,
    later: LogPosition,
    offset: u64,
) -> Result<(), Malformed> {
    if earlier < later {
        return Ok(());
    }
    let expected = "log positions that rise from record to record";
    let found = format!("{later} after {earlier}");
    Err(Malformed::new(STRUCTURE, offset + 6, expected, found))
}

/// Checks that a scan stays inside the data that the header allows.
pub(super) fn check_range(
    source: &dyn ReadAt,
    header: &ChunkHeader,
    data: &Range<u64>,
) -> Result<()> {
    header.readable()?;

    let end = (HEADER_LENGTH + header.capacity()).min(source.size());
    if data.start >= HEADER_LENGTH && data.start <= data.end && data.end <= end {
        return Ok(());
    }
    let expected = format!("data inside the bytes {HEADER_LENGTH} to {end}");
    let found = format!("{} to {}", data.start, data.end);
    Err(Malformed::new("chunk file", data.start, expected, found).into())
}
