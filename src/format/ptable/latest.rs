//! The entries of a table for the latest events of the log, found while the bytes of the table
//! arrive.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::entries::{Entries, TableEntry};
use super::layout::TableLayout;
use crate::format::{LogPosition, ReadAt, Result};

/// Collects at most so many entries of a table that is being copied.
pub struct LatestEntries {
    layout: TableLayout,
    count: usize,
    /// The entry to be read next.
    next: u64,
    kept: BinaryHeap<Reverse<(LogPosition, TableEntry)>>,
}

impl LatestEntries {
    /// For a table with this layout.
    #[must_use]
    pub fn new(layout: TableLayout, count: usize) -> Self {
        Self {
            layout,
            count,
            next: 0,
            kept: BinaryHeap::new(),
        }
    }

    /// Reads the entries that lie before byte `end` and were not read yet.
    ///
    /// # Errors
    /// [`Malformed`](crate::format::Malformed) at an entry without a position; what the storage
    /// reports.
    pub fn read_up_to(&mut self, source: &dyn ReadAt, end: u64) -> Result<()> {
        let ready = self.layout.entries_before(end);
        let count = ready.saturating_sub(self.next);
        let entries = Entries::new(source, &self.layout, self.next, count);
        self.next = ready.max(self.next);

        for entry in entries {
            let entry = entry?;
            self.kept.push(Reverse((entry.position, entry)));
            if self.kept.len() > self.count {
                self.kept.pop();
            }
        }
        Ok(())
    }

    /// The entries of the latest events, the last one first.
    #[must_use]
    pub fn into_entries(self) -> Vec<TableEntry> {
        let mut entries = Vec::with_capacity(self.kept.len());
        for Reverse((_, entry)) in self.kept.into_sorted_vec() {
            entries.push(entry);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Md5Hash;
    use crate::format::ptable::TableVersion;

    #[test]
    fn entries_count_once_they_are_whole() {
        let layout = TableLayout {
            version: TableVersion::V4,
            entries: 5,
            midpoints: 0,
            size: 128 + 5 * 24 + 144,
            md5: Md5Hash([0; 16]),
        };
        let mut bytes = vec![0; usize::try_from(layout.size).unwrap()];
        for (number, position) in [30_u64, 10, 50, 20, 40].into_iter().enumerate() {
            bytes[128 + number * 24 + 16..][..8].copy_from_slice(&position.to_le_bytes());
        }

        // Whatever the pieces are in which the bytes arrive.
        for piece in [1, 24, 100, 1000] {
            let mut latest = LatestEntries::new(layout, 3);
            for end in (0..layout.size + piece).step_by(usize::try_from(piece).unwrap()) {
                latest.read_up_to(&bytes, end.min(layout.size)).unwrap();
            }
            let entries = latest.into_entries();
            let positions: Vec<u64> = entries.iter().map(|entry| entry.position.get()).collect();
            assert_eq!(positions, [50, 40, 30], "{piece}");
        }
    }
}
