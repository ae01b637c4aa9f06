//! Cells: the pieces of a file between fixed offsets, and the blobs that hold them.

use serde::{Deserialize, Serialize};

use super::encoding::Encoding;
use super::naming::ObjectName;
use crate::manifest::Blake3Hash;

/// A cell of a file, or a part of one, and the blob that holds its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "CellEntry", into = "CellEntry")]
pub(super) struct Cell {
    /// Where its bytes begin in the file.
    pub(super) offset: u64,
    /// How many bytes of the file it holds.
    pub(super) length: u64,
    /// The name of the blob.
    pub(super) name: ObjectName,
    /// Length of the blob as it is stored.
    pub(super) stored: u64,
    /// BLAKE3 of the blob as it is stored.
    pub(super) hash: Blake3Hash,
    /// How the blob holds the bytes.
    pub(super) encoding: Encoding,
}

/// A cell as a section writes it.
type CellEntry = (u64, u64, ObjectName, u64, Blake3Hash, Encoding);

impl From<CellEntry> for Cell {
    fn from((offset, length, name, stored, hash, encoding): CellEntry) -> Self {
        Self {
            offset,
            length,
            name,
            stored,
            hash,
            encoding,
        }
    }
}

impl From<Cell> for CellEntry {
    fn from(cell: Cell) -> Self {
        let Cell {
            offset,
            length,
            name,
            stored,
            hash,
            encoding,
        } = cell;
        (offset, length, name, stored, hash, encoding)
    }
}

impl Cell {
    /// The first byte of the file behind it.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Whether the cells follow each other from the file's first byte, without a gap, and end within
/// `size`. Only such a list is taken from a section.
pub(super) fn are_continuous(cells: &[Cell], size: u64) -> bool {
    let mut end = 0;
    for cell in cells {
        if cell.offset != end || cell.length == 0 {
            return false;
        }
        let Some(next) = end.checked_add(cell.length) else {
            return false;
        };
        end = next;
    }
    end <= size
}

/// How many of the parts of an unfinished cell stay when `length` bytes behind them become another
/// part. The others are stored again together with the new bytes: those at the end that are not
/// longer than what follows them. So a cell of n bytes has at most about log₂ n parts.
pub(super) fn parts_that_stay(parts: &[Cell], length: u64) -> usize {
    let mut stay = parts.len();
    let mut length = length;
    while let Some(last) = stay.checked_sub(1).and_then(|last| parts.get(last)) {
        if last.length > length {
            break;
        }
        length = length.saturating_add(last.length);
        stay -= 1;
    }
    stay
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(offset: u64, length: u64) -> Cell {
        Cell {
            offset,
            length,
            name: "00".repeat(32).parse().unwrap(),
            stored: length,
            hash: Blake3Hash::of(b""),
            encoding: Encoding::Plain,
        }
    }

    #[test]
    fn a_cell_is_one_short_line_of_a_section() {
        let text = serde_json::to_string(&cell(16, 7)).unwrap();
        assert!(
            text.starts_with("[16,7,\"0000") && text.ends_with("\",\"plain\"]"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Cell>(&text).unwrap(), cell(16, 7));
    }

    #[test]
    fn cells_with_a_gap_or_beyond_the_end_are_refused() {
        assert!(are_continuous(&[], 0));
        assert!(are_continuous(&[cell(0, 4), cell(4, 4)], 8));
        assert!(!are_continuous(&[cell(0, 4), cell(4, 4)], 7));
        assert!(!are_continuous(&[cell(1, 4)], 8));
        assert!(!are_continuous(&[cell(0, 4), cell(3, 4)], 8));
        assert!(!are_continuous(&[cell(0, 0)], 8));
        assert!(!are_continuous(&[cell(0, 4), cell(4, u64::MAX)], u64::MAX));
    }

    proptest! {
        #[test]
        fn a_cell_has_few_parts(appended in prop::collection::vec(1_u64..100_000, 1..2000)) {
            let mut parts: Vec<Cell> = Vec::new();
            for length in appended {
                let end = parts.last().map_or(0, Cell::end) + length;
                parts.truncate(parts_that_stay(&parts, length));
                let offset = parts.last().map_or(0, Cell::end);
                parts.push(cell(offset, end - offset));

                prop_assert!(are_continuous(&parts, end));
                let most = usize::try_from(end.ilog2()).unwrap() + 1;
                prop_assert!(parts.len() <= most, "{} parts of {end} bytes", parts.len());
            }
        }
    }
}
