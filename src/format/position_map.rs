//! The position map of a scavenged chunk: the place of each surviving record (disk-format §3.4).
//!
//! ```text
//! narrow entry    | offset in the data 4 | position in the file's range 4 |
//! wide entry      | offset in the data 4 | position in the file's range 8 |
//! ```
//!
//! The entries rise in both numbers, one per record.

use std::cmp::Ordering;

use super::chunk::{ChunkFile, HEADER_LENGTH, MapEntries};
use super::field::{i32_at, i64_at};
use super::window::FileWindow;
use super::{LogPosition, Malformed, ReadAt, Result};

const STRUCTURE: &str = "position map";
/// Bytes that a walk over the map reads at once.
const SCAN: usize = 64 * 1024;

/// The place of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Its log position.
    pub position: LogPosition,
    /// Its first byte in the file.
    pub offset: u64,
}

/// The entries of a position map, which can be walked and searched.
#[derive(Debug)]
pub struct PositionMap<'s> {
    window: FileWindow<'s>,
    entries: MapEntries,
    /// Log position to which the entries' positions are relative.
    origin: LogPosition,
    /// The byte of the file at which the map begins, which is where the data ends.
    start: u64,
    /// Bytes of log that the file covers.
    logical: u64,
    count: u64,
    next: u64,
    previous: Option<MapEntry>,
}

impl<'s> PositionMap<'s> {
    /// The map of a completed chunk. It is empty unless the chunk was scavenged.
    ///
    /// # Errors
    /// A chunk that is not completed, or whose data is transformed.
    pub fn new(source: &'s dyn ReadAt, chunk: &ChunkFile) -> Result<Self> {
        let footer = chunk.completed()?;
        let data = chunk.completed_data()?;
        Ok(Self {
            window: FileWindow::new(source, SCAN),
            entries: footer.map_entries,
            origin: chunk.header.start_position(),
            start: data.end,
            logical: footer.logical,
            count: footer.map_count(),
            next: 0,
            previous: None,
        })
    }

    /// The next entry. Returns `None` at the end.
    ///
    /// # Errors
    /// An entry outside the chunk, or not behind the one before it, or what the storage reports.
    pub fn next_entry(&mut self) -> Result<Option<MapEntry>> {
        if self.next == self.count {
            return Ok(None);
        }

        let entry = self.entry(self.next)?;
        self.check_order(&entry)?;

        self.previous = Some(entry);
        self.next += 1;
        Ok(Some(entry))
    }

    fn check_order(&self, entry: &MapEntry) -> Result<()> {
        // Each match arm returns if the entry fits. Otherwise it says which entry would.
        let expected = match &self.previous {
            Some(previous) => {
                if previous.position < entry.position && previous.offset < entry.offset {
                    return Ok(());
                }
                format!(
                    "an entry behind log position {} and byte {}",
                    previous.position, previous.offset
                )
            }
            None => {
                if entry.offset == HEADER_LENGTH {
                    return Ok(());
                }
                "the first record at the start of the data".to_owned()
            }
        };

        let found = format!("log position {} and byte {}", entry.position, entry.offset);
        let at = self.offset_of_entry(self.next);
        Err(Malformed::new(STRUCTURE, at, expected, found).into())
    }

    /// The first byte in the file of the record at `position`, by a binary search. Returns `None`
    /// if no record of that position survived.
    ///
    /// # Errors
    /// An entry outside the chunk, or what the storage reports.
    pub fn offset_of(&mut self, position: LogPosition) -> Result<Option<u64>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            match entry.position.cmp(&position) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Some(entry.offset)),
            }
        }
        Ok(None)
    }

    fn offset_of_entry(&self, index: u64) -> u64 {
        self.start + index * self.entries.length()
    }

    fn entry(&mut self, index: u64) -> Result<MapEntry> {
        let at = self.offset_of_entry(index);
        let end = self.offset_of_entry(self.count);
        let length = match self.entries {
            MapEntries::Narrow => 8,
            MapEntries::Wide => 12,
        };
        self.window.forwards(at, length, end)?;
        let bytes = self.window.get(at, length).unwrap_or_default();

        let actual = i64::from(i32_at(bytes, 0).unwrap_or(-1));
        let logical = match self.entries {
            MapEntries::Narrow => i64::from(i32_at(bytes, 4).unwrap_or(-1)),
            MapEntries::Wide => i64_at(bytes, 4).unwrap_or(-1),
        };
        if let (Some(offset), Some(position)) = (self.in_data(actual), self.in_log(logical)) {
            return Ok(MapEntry { position, offset });
        }

        let expected = format!(
            "a record in the {} bytes of data and {} bytes of log",
            self.start - HEADER_LENGTH,
            self.logical
        );
        let found = format!("byte {actual} of the data and {logical} of the log");
        Err(Malformed::new(STRUCTURE, at, expected, found).into())
    }

    /// The byte of the file for an offset in the data.
    fn in_data(&self, actual: i64) -> Option<u64> {
        let offset = HEADER_LENGTH + u64::try_from(actual).ok()?;
        (offset < self.start).then_some(offset)
    }

    /// The log position for a position in the file's range.
    fn in_log(&self, logical: i64) -> Option<LogPosition> {
        let logical = u64::try_from(logical).ok()?;
        if logical >= self.logical {
            return None;
        }
        self.origin.checked_add(logical)
    }
}
