//! `scavenging.db`: whether it looks like a whole `SQLite` database (disk-format §1, §7).
//!
//! Only the file header is read, by `SQLite`'s published file format. `SQLite` keeps no checksums.
//! So a correct header shows that the file was not cut short, but nothing about the content of its
//! pages. If a journal or a write-ahead log lies beside the file, even that is not certain. The
//! caller has to exclude it.

use super::field::bytes_at;
use super::{Malformed, ReadAt, Result};

const STRUCTURE: &str = "SQLite header";
const HEADER_SIZE: u64 = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What the first 100 bytes of a database say. Numbers are big-endian.
///
/// ```text
/// | at | bytes | field                                           |
/// |  0 |    16 | magic                                           |
/// | 16 |     2 | page size; 1 stands for 65536                   |
/// | 18 |     1 | version needed for writing, 1 or 2              |
/// | 19 |     1 | version needed for reading, 1 or 2              |
/// | 21 |     3 | payload fractions 64, 32, 32                    |
/// | 24 |     4 | change counter                                  |
/// | 28 |     4 | number of pages                                 |
/// | 92 |     4 | change counter for which that number is valid   |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteHeader {
    /// Length of a page in bytes.
    pub page_size: u64,
    /// Number of pages in the file.
    pub pages: u64,
}

/// Checks the header (100 bytes) and compares it with the size.
///
/// # Errors
/// [`Malformed`] if `SQLite` would not open the file, or would find it too short; also for an empty
/// file, which `SQLite` takes for an empty database. What the storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<SqliteHeader> {
    let size = source.size();
    if size < HEADER_SIZE {
        let expected = format!("at least {HEADER_SIZE} bytes");
        return Err(Malformed::new(STRUCTURE, 0, expected, size).into());
    }
    let mut bytes = [0; 100];
    source.read_exact_at(0, &mut bytes)?;
    if !bytes.starts_with(MAGIC) {
        return Err(Malformed::new(STRUCTURE, 0, "SQLite format 3", "other bytes").into());
    }

    let page_size = page_size(&bytes)?;
    check_versions(&bytes)?;

    let pages = stated_pages(&bytes).unwrap_or(size / page_size);
    if pages == 0 || pages * page_size > size || !size.is_multiple_of(page_size) {
        let expected = format!("{pages} pages of {page_size} bytes");
        let found = format!("a file of {size} bytes");
        return Err(Malformed::new(STRUCTURE, 28, expected, found).into());
    }
    Ok(SqliteHeader { page_size, pages })
}

fn page_size(bytes: &[u8]) -> Result<u64> {
    let stated = u16::from_be_bytes(bytes_at(bytes, 16).unwrap_or_default());
    match stated {
        1 => Ok(65_536),
        size if size >= 512 && size.is_power_of_two() => Ok(u64::from(size)),
        other => {
            let expected = "a page size from 512 to 65536";
            Err(Malformed::new(STRUCTURE, 16, expected, other).into())
        }
    }
}

fn check_versions(bytes: &[u8]) -> Result<()> {
    let [write, read, _, fractions @ ..] = bytes_at::<6>(bytes, 18).unwrap_or_default();
    if !(1..=2).contains(&write) || !(1..=2).contains(&read) {
        let found = format!("{write} and {read}");
        return Err(Malformed::new(STRUCTURE, 18, "format versions 1 or 2", found).into());
    }
    if fractions != [64, 32, 32] {
        let found = format!("{fractions:?}");
        return Err(Malformed::new(STRUCTURE, 21, "payload fractions 64, 32, 32", found).into());
    }
    Ok(())
}

/// The number of pages in the header. Returns `None` if it is not current: ancient versions did not
/// keep it, and `SQLite` then goes by the length.
fn stated_pages(bytes: &[u8]) -> Option<u64> {
    let number = |place| u32::from_be_bytes(bytes_at(bytes, place).unwrap_or_default());
    let pages = number(28);
    if pages == 0 || number(24) != number(92) {
        return None;
    }
    Some(u64::from(pages))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(page_size: [u8; 2], pages: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..18].copy_from_slice(&page_size);
        bytes[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
        bytes[31] = pages;
        bytes
    }

    #[test]
    fn page_sizes_have_their_own_spelling() {
        assert_eq!(
            inspect(&database([2, 0], 3, 1536)).unwrap(),
            SqliteHeader {
                page_size: 512,
                pages: 3
            }
        );
        assert_eq!(
            inspect(&database([0, 1], 1, 65_536)).unwrap(),
            SqliteHeader {
                page_size: 65_536,
                pages: 1
            }
        );
        for wrong in [[0, 0], [0, 2], [1, 0], [2, 1], [3, 0]] {
            assert!(inspect(&database(wrong, 3, 1536)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_file_cut_short_is_found() {
        for length in [100, 512, 1024, 1100, 1535] {
            assert!(inspect(&database([2, 0], 3, length)).is_err(), "{length}");
        }
        assert!(inspect(&Vec::new()).is_err());
        // One more page than the header knows is what SQLite overlooks too.
        assert_eq!(inspect(&database([2, 0], 3, 2048)).unwrap().pages, 3);
    }

    #[test]
    fn the_number_of_pages_counts_only_when_it_is_current() {
        let mut old = database([2, 0], 9, 1536);
        old[27] = 1;
        assert_eq!(inspect(&old).unwrap().pages, 3);
    }
}
