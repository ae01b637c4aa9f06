//! Divides the files of a backup into groups, so that a diff writes few and short sections.
//!
//! Chunks grow at the end of the log. So they are divided by their numbers, from the front, into
//! ranges of powers of two: an append changes the last range only, and a range becomes part of a
//! longer one when the log has grown. All other files are one more group.

use std::ops::Range;

use crate::manifest::{Role, Row};

/// The most chunks in a group.
const MOST_CHUNKS: u32 = 16_384;
/// The fewest chunks in a group, but for the last one.
const FEWEST_CHUNKS: u32 = 256;
/// About how many bytes of small files stand in one group.
const MOST_DATA: u64 = 2 << 20;

/// Which group a row is in. Rows of one group have equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum GroupKey {
    /// Chunks from this number on.
    Chunks(u32),
    /// Other files: the first such group, the second one, and so on.
    Others(u32),
}

/// The groups of a backup.
pub(super) struct Grouping {
    ranges: Vec<Range<u32>>,
    data_in_group: u64,
    others: u32,
}

impl Grouping {
    /// The groups for these rows.
    pub(super) fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut chunks: u32 = 0;
        for row in rows {
            if let Some(number) = chunk_number(row) {
                chunks = chunks.max(number.saturating_add(1));
            }
        }
        Self {
            ranges: ranges_of(chunks),
            data_in_group: 0,
            others: 0,
        }
    }

    /// The group of a row. Rows come in the order of their paths. `data` is how many bytes of the
    /// file stand in its row.
    pub(super) fn key(&mut self, row: &Row, data: u64) -> GroupKey {
        if let Some(number) = chunk_number(row) {
            let range = self.ranges.iter().find(|range| range.contains(&number));
            return GroupKey::Chunks(range.map_or(0, |range| range.start));
        }

        if self.data_in_group > 0 && self.data_in_group.saturating_add(data) > MOST_DATA {
            self.others += 1;
            self.data_in_group = 0;
        }
        self.data_in_group = self.data_in_group.saturating_add(data);
        GroupKey::Others(self.others)
    }
}

fn chunk_number(row: &Row) -> Option<u32> {
    if row.role != Role::Chunk {
        return None;
    }
    row.chunk.map(|chunk| chunk.start.0)
}

/// Ranges of the numbers below `chunks`.
fn ranges_of(chunks: u32) -> Vec<Range<u32>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < chunks {
        let left = chunks - start;
        let mut length = MOST_CHUNKS;
        while length > left && length > FEWEST_CHUNKS {
            length /= 2;
        }
        let end = start.saturating_add(length);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_powers_of_two_and_few() {
        let lengths = |chunks| -> Vec<u32> {
            let ranges = ranges_of(chunks);
            ranges.iter().map(|range| range.end - range.start).collect()
        };
        assert!(lengths(0).is_empty());
        assert_eq!(lengths(1), [256]);
        assert_eq!(lengths(256), [256]);
        assert_eq!(lengths(257), [256, 256]);
        assert_eq!(lengths(1000), [512, 256, 256]);
        assert_eq!(lengths(40_000), [16_384, 16_384, 4096, 2048, 1024, 256]);
    }

    #[test]
    fn appends_write_few_rows_again() {
        let mut written: u32 = 0;
        let last: u32 = 20_000;
        for chunks in 1..last {
            let (before, after) = (ranges_of(chunks), ranges_of(chunks + 1));
            for range in after {
                if !before.contains(&range) {
                    written += range.end - range.start;
                }
            }
        }
        assert!(written / last <= 8, "{written} rows for {last} chunks");
    }
}
