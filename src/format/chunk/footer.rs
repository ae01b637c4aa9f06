//! The last 128 bytes of a completed chunk, and the lengths of chunk files.

use super::header::{ChunkHeader, HEADER_LENGTH};
use super::transform::Transform;
use crate::format::field::{bytes_at, i32_at, i64_at};
use crate::format::{ChunkSize, Malformed, Md5Hash, Result};

const STRUCTURE: &str = "chunk footer";
/// Bytes of a footer: the last ones of a completed chunk.
pub const FOOTER_LENGTH: u64 = 128;
/// Files are padded to a multiple of this since format version 3.
const ALIGNMENT: u64 = 4096;
const IS_COMPLETED: u8 = 1;
const HAS_WIDE_MAP: u8 = 2;

impl Transform {
    /// Bytes from the start of the file up to the end of the first `data` bytes of records, in an
    /// unscavenged chunk. If the log ends there, a copy needs so many bytes (disk-format §3.7).
    /// Returns `None` for an unknown transform.
    #[must_use]
    pub fn prefix_length(self, data: u64) -> Option<u64> {
        HEADER_LENGTH.checked_add(self.stored(data)?)
    }
}

/// Bytes of an active chunk's file from its creation on (disk-format §3.7). Returns `None` for an
/// unknown transform.
///
/// Files of format version 2, and files that an older server truncated, have no padding: header,
/// data, footer (disk-format §2.4).
#[must_use]
pub fn full_length(chunk_size: ChunkSize, transform: Transform) -> Option<u64> {
    let data_end = transform.prefix_length(chunk_size.get())?;
    let end = data_end.checked_add(FOOTER_LENGTH)?;
    end.checked_next_multiple_of(ALIGNMENT)
}

/// Bytes at the start of a completed chunk that its MD5 covers: all but the MD5 (disk-format §3.5).
/// Returns `None` for a file too short to hold an MD5.
#[must_use]
pub fn hashed_length(length: u64) -> Option<u64> {
    length.checked_sub(16)
}

/// The form of a position map's entries (disk-format §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapEntries {
    /// 8 bytes, as servers before 3.0 wrote them.
    Narrow,
    /// 12 bytes.
    Wide,
}

impl MapEntries {
    /// Bytes of one entry.
    #[must_use]
    pub const fn length(self) -> u64 {
        match self {
            Self::Narrow => 8,
            Self::Wide => 12,
        }
    }
}

/// The last 128 bytes of a completed chunk (disk-format §3.5). Numbers are little-endian.
///
/// ```text
/// |  at | bytes | field                                                       |
/// |   0 |     1 | flags: 1 completed, 2 wide position map                     |
/// |   1 |     4 | physical size                                               |
/// |   5 |     8 | logical size (4 bytes if the position map is narrow)        |
/// |  13 |     4 | position map size (at 9 if the position map is narrow)      |
/// |  17 |    95 | zeros                                                       |
/// | 112 |    16 | MD5 of the file up to here                                  |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFooter {
    /// The form of the position map's entries.
    pub map_entries: MapEntries,
    /// Bytes of records, before any transform.
    pub physical: u64,
    /// Bytes of log that the records stand for. It is above `physical` only after a scavenge.
    pub logical: u64,
    /// Bytes of the position map: 0 unless the chunk was scavenged.
    pub map_length: u64,
    /// MD5 of every byte of the file before it.
    pub md5: Md5Hash,
}

