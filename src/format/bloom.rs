//! Bloom filters: `<table>.bloomfilter` and `streamExistenceFilter.dat` (disk-format §5.3).
//!
//! ```text
//! | header line 64 | line 64 | line 64 | …
//! header line    | version 1 | zeros 3 | rebuilds 4 | number of bits 8 | zeros |
//! line           | filter 60 | hash of the filter bytes 4 |
//! ```
//!
//! The hash distinguishes garbage from data. It does not show that a line of zeros once held bits,
//! or that a line is older than the others.

use super::field::{i32_at, u32_at, u64_at};
use super::hash::{filter_hash, line_hash};
use super::{Malformed, ReadAt, Result};

const STRUCTURE: &str = "bloom filter header";
const VERSION: u8 = 1;
const HEADER_SIZE: u64 = 16;
const LINE_SIZE: u64 = 64;
const DATA_IN_LINE: u64 = 60;
/// The smallest and the largest logical size that servers write, in bytes.
const SMALLEST: u64 = 10_000;
const LARGEST: u64 = 4_000_000_000;
/// Bits that each member sets.
const BITS_OF_MEMBER: usize = 6;
const MEMBER_SEEDS: [u32; 2] = [0xc001_5eed, 0x1337_5eed];
/// Bytes read at once while lines stream by.
const WINDOW: usize = 256 * 1024;
/// If one bit in so many lines is wanted, all lines are read.
const READ_ALL_FROM: u64 = 16;

/// A filter whose header fits its size. Its lines are read only when they are needed.
pub struct Filter<'a> {
    source: &'a dyn ReadAt,
    header: FilterHeader,
}

/// What the first line of a filter says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterHeader {
    /// How often the server has rebuilt the filter because too many lines were bad.
    pub corruption_rebuilds: i32,
    /// Bytes of filter, without header and hashes. A server whose setting differs from the
    /// stream-existence filter's size rebuilds that filter.
    pub logical_size: u64,
}

impl FilterHeader {
    /// Length of the file in bytes: whole lines, with room for a little more than the logical size.
    #[must_use]
    pub const fn file_size(&self) -> u64 {
        file_offset(self.logical_size) / LINE_SIZE * LINE_SIZE + LINE_SIZE
    }
}

/// The place in the file of a byte of the filter.
const fn file_offset(logical: u64) -> u64 {
    LINE_SIZE + logical + logical / DATA_IN_LINE * (LINE_SIZE - DATA_IN_LINE)
}

/// The outcome of [`Filter::check_lines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterLines {
    /// Number of lines in the file, with the header, as the server counts them.
    pub total: u64,
    /// Number of lines that the server cannot use: the hash is wrong, or the server has given the
    /// line up. Counting ends when there are too many.
    pub bad: u64,
}

impl FilterLines {
    /// Whether a server uses the filter: up to 5 % of the lines may be bad, and count as full. With
    /// more the server ignores a table's filter, and rebuilds the stream-existence filter.
    #[must_use]
    pub const fn accepted(&self) -> bool {
        self.bad * 20 <= self.total
    }
}

/// Reads the header (16 bytes) and compares it with the size.
///
/// # Errors
/// [`Malformed`] if the header alone makes the server refuse the filter; what the storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<Filter<'_>> {
    let size = source.size();
    if size < HEADER_SIZE {
        let expected = format!("at least {HEADER_SIZE} bytes");
        return Err(Malformed::new(STRUCTURE, 0, expected, size).into());
    }
    let mut bytes = [0; 16];
    source.read_exact_at(0, &mut bytes)?;
    let [version, ..] = bytes;
    if version != VERSION {
        return Err(Malformed::new(STRUCTURE, 0, "version 1", version).into());
    }

    let bits = u64_at(&bytes, 8).unwrap_or_default();
    let logical_size = bits / 8;
    if !bits.is_multiple_of(8) || !(SMALLEST..=LARGEST).contains(&logical_size) {
        let expected = format!("8 x {SMALLEST} to 8 x {LARGEST} bits");
        return Err(Malformed::new(STRUCTURE, 8, expected, bits).into());
    }
    let header = FilterHeader {
        corruption_rebuilds: i32_at(&bytes, 4).unwrap_or_default(),
        logical_size,
    };

    if size != header.file_size() {
        let expected = format!("{} bytes in a file of {bits} bits", header.file_size());
        return Err(Malformed::new(STRUCTURE, 8, expected, format!("{size} bytes")).into());
    }
    Ok(Filter { source, header })
}

