//! The entries and midpoints of a table, read through a window.

use std::fmt;

use super::layout::{ENTRIES, MIDPOINT_SIZE, MIDPOINTS, TableLayout, TableVersion};
use crate::format::field::{i32_at, i64_at, u32_at, u64_at};
use crate::format::{LogPosition, Malformed, ReadAt, Result};

/// Bytes read at once while entries stream by.
pub(super) const WINDOW: usize = 256 * 1024;

/// One event of one stream. The order is the server's: by stream, then number, then position.
///
/// ```text
/// version 1       | number 4 | stream 4 | position 8 |
/// version 2       | number 4 | stream 8 | position 8 |
/// version 3, 4    | number 8 | stream 8 | position 8 |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableEntry {
    /// The hash of the stream's name. Other streams may share it.
    pub stream: u64,
    /// The number of the event in its stream.
    pub event_number: i64,
    /// The log position of the event's prepare record. A scavenge may have removed that record.
    pub position: LogPosition,
}

impl fmt::Display for TableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "event {} of stream {:016x} at {}",
            self.event_number, self.stream, self.position
        )
    }
}

/// Streams a table's entries. [`Table::entries`](super::Table::entries) makes it.
pub struct Entries<'a> {
    version: TableVersion,
    records: FixedRecords<'a>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(
        source: &'a dyn ReadAt,
        layout: &TableLayout,
        first: u64,
        count: u64,
    ) -> Self {
        let version = layout.version;
        let start = layout.offset_of(first);
        Self {
            version,
            records: FixedRecords::new(source, start, count, version.entry_size()),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<TableEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let (offset, bytes) = match self.records.next_record() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };

        let (event_number, stream, position) = match self.version {
            TableVersion::V1 => (
                i64::from(i32_at(bytes, 0)?),
                u64::from(u32_at(bytes, 4)?),
                i64_at(bytes, 8)?,
            ),
            TableVersion::V2 => (
                i64::from(i32_at(bytes, 0)?),
                u64_at(bytes, 4)?,
                i64_at(bytes, 12)?,
            ),
            TableVersion::V3 | TableVersion::V4 => {
                (i64_at(bytes, 0)?, u64_at(bytes, 8)?, i64_at(bytes, 16)?)
            }
        };

        let Some(position) = LogPosition::from_signed(position) else {
            let malformed = Malformed::new(ENTRIES, offset, "a log position", position);
            return Some(Err(malformed.into()));
        };
        Some(Ok(TableEntry {
            stream,
            event_number,
            position,
        }))
    }
}

/// A sample of the entries that speeds up the server's search. Only version 4 has midpoints.
///
/// ```text
/// | number 8 | stream 8 | index of the entry 8 |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Midpoint {
    /// The byte of the file at which it begins.
    pub(super) offset: u64,
    pub(super) stream: u64,
    pub(super) event_number: i64,
    /// Which entry was sampled.
    pub(super) index: u64,
}

impl fmt::Display for Midpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "entry {}, event {} of stream {:016x}",
            self.index, self.event_number, self.stream
        )
    }
}

/// Streams a table's midpoints.
pub(super) struct Midpoints<'a> {
    records: FixedRecords<'a>,
}

impl<'a> Midpoints<'a> {
    pub(super) fn new(source: &'a dyn ReadAt, layout: &TableLayout) -> Self {
        let start = layout.entries_end();
        let count = u64::from(layout.midpoints);
        Self {
            records: FixedRecords::new(source, start, count, MIDPOINT_SIZE),
        }
    }

    /// The next midpoint. Returns `None` at the end.
    pub(super) fn next_midpoint(&mut self) -> Result<Option<Midpoint>> {
        let Some((offset, bytes)) = self.records.next_record()? else {
            return Ok(None);
        };
        let fields = (i64_at(bytes, 0), u64_at(bytes, 8), i64_at(bytes, 16));
        let (Some(event_number), Some(stream), Some(index)) = fields else {
            return Ok(None);
        };

        let Ok(index) = u64::try_from(index) else {
            let expected = "the index of an entry";
            return Err(Malformed::new(MIDPOINTS, offset + 16, expected, index).into());
        };
        Ok(Some(Midpoint {
            offset,
            stream,
            event_number,
            index,
        }))
    }
}

/// Records of one size, read through a window.
struct FixedRecords<'a> {
    source: &'a dyn ReadAt,
    record_size: usize,
    /// Byte offset of the next record.
    next: u64,
    end: u64,
    /// Bytes that were read. Those before `used` were returned already.
    window: Vec<u8>,
    used: usize,
}

impl<'a> FixedRecords<'a> {
    fn new(source: &'a dyn ReadAt, start: u64, count: u64, record_size: usize) -> Self {
        Self {
            source,
            record_size,
            next: start,
            end: start + count * record_size as u64,
            window: Vec::new(),
            used: 0,
        }
    }

    /// The next record and its place. After an error there is no next one.
    fn next_record(&mut self) -> Result<Option<(u64, &[u8])>> {
        if self.used >= self.window.len() {
            self.fill()?;
        }

        let offset = self.next;
        let Some(record) = self.window.get(self.used..self.used + self.record_size) else {
            return Ok(None);
        };
        self.used += self.record_size;
        self.next += self.record_size as u64;
        Ok(Some((offset, record)))
    }

    /// Reads as many whole records as fit into the window.
    fn fill(&mut self) -> Result<()> {
        let whole_records = WINDOW / self.record_size * self.record_size;
        let rest = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        self.window.resize(rest.min(whole_records), 0);
        self.used = 0;

        if let Err(error) = self.source.read_exact_at(self.next, &mut self.window) {
            self.window.clear();
            self.end = self.next;
            return Err(error.into());
        }
        Ok(())
    }
}