impl ChunkFooter {
    /// Reads a footer from the last 128 bytes of a file. Returns `None` if they do not say
    /// "completed", as in every active chunk.
    ///
    /// # Errors
    /// Fewer bytes, or numbers that contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        Ok(Self::fields(bytes)?)
    }

    pub(super) fn fields(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(bytes) = bytes_at::<128>(bytes, 0) else {
            let found = format!("{} bytes", bytes.len());
            return Err(Malformed::new(STRUCTURE, 0, "128 bytes", found));
        };
        let [flags] = bytes_at(&bytes, 0).unwrap_or_default();
        if flags & IS_COMPLETED == 0 {
            return Ok(None);
        }
        let number = |at: usize| i64::from(i32_at(&bytes, at).unwrap_or_default());

        let (map_entries, logical, map_at) = if flags & HAS_WIDE_MAP == 0 {
            (MapEntries::Narrow, number(5), 9)
        } else {
            let wide = i64_at(&bytes, 5).unwrap_or_default();
            (MapEntries::Wide, wide, 13)
        };
        let physical = length(1, number(1))?;
        let logical = length(5, logical)?;
        let map_length = length(map_at, number(map_at))?;

        if logical < physical {
            let expected = "a logical size not below the physical size";
            return Err(Malformed::new(STRUCTURE, 5, expected, number(5)));
        }
        if !map_length.is_multiple_of(map_entries.length()) {
            let expected = "a whole number of position map entries";
            let at = map_at as u64;
            return Err(Malformed::new(STRUCTURE, at, expected, number(map_at)));
        }
        Ok(Some(Self {
            map_entries,
            physical,
            logical,
            map_length,
            md5: Md5Hash(bytes_at(&bytes, 112).unwrap_or_default()),
        }))
    }

    /// The 128 bytes. Returns `None` if a size does not fit its field.
    #[must_use]
    pub fn encode(&self) -> Option<[u8; 128]> {
        let physical = i32::try_from(self.physical).ok()?.to_le_bytes();
        let map_length = i32::try_from(self.map_length).ok()?.to_le_bytes();
        let (flags, logical) = match self.map_entries {
            MapEntries::Wide => {
                let logical = i64::try_from(self.logical).ok()?;
                (IS_COMPLETED | HAS_WIDE_MAP, logical.to_le_bytes().to_vec())
            }
            MapEntries::Narrow => {
                let logical = i32::try_from(self.logical).ok()?;
                (IS_COMPLETED, logical.to_le_bytes().to_vec())
            }
        };
        let fields = [flags]
            .into_iter()
            .chain(physical)
            .chain(logical)
            .chain(map_length);

        let mut bytes = [0; 128];
        let (start, md5) = bytes.split_last_chunk_mut::<16>()?;
        *md5 = self.md5.0;
        for (to, from) in start.iter_mut().zip(fields) {
            *to = from;
        }
        Some(bytes)
    }

    /// Number of entries in the position map, which is the number of records in a scavenged chunk.
    #[must_use]
    pub const fn map_count(&self) -> u64 {
        self.map_length / self.map_entries.length()
    }

    /// The length of the completed file (disk-format §3.5). Returns `None` if the layout of the
    /// transform is not known.
    ///
    /// Files of format version 2 may have been padded as well: [`inspect`](super::inspect) takes
    /// both.
    #[must_use]
    pub fn file_length(&self, header: &ChunkHeader) -> Option<u64> {
        let data = self.physical.checked_add(self.map_length)?;
        let data_end = header.transform.prefix_length(data)?;
        let length = data_end.checked_add(FOOTER_LENGTH)?;

        if header.is_aligned() {
            length.checked_next_multiple_of(ALIGNMENT)
        } else {
            Some(length)
        }
    }

    /// Checks what must hold between header, footer and the length of the file.
    pub(super) fn agrees(&self, header: &ChunkHeader, length: u64) -> Result<(), Malformed> {
        self.sizes_agree(header, length)?;

        let expected = match header.transform {
            Transform::Identity => self.file_length(header),
            // The place of the map is known only from the server's source. The MD5 decides.
            Transform::AesGcm | Transform::Other(_) => None,
        };
        let Some(exact) = expected else {
            return Ok(());
        };
        let may_be_padded = !header.is_aligned();
        let is_padded = exact.checked_next_multiple_of(ALIGNMENT) == Some(length);
        if exact == length || (may_be_padded && is_padded) {
            return Ok(());
        }
        let expected = format!("a length of {exact} bytes, as header and footer give it");
        Err(Malformed::new("chunk file", length, expected, length))
    }

    fn sizes_agree(&self, header: &ChunkHeader, length: u64) -> Result<(), Malformed> {
        let footer_at = length.saturating_sub(FOOTER_LENGTH);
        let wrong = |at: u64, expected: String, found: u64| {
            Err(Malformed::new(STRUCTURE, footer_at + at, expected, found))
        };

        let capacity = header.capacity();
        if self.logical > capacity {
            let expected = format!("a logical size of at most {capacity} bytes");
            return wrong(5, expected, self.logical);
        }
        if header.scavenged {
            return Ok(());
        }
        if self.logical != self.physical {
            let expected = format!(
                "the physical size, {}, as the chunk is not scavenged",
                self.physical
            );
            return wrong(5, expected, self.logical);
        }
        if self.map_length != 0 {
            let expected = "no position map, as the chunk is not scavenged".to_owned();
            return wrong(13, expected, self.map_length);
        }
        Ok(())
    }
}

fn length(at: usize, field: i64) -> Result<u64, Malformed> {
    u64::try_from(field).map_err(|_| Malformed::new(STRUCTURE, at as u64, "a length", field))
}