impl Filter<'_> {
    /// What the first line says.
    #[must_use]
    pub fn header(&self) -> FilterHeader {
        self.header
    }

    /// Reads all lines and counts the bad ones, as the server does at its start. Holds one window
    /// in memory.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn check_lines(&self) -> Result<FilterLines> {
        let end = self.header.file_size();
        let mut lines = FilterLines {
            total: end / LINE_SIZE,
            bad: 0,
        };
        let mut window = vec![0; WINDOW];
        let mut offset = LINE_SIZE;

        while offset < end && lines.accepted() {
            let rest = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let length = rest.min(window.len());
            let part = window.get_mut(..length).unwrap_or_default();
            self.source.read_exact_at(offset, part)?;

            for line in part.as_chunks().0 {
                if is_usable(line) {
                    continue;
                }
                lines.bad += 1;
                if !lines.accepted() {
                    break;
                }
            }
            offset += length as u64;
        }
        Ok(lines)
    }

    /// Whether the filter seems to hold the stream with this [hash](super::hash::stream_hash). The
    /// answer "no" is always right; the answer "yes" may be wrong. The filter of a table of version
    /// 1 holds [shorter hashes](super::ptable::TableVersion::entry_hash).
    ///
    /// # Errors
    /// What the storage reports.
    pub fn might_contain(&self, stream_hash: u64) -> Result<bool> {
        let unknown = self.first_unknown(&[stream_hash])?;
        Ok(unknown.is_none())
    }

    /// One of these streams that the filter does not hold, as [`Self::might_contain`] says. Returns
    /// `None` if it seems to hold all. Reads the lines in the order of the file, and holds six bits'
    /// places for each stream in memory.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn first_unknown(&self, stream_hashes: &[u64]) -> Result<Option<u64>> {
        let mut places = Vec::with_capacity(stream_hashes.len() * BITS_OF_MEMBER);
        for stream in stream_hashes {
            for bit in self.bits_of(*stream) {
                places.push((bit, *stream));
            }
        }
        places.sort_unstable();

        let mut lines = LineReader::new(self, places.len());
        for (bit, stream) in places {
            if !lines.has(bit)? {
                return Ok(Some(stream));
            }
        }
        Ok(None)
    }

    /// The bits that a member sets.
    fn bits_of(&self, stream_hash: u64) -> [u64; BITS_OF_MEMBER] {
        let bytes = stream_hash.to_le_bytes();
        let [start, step] = MEMBER_SEEDS.map(|seed| filter_hash(seed, &bytes));
        let bits = self.header.logical_size * 8;

        let mut hash = start;
        [0; BITS_OF_MEMBER].map(|_| {
            // The server counts with signed numbers and drops the sign.
            hash = hash.wrapping_add(step) & (u64::MAX >> 1);
            hash % bits
        })
    }
}

