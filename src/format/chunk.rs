//! Chunk files: header, footer, lengths and position map (disk-format §3).

use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::field::{bytes_at, i32_at, i64_at};
use super::{ChunkNumber, ChunkSize, ChunkVersion, LogPosition, Malformed, Md5Hash, ReadAt, Result};

/// Bytes of a header; the data follows.
pub const HEADER_LENGTH: u64 = 128;
/// Bytes of a footer; the last of a completed chunk.
pub const FOOTER_LENGTH: u64 = 128;

/// Files are padded to a multiple of this since format version 3.
const ALIGNMENT: u64 = 4096;
/// The first byte of every chunk.
const FILE_TYPE: u8 = 2;
/// The newest format that any server to 26.1 reads.
const NEWEST_VERSION: u8 = 4;
/// The first format with a padded length.
const ALIGNED: u8 = 3;
/// The first format with a transform, and with its own version byte.
const TRANSFORMED: u8 = 4;

/// How the bytes behind the header were changed before they were written (disk-format §3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// Not at all.
    Identity,
    /// Encrypted; can be hashed and copied, but its records cannot be read.
    AesGcm,
    /// By something this program does not know.
    Other(u8),
}

impl Transform {
    const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Identity,
            1 => Self::AesGcm,
            other => Self::Other(other),
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Identity => 0,
            Self::AesGcm => 1,
            Self::Other(other) => other,
        }
    }

    /// Bytes that `data` bytes of records take in the file behind the header; none for an unknown transform.
    fn stored(self, data: u64) -> Option<u64> {
        /// Encryption header and AES header.
        const HEADERS: u64 = 64;
        /// A block of the file, and the data in it.
        const BLOCK: u64 = 512;
        const BLOCK_DATA: u64 = 496;
        match self {
            Self::Identity => Some(data),
            Self::AesGcm => data.div_ceil(BLOCK_DATA).checked_mul(BLOCK)?.checked_add(HEADERS),
            Self::Other(_) => None,
        }
    }

    /// Bytes from the start of the file that hold the first `data` bytes of an unscavenged chunk's records: what must be copied of an
    /// active chunk whose W lies there (disk-format §3.7). None for an unknown transform.
    #[must_use]
    pub fn prefix_length(self, data: u64) -> Option<u64> {
        HEADER_LENGTH.checked_add(self.stored(data)?)
    }
}

/// Bytes of an active chunk's file from its creation on (disk-format §3.7); none for an unknown transform.
///
/// Format version 2, and a truncation by a server up to 24.2, made files without the padding: header, data, footer.
#[must_use]
pub fn full_length(chunk_size: ChunkSize, transform: Transform) -> Option<u64> {
    transform.prefix_length(chunk_size.get())?.checked_add(FOOTER_LENGTH)?.checked_next_multiple_of(ALIGNMENT)
}

/// Bytes at the start of a completed chunk that its MD5 covers: all but the MD5 (disk-format §3.5). None for a file too short to have one.
#[must_use]
pub fn hashed_length(length: u64) -> Option<u64> {
    length.checked_sub(16)
}

/// The first 128 bytes of a chunk (disk-format §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The least format version a server must know to read the file; up to 24.2 simply the version.
    pub min_compatible: u8,
    /// The format version: 2, 3 or 4.
    pub version: u8,
    /// Bytes of log for each chunk number.
    pub chunk_size: ChunkSize,
    /// The first chunk in the file.
    pub start: ChunkNumber,
    /// The last chunk in the file; beyond `start` only in merged files.
    pub end: ChunkNumber,
    /// Rewritten by a scavenge: records are compacted and a position map follows them.
    pub scavenged: bool,
    /// Random for each writing of a file; equal on the members of a cluster only since 24.6.
    pub id: Uuid,
    /// How the data was changed.
    pub transform: Transform,
}

