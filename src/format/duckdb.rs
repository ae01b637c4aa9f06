//! `kurrent.ddb`: whether `DuckDB` would open it (O35: a node does not start over one that is torn,
//! empty, or has a broken header).
//!
//! ```text
//! | main header 4096 | database header 4096 | database header 4096 | blocks …
//! each header and block    | checksum of the rest 8 | the rest |
//! main header              at 8 "DUCK", at 12 version 8, at 20 flags 8
//! database header          at 8 iteration 8, catalogue 8, free list 8, blocks 8, block size 8
//! ```
//!
//! This comes from `DuckDB`'s source and from files of real nodes, not from a specification. A
//! checkpoint writes its blocks first and then the older of the two database headers, so the newer
//! header says where the catalogue begins.
//!
//! Not proven: data blocks, the inner structure of any block, `kurrent.ddb.wal`, and whether the
//! file fits the log. Encrypted files, which no server makes, are refused. The length says little:
//! `DuckDB` writes the header first, and then cuts off blocks that became free.

use super::field::u64_at;
use super::{Malformed, ReadAt, Result};

const MAIN: &str = "DuckDB main header";
const DATABASE: &str = "DuckDB database header";
const BLOCK: &str = "DuckDB block";

const HEADER_SIZE: usize = 4096;
/// Behind the main header and the two database headers.
const BLOCKS_START: u64 = 3 * HEADER_SIZE as u64;
const CHECKSUM_SIZE: usize = 8;
const MAGIC: [u8; 4] = *b"DUCK";
/// The first of the main header's flags.
const ENCRYPTED: u64 = 1;
/// Powers of two from 16 KiB on.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 1 << 14..=1 << 18;
/// The default block size. Old files say 0 for it.
const LARGEST_BLOCK: u64 = 1 << 18;
/// A pointer to nothing.
const NOTHING: u64 = u64::MAX;
/// The part of a pointer that says which block. The rest is a place in it.
const BLOCK_OF_POINTER: u64 = (1 << 56) - 1;

/// What the headers of a database say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuckDbHeader {
    /// Version of the storage format.
    pub version: u64,
    /// How many checkpoints the file has seen.
    pub iteration: u64,
    /// Number of blocks that were in use or free at the last checkpoint.
    pub blocks: u64,
    /// Length of a block in bytes.
    pub block_size: u64,
}

/// Checks the three headers, and the blocks in which the catalogue and the list of free blocks
/// begin. Reads at most 12 KiB and two blocks.
///
/// # Errors
/// [`Malformed`] if `DuckDB` would not open the file; what the storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<DuckDbHeader> {
    let size = source.size();
    if size < BLOCKS_START {
        let expected = format!("at least {BLOCKS_START} bytes");
        return Err(Malformed::new(MAIN, 0, expected, size).into());
    }
    let version = main_header(source)?;

    let first = DatabaseHeader::read(source, HEADER_SIZE as u64)?;
    let second = DatabaseHeader::read(source, 2 * HEADER_SIZE as u64)?;
    let active = if first.iteration > second.iteration {
        first
    } else {
        second
    };

    active.check_pointer(source, active.catalogue)?;
    active.check_pointer(source, active.free_list)?;
    Ok(DuckDbHeader {
        version,
        iteration: active.iteration,
        blocks: active.blocks,
        block_size: active.block_size,
    })
}

/// Reads the main header. Returns the version of the storage format.
fn main_header(source: &dyn ReadAt) -> Result<u64> {
    let main = checked(source, MAIN, 0, HEADER_SIZE)?;
    let has_magic = main.get(8..).is_some_and(|rest| rest.starts_with(&MAGIC));
    if !has_magic {
        return Err(Malformed::new(MAIN, 8, "the letters DUCK", "other bytes").into());
    }

    let flags = u64_at(&main, 20).unwrap_or_default();
    if flags & ENCRYPTED != 0 {
        let found = format!("flags {flags:#x}");
        return Err(Malformed::new(MAIN, 20, "no encryption", found).into());
    }
    Ok(u64_at(&main, 12).unwrap_or_default())
}

/// One of the two database headers. The one with the higher iteration counts.
struct DatabaseHeader {
    offset: u64,
    iteration: u64,
    catalogue: u64,
    free_list: u64,
    blocks: u64,
    block_size: u64,
}

