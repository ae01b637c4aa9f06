//! `scavenging.db`: whether it looks like a whole `SQLite` database (disk-format §1, §7).
//!
//! Only the file header is read, by `SQLite`'s published file format. `SQLite` keeps no checksums:
//! a header that holds says that the file was not cut short, and nothing about what is in its
//! pages. With a journal or a write-ahead log beside it the file alone says nothing at all; the
//! caller has to see to that.

use super::field::bytes_at;
use super::{Malformed, ReadAt, Result};

const STRUCTURE: &str = "SQLite header";
const HEADER_SIZE: u64 = 100;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of a page in bytes.
    pub page_size: u64,
    /// Pages in the file.
    pub pages: u64,
}

/// Checks the header (100 bytes) and compares it with the size.
///
/// # Errors
/// [`Malformed`] where `SQLite` would not open the file, or would find it too short; also an empty
/// file, which `SQLite` takes for an empty database. What the storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<Header> {
    let size = source.size();
    if size < HEADER_SIZE {
        return Err(
            Malformed::new(STRUCTURE, 0, format!("at least {HEADER_SIZE} bytes"), size).into(),
        );
    }
    let mut bytes = [0; 100];
    source.read_exact_at(0, &mut bytes)?;
    if !bytes.starts_with(MAGIC) {
        return Err(Malformed::new(STRUCTURE, 0, "SQLite format 3", "other bytes").into());
    }
    let page_size = match bytes_at(&bytes, 16)
        .map(u16::from_be_bytes)
        .unwrap_or_default()
    {
        1 => 65_536,
        size if size >= 512 && size.is_power_of_two() => u64::from(size),
        other => {
            return Err(
                Malformed::new(STRUCTURE, 16, "a page size from 512 to 65536", other).into(),
            );
        }
    };
    let [written, read, _, payload @ ..] = bytes_at::<6>(&bytes, 18).unwrap_or_default();
    if !(1..=2).contains(&written) || !(1..=2).contains(&read) {
        return Err(Malformed::new(
            STRUCTURE,
            18,
            "format versions 1 or 2",
            format!("{written} and {read}"),
        )
        .into());
    }
    if payload != [64, 32, 32] {
        return Err(Malformed::new(
            STRUCTURE,
            21,
            "payload fractions 64, 32, 32",
            format!("{payload:?}"),
        )
        .into());
    }

    let number = |place| {
        bytes_at(&bytes, place)
            .map(u32::from_be_bytes)
            .unwrap_or_default()
    };
    let (changes, pages, valid_for) = (number(24), u64::from(number(28)), number(92));
    // Ancient versions did not keep the number of pages; SQLite then goes by the length.
    let pages = if pages == 0 || changes != valid_for {
        size / page_size
    } else {
        pages
    };
    if pages == 0 || pages * page_size > size || !size.is_multiple_of(page_size) {
        let wanted = format!("{pages} pages of {page_size} bytes");
        return Err(
            Malformed::new(STRUCTURE, 28, wanted, format!("a file of {size} bytes")).into(),
        );
    }
    Ok(Header { page_size, pages })
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
            Header {
                page_size: 512,
                pages: 3
            }
        );
        assert_eq!(
            inspect(&database([0, 1], 1, 65_536)).unwrap(),
            Header {
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