impl Header {
    /// Reads a header from the first 128 bytes of a file.
    ///
    /// # Errors
    /// Fewer bytes, another file type, a format newer than version 4, or numbers that no server writes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Ok(Self::fields(bytes)?)
    }

    fn fields(bytes: &[u8]) -> Result<Self, Malformed> {
        let wrong = |offset, expected: &str, found: i64| Malformed::new("chunk header", offset, expected, found);
        let short = || Malformed::new("chunk header", 0, "128 bytes", format!("{} bytes", bytes.len()));
        let bytes: [u8; 128] = bytes_at(bytes, 0).ok_or_else(short)?;
        let byte = |at| bytes_at(&bytes, at).map_or(0, |[byte]| byte);
        let number = |at| i32_at(&bytes, at).unwrap_or_default();

        if byte(0) != FILE_TYPE {
            return Err(wrong(0, "2, a chunk's file type", byte(0).into()));
        }
        let min_compatible = byte(1);
        let version = if byte(34) == 0 { min_compatible } else { byte(34) };
        if !(2..=NEWEST_VERSION).contains(&min_compatible) {
            return Err(wrong(1, "a format version from 2 to 4", min_compatible.into()));
        }
        if version < min_compatible {
            return Err(wrong(34, "a format version not below the one at byte 1", version.into()));
        }
        let chunk_size = u32::try_from(number(2)).ok().and_then(ChunkSize::new);
        let start = u32::try_from(number(6)).map_err(|_| wrong(6, "a chunk number", number(6).into()))?;
        let end = u32::try_from(number(10)).ok().filter(|end| *end >= start);
        Ok(Self {
            min_compatible,
            version,
            chunk_size: chunk_size.ok_or_else(|| wrong(2, "a chunk size above 0", number(2).into()))?,
            start: ChunkNumber(start),
            end: ChunkNumber(end.ok_or_else(|| wrong(10, "a chunk number not below the first", number(10).into()))?),
            scavenged: number(14) > 0,
            id: Uuid::from_bytes_le(bytes_at(&bytes, 18).unwrap_or_default()),
            transform: if version >= TRANSFORMED { Transform::of(byte(35)) } else { Transform::Identity },
        })
    }

    /// The 128 bytes as a server of this format version writes them.
    #[must_use]
    pub fn encode(&self) -> [u8; 128] {
        let (version, transform) = if self.version >= TRANSFORMED { (self.version, self.transform.byte()) } else { (0, 0) };
        let chunk_size = u32::try_from(self.chunk_size.get()).unwrap_or_default();
        let fields = [FILE_TYPE, self.min_compatible]
            .into_iter()
            .chain(chunk_size.to_le_bytes())
            .chain(self.start.0.to_le_bytes())
            .chain(self.end.0.to_le_bytes())
            .chain(u32::from(self.scavenged).to_le_bytes())
            .chain(self.id.to_bytes_le())
            .chain([version, transform]);
        let mut bytes = [0; 128];
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// Where the file's range of the log begins.
    #[must_use]
    pub fn start_position(&self) -> LogPosition {
        self.chunk_size.start_of(self.start)
    }

    /// Where the file's range of the log ends, exclusive.
    #[must_use]
    pub fn end_position(&self) -> LogPosition {
        self.chunk_size.end_of(self.end)
    }

    /// Is `position` in the file's range of the log?
    #[must_use]
    pub fn covers(&self, position: LogPosition) -> bool {
        (self.start_position()..self.end_position()).contains(&position)
    }

    /// The byte of the file at which the log position `position` lies; the end of the range counts as inside.
    ///
    /// None outside the range, in a scavenged chunk (only its position map knows) and where the data is transformed.
    #[must_use]
    pub fn offset_of(&self, position: LogPosition) -> Option<u64> {
        let inside = (self.start_position()..=self.end_position()).contains(&position);
        let plain = !self.scavenged && self.transform == Transform::Identity;
        (inside && plain).then(|| HEADER_LENGTH + position.since(self.start_position()))
    }

    /// Can its records be read?
    pub(super) fn readable(&self) -> Result<()> {
        match self.transform {
            Transform::Identity => Ok(()),
            Transform::AesGcm => Err(Malformed::new("chunk header", 35, "data that is not encrypted", "AES-GCM").into()),
            Transform::Other(other) => Err(Malformed::new("chunk header", 35, "data that is not transformed", other).into()),
        }
    }
}

/// The form of a position map's entries (disk-format §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapEntries {
    /// 8 bytes; before 3.0.
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

/// The last 128 bytes of a completed chunk (disk-format §3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// The form of the position map's entries.
    pub map_entries: MapEntries,
    /// Bytes of records, before any transform.
    pub physical: u64,
    /// Bytes of log that they stand for; more than `physical` only after a scavenge.
    pub logical: u64,
    /// Bytes of the position map; 0 unless scavenged.
    pub map_length: u64,
    /// MD5 of every byte of the file before it.
    pub md5: Md5Hash,
}

