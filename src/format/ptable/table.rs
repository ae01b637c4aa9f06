//! Reads a table: its entries, their order, and its MD5.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use md5::{Digest, Md5};

use super::entries::{Entries, Midpoint, Midpoints, TableEntry, WINDOW};
use super::layout::{ENTRIES, MD5_SIZE, MIDPOINT_SIZE, MIDPOINTS, TableLayout, inspect};
use crate::format::{LogPosition, Malformed, Md5Hash, ReadAt, Result};

/// A table whose header, footer and size fit each other. Its entries are read only when they are
/// needed.
pub struct Table<'a> {
    source: &'a dyn ReadAt,
    layout: TableLayout,
}

impl<'a> Table<'a> {
    /// [Inspects](inspect) the table.
    ///
    /// # Errors
    /// Those of [`inspect`].
    pub fn open(source: &'a dyn ReadAt) -> Result<Self> {
        let layout = inspect(source)?;
        Ok(Self { source, layout })
    }

    /// What header, footer and size say.
    #[must_use]
    pub fn layout(&self) -> &TableLayout {
        &self.layout
    }

    /// The entries in the order of the file, which is descending. Holds one window in memory.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries::new(self.source, &self.layout, 0, self.layout.entries)
    }

    /// One entry by its place in the file. Returns `None` beyond the last one.
    ///
    /// # Errors
    /// [`Malformed`] if its position is negative; what the storage reports.
    pub fn entry(&self, index: u64) -> Result<Option<TableEntry>> {
        if index >= self.layout.entries {
            return Ok(None);
        }
        let mut entries = Entries::new(self.source, &self.layout, index, 1);
        entries.next().transpose()
    }

    /// Whether the table has an entry. Needs few reads, because the entries are sorted.
    ///
    /// # Errors
    /// Those of [`Self::entry`].
    pub fn contains(&self, wanted: &TableEntry) -> Result<bool> {
        let place = self.first_at_most(wanted)?;
        Ok(self.entry(place)? == Some(*wanted))
    }

    /// At most `count` entries of a stream: those with the highest event numbers, the highest one
    /// first. `stream` is the hash as this version of table [holds](super::TableVersion::entry_hash) it.
    ///
    /// # Errors
    /// Those of [`Self::entry`].
    pub fn newest_of(&self, stream: u64, count: usize) -> Result<Vec<TableEntry>> {
        let highest = TableEntry {
            stream,
            event_number: i64::MAX,
            position: LogPosition::MAX,
        };
        let place = self.first_at_most(&highest)?;
        let rest = self.layout.entries.saturating_sub(place);
        let count = rest.min(count as u64);

        let mut newest = Vec::new();
        for entry in Entries::new(self.source, &self.layout, place, count) {
            let entry = entry?;
            if entry.stream != stream {
                break;
            }
            newest.push(entry);
        }
        Ok(newest)
    }

    /// The place of the first entry that is not above `bound`. The order is descending.
    fn first_at_most(&self, bound: &TableEntry) -> Result<u64> {
        let (mut low, mut high) = (0, self.layout.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)? {
                Some(entry) if entry > *bound => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Hashes the file and compares the result with the MD5 at its end.
    ///
    /// The server does the same at each start, unless it is told to skip it or the table has no
    /// entries.
    ///
    /// # Errors
    /// [`Malformed`] if they differ; what the storage reports.
    pub fn check_md5(&self) -> Result<()> {
        let end = self.layout.size - MD5_SIZE;
        let mut hasher = Md5::new();
        let mut buffer = vec![0; WINDOW];
        let mut offset = 0;
        while offset < end {
            let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let length = rest.min(buffer.len());
            let window = buffer.get_mut(..length).unwrap_or_default();
            self.source.read_exact_at(offset, window)?;
            hasher.update(&*window);
            offset += length as u64;
        }

        let computed = Md5Hash(hasher.finalize().into());
        if computed == self.layout.md5 {
            return Ok(());
        }
        let expected = format!("{computed}, which the bytes before it have");
        Err(Malformed::new("index table MD5", end, expected, self.layout.md5).into())
    }

    /// Reads all entries and midpoints once, and checks the order that the server relies on: no
    /// entry is above the one before it, and every midpoint repeats the key of an entry, in order
    /// from the first entry to the last.
    ///
    /// The server checks less: it compares stream and number only, and only at the midpoints. Every
    /// table that a server wrote passes this stricter check.
    ///
    /// # Errors
    /// [`Malformed`] at the first contradiction; what the storage reports.
    pub fn check_order(&self) -> Result<()> {
        self.scan(|_| ())
    }

    /// At most `count` entries: those of the latest events in the log, the last one first. One pass
    /// over the table finds them and [checks](Self::check_order) its order. It holds `count`
    /// entries in memory.
    ///
    /// # Errors
    /// Those of [`Self::check_order`].
    pub fn latest(&self, count: usize) -> Result<Vec<TableEntry>> {
        let mut kept = BinaryHeap::new();
        self.scan(|entry| {
            kept.push(Reverse((entry.position, entry)));
            if kept.len() > count {
                kept.pop();
            }
        })?;

        // The order is ascending by `Reverse`, so the last one comes first.
        let sorted = kept.into_sorted_vec();
        Ok(sorted
            .into_iter()
            .map(|Reverse((_, entry))| entry)
            .collect())
    }

    fn scan(&self, mut each: impl FnMut(TableEntry)) -> Result<()> {
        let mut samples = SampleCheck::new(self.source, &self.layout)?;
        let mut previous: Option<TableEntry> = None;

        for (index, entry) in (0_u64..).zip(self.entries()) {
            let entry = entry?;
            if let Some(before) = previous
                && entry > before
            {
                let offset = self.layout.offset_of(index);
                let expected = format!("at most {before}, the entry before");
                return Err(Malformed::new(ENTRIES, offset, expected, entry).into());
            }
            samples.meet(index, &entry)?;

            each(entry);
            previous = Some(entry);
        }

        samples.finish(&self.layout)
    }
}

/// Compares the midpoints with the entries as they stream by.
struct SampleCheck<'a> {
    midpoints: Midpoints<'a>,
    /// The midpoint that the next entries are compared with.
    expected: Option<Midpoint>,
    /// The entry that the last midpoint repeated.
    last_sampled: Option<u64>,
}