impl DatabaseHeader {
    fn read(source: &dyn ReadAt, offset: u64) -> Result<Self> {
        let bytes = checked(source, DATABASE, offset, HEADER_SIZE)?;
        let field = |place| u64_at(&bytes, place).unwrap_or_default();

        let block_size = match field(40) {
            0 => LARGEST_BLOCK,
            size if size.is_power_of_two() && BLOCK_SIZES.contains(&size) => size,
            other => {
                let expected = "a block size from 16 KiB to 256 KiB";
                return Err(Malformed::new(DATABASE, offset + 40, expected, other).into());
            }
        };
        Ok(Self {
            offset,
            iteration: field(8),
            catalogue: field(16),
            free_list: field(24),
            blocks: field(32),
            block_size,
        })
    }

    /// Checks that the block which `pointer` leads to is whole.
    fn check_pointer(&self, source: &dyn ReadAt, pointer: u64) -> Result<()> {
        if pointer == NOTHING {
            return Ok(());
        }

        let block = pointer & BLOCK_OF_POINTER;
        let (Some(place), Ok(length)) = (self.place_of(block), usize::try_from(self.block_size))
        else {
            let expected = format!("pointers to one of {} blocks", self.blocks);
            return Err(Malformed::new(DATABASE, self.offset + 16, expected, block).into());
        };

        let rest = source.size().saturating_sub(place);
        if rest < self.block_size {
            let expected = format!("{length} bytes");
            let found = format!("a file of {} bytes", source.size());
            return Err(Malformed::new(BLOCK, place, expected, found).into());
        }
        checked(source, BLOCK, place, length)?;
        Ok(())
    }

    /// Where a block begins in the file. Returns `None` for a block that the file does not have.
    fn place_of(&self, block: u64) -> Option<u64> {
        if block >= self.blocks {
            return None;
        }
        block
            .checked_mul(self.block_size)?
            .checked_add(BLOCKS_START)
    }
}

/// Reads a header or block and compares its checksum.
fn checked(
    source: &dyn ReadAt,
    structure: &'static str,
    offset: u64,
    length: usize,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    source.read_exact_at(offset, &mut bytes)?;

    let stated = u64_at(&bytes, 0).unwrap_or_default();
    let computed = checksum(bytes.get(CHECKSUM_SIZE..).unwrap_or_default());
    if stated != computed {
        let expected = format!("checksum {computed:016x}");
        let found = format!("{stated:016x}");
        return Err(Malformed::new(structure, offset, expected, found).into());
    }
    Ok(bytes)
}

/// `DuckDB`'s checksum. All that it is used for here is a multiple of eight bytes long.
fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = 5381;
    for word in bytes.as_chunks::<8>().0 {
        sum ^= u64::from_le_bytes(*word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without blocks, as a server leaves it that never made a checkpoint.
    fn empty() -> Vec<u8> {
        let mut bytes = vec![0; 3 * HEADER_SIZE];
        bytes[8..12].copy_from_slice(&MAGIC);
        for header in [HEADER_SIZE, 2 * HEADER_SIZE] {
            bytes[header + 16..header + 32].fill(0xff);
        }
        sign(&mut bytes);
        bytes
    }

    fn sign(bytes: &mut [u8]) {
        for header in bytes.chunks_mut(HEADER_SIZE).take(3) {
            let sum = checksum(&header[8..]);
            header[..8].copy_from_slice(&sum.to_le_bytes());
        }
    }

    #[test]
    fn an_empty_database_is_whole() {
        assert_eq!(
            inspect(&empty()).unwrap(),
            DuckDbHeader {
                version: 0,
                iteration: 0,
                blocks: 0,
                block_size: 1 << 18
            }
        );
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_found() {
        let whole = empty();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 4;
            assert!(inspect(&bytes).is_err(), "{place}");
        }
    }

    #[test]
    fn pointers_lead_into_the_file() {
        let mut bytes = empty();
        let header = 2 * HEADER_SIZE;
        bytes[header + 8] = 1;
        bytes[header + 16..header + 24].copy_from_slice(&7_u64.to_le_bytes());
        for blocks in [7_u64, 8, u64::MAX] {
            bytes[header + 32..header + 40].copy_from_slice(&blocks.to_le_bytes());
            sign(&mut bytes);
            assert!(inspect(&bytes).is_err(), "{blocks}");
        }
    }

    #[test]
    fn encrypted_files_and_odd_block_sizes_are_refused() {
        let mut encrypted = empty();
        encrypted[20] = 1;
        sign(&mut encrypted);
        assert!(inspect(&encrypted).is_err());

        for size in [1_u64, 1 << 13, (1 << 14) + 1, 1 << 19, u64::MAX] {
            let mut odd = empty();
            odd[HEADER_SIZE + 40..HEADER_SIZE + 48].copy_from_slice(&size.to_le_bytes());
            sign(&mut odd);
            assert!(inspect(&odd).is_err(), "{size}");
        }
    }
}