/// Reads lines in the order of the file: single ones, or all if most are wanted.
struct LineReader<'a> {
    source: &'a dyn ReadAt,
    end: u64,
    /// Bytes that are read at once: a line, or as many as fit into a window.
    piece: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> LineReader<'a> {
    /// For so many bits.
    fn new(filter: &Filter<'a>, bits: usize) -> Self {
        let end = filter.header.file_size();
        let lines = end / LINE_SIZE;
        let piece = if (bits as u64).saturating_mul(READ_ALL_FROM) >= lines {
            WINDOW as u64
        } else {
            LINE_SIZE
        };
        Self {
            source: filter.source,
            end,
            piece,
            window: Vec::new(),
            window_at: 0,
        }
    }

    /// Whether a bit is set. Every bit of a line that the server cannot use counts as set.
    fn has(&mut self, bit: u64) -> Result<bool> {
        let offset = file_offset(bit / 8);
        let line = self.line(offset / LINE_SIZE * LINE_SIZE)?;

        let place = usize::try_from(offset % LINE_SIZE).unwrap_or_default();
        let byte = line.get(place).copied().unwrap_or_default();
        // The first bit is the highest.
        let is_set = byte & (0x80 >> (bit % 8)) != 0;
        Ok(is_set || !is_usable(&line))
    }

    fn line(&mut self, line_at: u64) -> Result<[u8; 64]> {
        let is_in_window = line_at >= self.window_at
            && line_at + LINE_SIZE <= self.window_at + self.window.len() as u64;
        if !is_in_window {
            let length = self.piece.min(self.end.saturating_sub(line_at));
            self.window
                .resize(usize::try_from(length).unwrap_or_default(), 0);
            self.window_at = line_at;
            if let Err(error) = self.source.read_exact_at(line_at, &mut self.window) {
                self.window.clear();
                return Err(error.into());
            }
        }

        let start = usize::try_from(line_at - self.window_at).unwrap_or_default();
        let rest = self.window.get(start..).unwrap_or_default();
        Ok(rest.first_chunk().copied().unwrap_or([0; 64]))
    }
}

/// Whether the server trusts a line: it was never written, or its hash is right, or its hash was
/// right before the last bit was set.
fn is_usable(line: &[u8; 64]) -> bool {
    let (Some(data), Some(stated)) = (line.first_chunk::<60>(), u32_at(line, 60)) else {
        return false;
    };
    if line.iter().all(|byte| *byte == 0xff) {
        return false;
    }
    let was_never_written = line.iter().all(|byte| *byte == 0);
    was_never_written || line_hash(data) == stated || lacks_one_bit(*data, stated)
}

