//! Bloom filters: `<table>.bloomfilter` and `streamExistenceFilter.dat` (disk-format §5.3).
//!
//! A file of lines of 64 bytes: a header, then lines of 60 bytes of filter and a hash of them. The hash tells garbage from data, but not a line of zeros that once
//! held bits, and not an older line from a newer one.

use super::field::{i32_at, u32_at, u64_at};
use super::hash::{filter_hash, line_hash};
use super::{Malformed, ReadAt, Result};

const STRUCTURE: &str = "bloom filter header";
const VERSION: u8 = 1;
const HEADER_SIZE: u64 = 16;
const LINE_SIZE: u64 = 64;
const DATA_IN_LINE: u64 = 60;
/// Logical sizes the server makes, in bytes.
const SMALLEST: u64 = 10_000;
const LARGEST: u64 = 4_000_000_000;
/// Bits that each member sets.
const BITS_OF_MEMBER: usize = 6;
const MEMBER_SEEDS: [u32; 2] = [0xc001_5eed, 0x1337_5eed];
/// Bytes read at once while lines stream by.
const WINDOW: usize = 256 * 1024;

/// A filter whose header fits its size; lines are read as they are asked for.
pub struct Filter<'a> {
    source: &'a dyn ReadAt,
    header: Header,
}

/// What the first line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How often the server has rebuilt the filter because too many lines were bad.
    pub corruption_rebuilds: i32,
    /// Bytes of filter, without header and hashes. For the stream-existence filter the server wants this equal to its setting, else it rebuilds the filter.
    pub logical_size: u64,
}

impl Header {
    /// Length in bytes of the file: whole lines, with room for a little more than the logical size.
    #[must_use]
    pub const fn file_size(&self) -> u64 {
        file_offset(self.logical_size) / LINE_SIZE * LINE_SIZE + LINE_SIZE
    }
}

/// Where a byte of the filter stands in the file.
const fn file_offset(logical: u64) -> u64 {
    LINE_SIZE + logical + logical / DATA_IN_LINE * (LINE_SIZE - DATA_IN_LINE)
}

/// The outcome of [`Filter::check_lines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// Lines in the file, the header among them, as the server counts them.
    pub total: u64,
    /// Lines whose hash is wrong and cannot be explained, and lines the server had given up before. Counting ends when there are too many.
    pub bad: u64,
}

impl Lines {
    /// The server uses a filter with up to 5 % of bad lines, by taking all their bits as set. With more it ignores a table's filter, and rebuilds the
    /// stream-existence filter.
    #[must_use]
    pub const fn accepted(&self) -> bool {
        self.bad * 20 <= self.total
    }
}

/// Reads the header (16 bytes) and compares it with the size.
///
/// # Errors
/// [`Malformed`](super::Malformed) where the server would refuse the filter without looking at its lines; what the storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<Filter<'_>> {
    let size = source.size();
    if size < HEADER_SIZE {
        return Err(Malformed::new(STRUCTURE, 0, format!("at least {HEADER_SIZE} bytes"), size).into());
    }
    let mut bytes = [0; 16];
    source.read_exact_at(0, &mut bytes)?;
    let [version, ..] = bytes;
    if version != VERSION {
        return Err(Malformed::new(STRUCTURE, 0, "version 1", version).into());
    }
    let (rebuilds, bits) = (i32_at(&bytes, 4).unwrap_or_default(), u64_at(&bytes, 8).unwrap_or_default());
    let logical_size = bits / 8;
    if bits % 8 != 0 || !(SMALLEST..=LARGEST).contains(&logical_size) {
        return Err(Malformed::new(STRUCTURE, 8, format!("8 x {SMALLEST} to 8 x {LARGEST} bits"), bits).into());
    }
    let header = Header { corruption_rebuilds: rebuilds, logical_size };
    if size != header.file_size() {
        let wanted = format!("{} bytes in a file of {} bits", header.file_size(), bits);
        return Err(Malformed::new(STRUCTURE, 8, wanted, format!("{size} bytes")).into());
    }
    Ok(Filter { source, header })
}

impl Filter<'_> {
    /// What the first line says.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    /// Reads all lines and counts the bad ones, as the server does at its start. Memory: one window.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn check_lines(&self) -> Result<Lines> {
        let end = self.header.file_size();
        let mut lines = Lines { total: end / LINE_SIZE, bad: 0 };
        let mut window = vec![0; WINDOW];
        let mut offset = LINE_SIZE;
        while offset < end && lines.accepted() {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(window.len());
            let part = window.get_mut(..length).unwrap_or_default();
            self.source.read_exact_at(offset, part)?;
            for line in part.as_chunks().0 {
                if !is_usable(line) {
                    lines.bad += 1;
                    if !lines.accepted() {
                        break;
                    }
                }
            }
            offset += length as u64;
        }
        Ok(lines)
    }

    /// Whether the filter holds the stream with this [hash](super::hash::stream_hash), or seems to: false answers are always right. A table of version 1 has
    /// [shorter hashes](super::ptable::TableVersion::entry_hash) in its filter.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn might_contain(&self, stream_hash: u64) -> Result<bool> {
        let bytes = stream_hash.to_le_bytes();
        let [start, step] = MEMBER_SEEDS.map(|seed| filter_hash(seed, &bytes));
        let mut hash = start;
        for _ in 0..BITS_OF_MEMBER {
            // The server counts with signed numbers and drops the sign.
            hash = hash.wrapping_add(step) & (u64::MAX >> 1);
            if !self.is_set(hash % (self.header.logical_size * 8))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn is_set(&self, bit: u64) -> Result<bool> {
        let offset = file_offset(bit / 8);
        let mut line = [0; 64];
        self.source.read_exact_at(offset / LINE_SIZE * LINE_SIZE, &mut line)?;
        let byte = usize::try_from(offset % LINE_SIZE).ok().and_then(|place| line.get(place).copied()).unwrap_or_default();
        // The first bit is the highest.
        let set = byte & (0x80 >> (bit % 8)) != 0;
        Ok(set || !is_usable(&line))
    }
}

/// Whether the server trusts a line: it was never written, or its hash is right, or was right before the last bit was set.
fn is_usable(line: &[u8; 64]) -> bool {
    let (Some(data), Some(stated)) = (line.first_chunk::<60>(), u32_at(line, 60)) else {
        return false;
    };
    if line.iter().all(|byte| *byte == 0xff) {
        return false;
    }
    line.iter().all(|byte| *byte == 0) || line_hash(data) == stated || lacks_one_bit(*data, stated)
}

fn lacks_one_bit(mut data: [u8; 60], stated: u32) -> bool {
    for place in 0..data.len() {
        for bit in 0..8 {
            let Some(byte) = data.get_mut(place) else {
                return false;
            };
            if *byte & 1 << bit == 0 {
                continue;
            }
            *byte ^= 1 << bit;
            let explains = line_hash(&data) == stated;
            if let Some(byte) = data.get_mut(place) {
                *byte ^= 1 << bit;
            }
            if explains {
                return true;
            }
        }
    }
    false
}
