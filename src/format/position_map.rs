//! The position map of a scavenged chunk: where each surviving record stands (disk-format §3.4).

use super::chunk::{ChunkFile, HEADER_LENGTH, MapEntries};
use super::field::{i32_at, i64_at};
use super::window::Window;
use super::{LogPosition, Malformed, ReadAt, Result};

/// Bytes that a walk over the map reads at once.
const SCAN: usize = 64 * 1024;

/// Where one record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Its log position.
    pub position: LogPosition,
    /// Its first byte in the file.
    pub offset: u64,
}

/// The entries of a position map, in rising order of both their numbers; also searched.
#[derive(Debug)]
pub struct PositionMap<'s> {
    window: Window<'s>,
    entries: MapEntries,
    /// Log position to which the entries' numbers are relative.
    origin: LogPosition,
    /// Bytes of the file: where the map begins, which is where the data ends.
    start: u64,
    /// Bytes of log that the file stands for.
    logical: u64,
    count: u64,
    next: u64,
    previous: Option<MapEntry>,
}

impl<'s> PositionMap<'s> {
    /// The map of a completed chunk; empty where it was not scavenged.
    ///
    /// # Errors
    /// A chunk that is not completed, or whose data is transformed.
    pub fn new(source: &'s dyn ReadAt, chunk: &ChunkFile) -> Result<Self> {
        let footer = chunk.completed()?;
        let data = chunk.completed_data()?;
        Ok(Self {
            window: Window::new(source, SCAN),
            entries: footer.map_entries,
            origin: chunk.header.start_position(),
            start: data.end,
            logical: footer.logical,
            count: footer.map_count(),
            next: 0,
            previous: None,
        })
    }

    /// The next entry; none at the end.
    ///
    /// # Errors
    /// An entry outside the chunk, or not behind the one before it, or what the storage reports.
    pub fn next_entry(&mut self) -> Result<Option<MapEntry>> {
        if self.next == self.count {
            return Ok(None);
        }
        let entry = self.entry(self.next)?;
        let rises = match self.previous {
            Some(previous) => previous.position < entry.position && previous.offset < entry.offset,
            None => entry.offset == HEADER_LENGTH,
        };
        if !rises {
            let expected = self.previous.map_or_else(
                || "the first record at the start of the data".to_owned(),
                |previous| {
                    format!(
                        "an entry behind log position {} and byte {}",
                        previous.position, previous.offset
                    )
                },
            );
            let found = format!("log position {} and byte {}", entry.position, entry.offset);
            return Err(Malformed::new(
                "position map",
                self.offset_of_entry(self.next),
                expected,
                found,
            )
            .into());
        }
        self.previous = Some(entry);
        self.next += 1;
        Ok(Some(entry))
    }

    /// The first byte in the file of the record at `position`; none where no record of that
    /// position survived. A binary search.
    ///
    /// # Errors
    /// An entry outside the chunk, or what the storage reports.
    pub fn offset_of(&mut self, position: LogPosition) -> Result<Option<u64>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(middle)?;
            match entry.position.cmp(&position) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(Some(entry.offset)),
            }
        }
        Ok(None)
    }

    fn offset_of_entry(&self, index: u64) -> u64 {
        self.start + index * self.entries.length()
    }

    fn entry(&mut self, index: u64) -> Result<MapEntry> {
        let at = self.offset_of_entry(index);
        let length = match self.entries {
            MapEntries::Narrow => 8,
            MapEntries::Wide => 12,
        };
        self.window
            .forwards(at, length, self.offset_of_entry(self.count))?;
        let bytes = self.window.get(at, length).unwrap_or_default();
        let actual = i64::from(i32_at(bytes, 0).unwrap_or(-1));
        let logical = match self.entries {
            MapEntries::Narrow => i64::from(i32_at(bytes, 4).unwrap_or(-1)),
            MapEntries::Wide => i64_at(bytes, 4).unwrap_or(-1),
        };
        let offset = u64::try_from(actual)
            .ok()
            .map(|actual| HEADER_LENGTH + actual)
            .filter(|offset| *offset < self.start);
        let position = u64::try_from(logical)
            .ok()
            .filter(|logical| *logical < self.logical)
            .and_then(|logical| self.origin.checked_add(logical));
        match (offset, position) {
            (Some(offset), Some(position)) => Ok(MapEntry { position, offset }),
            _ => {
                let expected = format!(
                    "a record in the {} bytes of data and {} bytes of log",
                    self.start - HEADER_LENGTH,
                    self.logical
                );
                let found = format!("byte {actual} of the data and {logical} of the log");
                Err(Malformed::new("position map", at, expected, found).into())
            }
        }
    }
}