impl Footer {
    /// Reads a footer from the last 128 bytes of a file; none where they do not say "completed", as in every active chunk.
    ///
    /// # Errors
    /// Fewer bytes, or numbers that contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        Ok(Self::fields(bytes)?)
    }

    fn fields(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let short = || Malformed::new("chunk footer", 0, "128 bytes", format!("{} bytes", bytes.len()));
        let bytes: [u8; 128] = bytes_at(bytes, 0).ok_or_else(short)?;
        let [flags] = bytes_at(&bytes, 0).unwrap_or_default();
        if flags & 1 == 0 {
            return Ok(None);
        }
        let wrong = |offset, expected: &str, found: i64| Malformed::new("chunk footer", offset, expected, found);
        let wide = flags & 2 != 0;
        let number = |at: usize| i64::from(i32_at(&bytes, at).unwrap_or_default());
        let length = |at: usize, value: i64| u64::try_from(value).map_err(|_| wrong(at as u64, "a length", value));

        let physical = length(1, number(1))?;
        let (logical, map_at) = if wide { (i64_at(&bytes, 5).unwrap_or_default(), 13) } else { (number(5), 9) };
        let logical = length(5, logical)?;
        let map_length = length(map_at, number(map_at))?;
        let map_entries = if wide { MapEntries::Wide } else { MapEntries::Narrow };
        if logical < physical {
            return Err(wrong(5, "a logical size not below the physical size", number(5)));
        }
        if !map_length.is_multiple_of(map_entries.length()) {
            return Err(wrong(map_at as u64, "a whole number of position map entries", number(map_at)));
        }
        let md5 = Md5Hash(bytes_at(&bytes, 112).unwrap_or_default());
        Ok(Some(Self { map_entries, physical, logical, map_length, md5 }))
    }

    /// The 128 bytes; none where a size does not fit its field.
    #[must_use]
    pub fn encode(&self) -> Option<[u8; 128]> {
        let physical = i32::try_from(self.physical).ok()?.to_le_bytes();
        let map_length = i32::try_from(self.map_length).ok()?.to_le_bytes();
        let (flags, logical) = match self.map_entries {
            MapEntries::Wide => (0b11, i64::try_from(self.logical).ok()?.to_le_bytes().to_vec()),
            MapEntries::Narrow => (0b01, i32::try_from(self.logical).ok()?.to_le_bytes().to_vec()),
        };
        let mut bytes = [0; 128];
        let (fields, md5) = bytes.split_last_chunk_mut::<16>()?;
        *md5 = self.md5.0;
        for (to, from) in fields.iter_mut().zip([flags].into_iter().chain(physical).chain(logical).chain(map_length)) {
            *to = from;
        }
        Some(bytes)
    }

    /// Entries of the position map, which is the number of records in a scavenged chunk.
    #[must_use]
    pub const fn map_count(&self) -> u64 {
        self.map_length / self.map_entries.length()
    }

    /// The length of the completed file (disk-format §3.5); none for a transform whose layout is not known.
    ///
    /// Format version 2 may have been padded as well: [`ChunkFile::inspect`] takes both.
    #[must_use]
    pub fn file_length(&self, header: &Header) -> Option<u64> {
        let length = header.transform.prefix_length(self.physical.checked_add(self.map_length)?)?.checked_add(FOOTER_LENGTH)?;
        if header.version >= ALIGNED { length.checked_next_multiple_of(ALIGNMENT) } else { Some(length) }
    }

    /// What must hold between header, footer and file length.
    fn agrees(&self, header: &Header, length: u64) -> Result<(), Malformed> {
        let footer_at = length.saturating_sub(FOOTER_LENGTH);
        let wrong = |at: u64, expected: String, found: u64| Malformed::new("chunk footer", footer_at + at, expected, found);
        let range = header.end_position().since(header.start_position());
        if self.logical > range {
            return Err(wrong(5, format!("a logical size of at most {range} bytes"), self.logical));
        }
        if !header.scavenged && self.logical != self.physical {
            return Err(wrong(5, format!("the physical size, {}, as the chunk is not scavenged", self.physical), self.logical));
        }
        if !header.scavenged && self.map_length != 0 {
            return Err(wrong(13, "no position map, as the chunk is not scavenged".to_owned(), self.map_length));
        }
        let expected = match header.transform {
            Transform::Identity => self.file_length(header),
            // Where exactly the transform puts the map was read, not seen; the MD5 decides.
            Transform::AesGcm | Transform::Other(_) => None,
        };
        let padded_as_well = |exact: u64| header.version < ALIGNED && exact.checked_next_multiple_of(ALIGNMENT) == Some(length);
        match expected {
            Some(exact) if exact != length && !padded_as_well(exact) => {
                Err(Malformed::new("chunk file", length, format!("a length of {exact} bytes, as header and footer give it"), length))
            }
            _ => Ok(()),
        }
    }
}

/// What a chunk file is, as its last 128 bytes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Whole and immutable.
    Completed(Footer),
    /// Records may still come. Also a chunk of 25.0 and later in the moment between its footer and the cut to its length (disk-format §3.7).
    Ongoing,
    /// It says "completed", but footer, header and length contradict each other. As the file of chunk(W) it is good: what lies beyond W means
    /// nothing (disk-format §3.7), and the end of a short copy can look like anything.
    Contradictory(Malformed),
}