impl<'a> SampleCheck<'a> {
    fn new(source: &'a dyn ReadAt, layout: &TableLayout) -> Result<Self> {
        let mut midpoints = Midpoints::new(source, layout);
        let expected = midpoints.next_midpoint()?;
        if let Some(first) = expected
            && first.index != 0
        {
            let found = format!("entry {}", first.index);
            let expected = "the first entry as the first midpoint";
            return Err(Malformed::new(MIDPOINTS, first.offset, expected, found).into());
        }
        Ok(Self {
            midpoints,
            expected,
            last_sampled: None,
        })
    }

    /// Several midpoints may repeat one entry.
    fn meet(&mut self, index: u64, entry: &TableEntry) -> Result<()> {
        while let Some(midpoint) = self.expected
            && midpoint.index <= index
        {
            let is_same = midpoint.index == index
                && midpoint.stream == entry.stream
                && midpoint.event_number == entry.event_number;
            if !is_same {
                let expected = format!("the key of entry {index}: {entry}");
                return Err(Malformed::new(MIDPOINTS, midpoint.offset, expected, midpoint).into());
            }
            self.last_sampled = Some(index);
            self.expected = self.midpoints.next_midpoint()?;
        }
        Ok(())
    }

    /// Checks that each midpoint was met, and that the last one repeats the last entry.
    fn finish(self, layout: &TableLayout) -> Result<()> {
        if let Some(midpoint) = self.expected {
            let expected = format!("one of {} entries", layout.entries);
            return Err(Malformed::new(MIDPOINTS, midpoint.offset, expected, midpoint).into());
        }
        let Some(index) = self.last_sampled else {
            return Ok(());
        };
        if index + 1 == layout.entries {
            return Ok(());
        }

        let before_last = u64::from(layout.midpoints - 1) * MIDPOINT_SIZE as u64;
        let offset = layout.entries_end() + before_last;
        let expected = "the last entry as the last midpoint";
        let found = format!("entry {index}");
        Err(Malformed::new(MIDPOINTS, offset, expected, found).into())
    }
}