/// Whether the hash is right for the data without one of its bits.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: FilterHeader = FilterHeader {
        corruption_rebuilds: 2,
        logical_size: 10_000,
    };

    fn empty(header: FilterHeader) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(header.file_size()).unwrap()];
        bytes[0] = 1;
        bytes[4..8].copy_from_slice(&header.corruption_rebuilds.to_le_bytes());
        bytes[8..16].copy_from_slice(&(header.logical_size * 8).to_le_bytes());
        bytes
    }

    fn line(bytes: &mut [u8], number: usize) -> &mut [u8; 64] {
        bytes[number * 64..][..64].as_mut_array().unwrap()
    }

    fn sign(line: &mut [u8; 64]) {
        let hash = line_hash(line.first_chunk().unwrap());
        line[60..].copy_from_slice(&hash.to_le_bytes());
    }

    /// As the server adds a member: bit by bit, with the line's hash.
    fn add(bytes: &mut [u8], stream_hash: u64) {
        let member = stream_hash.to_le_bytes();
        let [start, step] = MEMBER_SEEDS.map(|seed| filter_hash(seed, &member));
        for times in 1..=6 {
            let bit = (start.wrapping_add(step.wrapping_mul(times)) & (u64::MAX >> 1))
                % (HEADER.logical_size * 8);
            let offset = usize::try_from(file_offset(bit / 8)).unwrap();
            bytes[offset] |= 0x80 >> (bit % 8);
            sign(line(bytes, offset / 64));
        }
    }

    #[test]
    fn a_stream_that_is_not_there_is_found_among_many() {
        let mut bytes = empty(HEADER);
        for member in 0..100 {
            add(&mut bytes, member);
        }
        let members: Vec<u64> = (0..100).collect();
        let unknown = |bytes: &[u8]| {
            let bytes = bytes.to_vec();
            inspect(&bytes).unwrap().first_unknown(&members).unwrap()
        };
        assert_eq!(unknown(&bytes), None);

        // Whichever line lost its bits, the stream that is named is one that the filter lacks.
        for number in 1..bytes.len() / 64 {
            let mut damaged = bytes.clone();
            if line(&mut damaged, number).iter().all(|byte| *byte == 0) {
                continue;
            }
            line(&mut damaged, number).fill(0);
            let found = unknown(&damaged).unwrap();
            assert!(!inspect(&damaged).unwrap().might_contain(found).unwrap());
        }
    }

    fn bad(bytes: &[u8]) -> u64 {
        inspect(&bytes.to_vec()).unwrap().check_lines().unwrap().bad
    }

    #[test]
    fn sizes_are_the_servers() {
        // The size in the fixtures, and the default of 256 MB.
        assert_eq!(HEADER.file_size(), 10_752);
        assert_eq!(
            FilterHeader {
                corruption_rebuilds: 0,
                logical_size: 256_000_000
            }
            .file_size(),
            273_066_752
        );

        // The last byte of the filter stands in the last line at the latest.
        for logical_size in 10_000..10_200 {
            let size = FilterHeader {
                corruption_rebuilds: 0,
                logical_size,
            }
            .file_size();
            assert!(
                file_offset(logical_size - 1) < size && size - file_offset(logical_size - 1) <= 128,
                "{logical_size}"
            );
        }
    }

    #[test]
    fn the_header_has_to_fit_the_file() {
        let bytes = empty(HEADER);
        assert_eq!(inspect(&bytes).unwrap().header(), HEADER);
        assert!(inspect(&bytes[..bytes.len() - 64].to_vec()).is_err());
        assert!(inspect(&bytes[..10].to_vec()).is_err());
        for (place, value) in [(0, 2), (8, 1), (9, 0), (15, 0x80)] {
            let mut bytes = bytes.clone();
            bytes[place] = value;
            assert!(inspect(&bytes).is_err(), "{place}");
        }
    }

    #[test]
    fn a_line_may_lack_one_bit() {
        let mut bytes = empty(HEADER);
        line(&mut bytes, 5)[..3].copy_from_slice(&[0x11, 0x20, 0x80]);
        sign(line(&mut bytes, 5));
        assert_eq!(bad(&bytes), 0);
        line(&mut bytes, 5)[17] ^= 0x40;
        assert_eq!(bad(&bytes), 0);
        // Two bits too many, one too few, or a bit in a line that was never hashed, cannot be
        // explained.
        line(&mut bytes, 5)[18] ^= 0x40;
        assert_eq!(bad(&bytes), 1);
        line(&mut bytes, 5)[17..19].fill(0);
        line(&mut bytes, 5)[0] = 0x10;
        assert_eq!(bad(&bytes), 1);
        line(&mut bytes, 9)[30] = 1;
        assert_eq!(bad(&bytes), 2);
        line(&mut bytes, 10).fill(0xff);
        assert_eq!(bad(&bytes), 3);
    }

    #[test]
    fn up_to_one_line_in_twenty_may_be_bad() {
        let mut bytes = empty(HEADER);
        for number in 1..=8 {
            line(&mut bytes, number).fill(0xff);
        }
        let lines = inspect(&bytes).unwrap().check_lines().unwrap();
        assert_eq!(
            (lines, lines.accepted()),
            (FilterLines { total: 168, bad: 8 }, true)
        );
        bytes[64..].fill(0xff);
        let lines = inspect(&bytes).unwrap().check_lines().unwrap();
        assert_eq!(
            (lines, lines.accepted()),
            (FilterLines { total: 168, bad: 9 }, false)
        );
    }

    #[test]
    fn bad_lines_hold_everything() {
        let mut bytes = empty(HEADER);
        assert!(!inspect(&bytes).unwrap().might_contain(7).unwrap());
        bytes[64..].fill(0xa5);
        assert!(inspect(&bytes).unwrap().might_contain(7).unwrap());
    }

    proptest! {
        #[test]
        fn members_are_found(members in prop::collection::vec(any::<u64>(), 0..200)) {
            let mut bytes = empty(HEADER);
            for member in &members {
                add(&mut bytes, *member);
            }
            let filter = inspect(&bytes).unwrap();
            prop_assert_eq!(filter.check_lines().unwrap().bad, 0);
            for member in &members {
                prop_assert!(filter.might_contain(*member).unwrap());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(
            start in prop::collection::vec(any::<u8>(), 0..20),
            rest in prop::collection::vec(any::<u8>(), 10_752),
        ) {
            let _ = inspect(&start);

            let mut bytes = empty(HEADER);
            bytes[64..].copy_from_slice(&rest[64..]);
            let filter = inspect(&bytes).unwrap();
            prop_assert!(!filter.check_lines().unwrap().accepted());
        }
    }
}