/// A chunk file, known from the 256 bytes of its header and footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFile {
    /// Its first 128 bytes.
    pub header: Header,
    /// Its length in bytes, when it was looked at.
    pub length: u64,
    /// What its last 128 bytes say.
    pub state: State,
}

/// What tells one writing of a chunk from another; never the name alone (disk-format §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The first chunk in the file.
    pub start: ChunkNumber,
    /// The last chunk in the file.
    pub end: ChunkNumber,
    /// The version in its name.
    pub version: ChunkVersion,
    /// Its length in bytes.
    pub length: u64,
    /// The header's id.
    pub chunk_id: Uuid,
    /// The footer's MD5; none while the chunk is not completed.
    pub md5: Option<Md5Hash>,
}

/// Reads header and footer of a chunk file: 256 bytes in all.
///
/// # Errors
/// A file below 256 bytes, a bad header, or what the storage reports. A bad footer is a [`State`], as only the caller knows whether it matters.
pub fn inspect(source: &dyn ReadAt) -> Result<ChunkFile> {
    let length = source.size();
    let Some(footer_at) = length.checked_sub(FOOTER_LENGTH).filter(|at| *at >= HEADER_LENGTH) else {
        return Err(Malformed::new("chunk file", length, "at least 256 bytes", format!("{length} bytes")).into());
    };
    let mut bytes = [0; 128];
    source.read_exact_at(0, &mut bytes)?;
    let header = Header::parse(&bytes)?;
    source.read_exact_at(footer_at, &mut bytes)?;
    let state = match Footer::fields(&bytes) {
        Ok(None) => State::Ongoing,
        Ok(Some(footer)) => footer.agrees(&header, length).map_or_else(State::Contradictory, |()| State::Completed(footer)),
        Err(malformed) => State::Contradictory(Malformed { offset: footer_at + malformed.offset, ..malformed }),
    };
    Ok(ChunkFile { header, length, state })
}

impl ChunkFile {
    /// The footer of a chunk that has to be completed: every one before chunk(W) (disk-format §6.6).
    ///
    /// # Errors
    /// The chunk is not completed, or its footer contradicts the rest.
    pub fn completed(&self) -> Result<&Footer> {
        match &self.state {
            State::Completed(footer) => Ok(footer),
            State::Contradictory(malformed) => Err(malformed.clone().into()),
            State::Ongoing => {
                let footer_at = self.length.saturating_sub(FOOTER_LENGTH);
                Err(Malformed::new("chunk footer", footer_at, "a completed chunk", "one that is not").into())
            }
        }
    }

    /// The footer, where the chunk is completed.
    #[must_use]
    pub const fn footer(&self) -> Option<&Footer> {
        match &self.state {
            State::Completed(footer) => Some(footer),
            State::Ongoing | State::Contradictory(_) => None,
        }
    }

    /// The bytes of the file that hold the records of a completed chunk.
    ///
    /// # Errors
    /// As [`Self::completed`], and where the data is transformed.
    pub fn completed_data(&self) -> Result<Range<u64>> {
        let physical = self.completed()?.physical;
        self.header.readable()?;
        Ok(HEADER_LENGTH..HEADER_LENGTH + physical)
    }

    /// The bytes of the file that hold the records before W, in the chunk that W lies in; the footer, if there is one, means nothing then.
    ///
    /// # Errors
    /// W outside the range, a scavenged chunk (W is unusable then, disk-format §7), transformed data, or a file that ends before W.
    pub fn data_before(&self, writer: LogPosition) -> Result<Range<u64>> {
        self.header.readable()?;
        let Some(end) = self.header.offset_of(writer) else {
            let (start, end) = (self.header.start_position(), self.header.end_position());
            let expected = format!("an unscavenged chunk that covers the position {writer}");
            let found = format!("{} from {start} to {end}", if self.header.scavenged { "a scavenged one" } else { "one" });
            return Err(Malformed::new("chunk header", 6, expected, found).into());
        };
        if end > self.length {
            return Err(
                Malformed::new("chunk file", self.length, format!("{end} bytes, to hold the log up to {writer}"), self.length).into()
            );
        }
        Ok(HEADER_LENGTH..end)
    }

    /// What tells this writing of the chunk from another; the version comes from the file's name.
    #[must_use]
    pub fn identity(&self, version: ChunkVersion) -> Identity {
        Identity {
            start: self.header.start,
            end: self.header.end,
            version,
            length: self.length,
            chunk_id: self.header.id,
            md5: self.footer().map(|footer| footer.md5),
        }
    }
}
