//! Chunk files: header, footer, lengths and position map (disk-format §3).

use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::field::{bytes_at, i32_at, i64_at};
use super::{
    ChunkNumber, ChunkSize, ChunkVersion, LogPosition, Malformed, Md5Hash, ReadAt, Result,
};

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

    /// Bytes that `data` bytes of records take in the file behind the header; none for an unknown
    /// transform.
    fn stored(self, data: u64) -> Option<u64> {
        /// Encryption header and AES header.
        const HEADERS: u64 = 64;
        /// A block of the file, and the data in it.
        const BLOCK: u64 = 512;
        const BLOCK_DATA: u64 = 496;
        match self {
            Self::Identity => Some(data),
            Self::AesGcm => data
                .div_ceil(BLOCK_DATA)
                .checked_mul(BLOCK)?
                .checked_add(HEADERS),
            Self::Other(_) => None,
        }
    }

    /// Bytes from the start of the file that hold the first `data` bytes of an unscavenged chunk's
    /// records: what must be copied of an active chunk whose W lies there (disk-format §3.7). None
    /// for an unknown transform.
    #[must_use]
    pub fn prefix_length(self, data: u64) -> Option<u64> {
        HEADER_LENGTH.checked_add(self.stored(data)?)
    }
}

/// Bytes of an active chunk's file from its creation on (disk-format §3.7); none for an unknown
/// transform.
///
/// Format version 2, and a truncation by a server up to 24.2, made files without the padding:
/// header, data, footer.
#[must_use]
pub fn full_length(chunk_size: ChunkSize, transform: Transform) -> Option<u64> {
    transform
        .prefix_length(chunk_size.get())?
        .checked_add(FOOTER_LENGTH)?
        .checked_next_multiple_of(ALIGNMENT)
}

/// Bytes at the start of a completed chunk that its MD5 covers: all but the MD5 (disk-format §3.5).
/// None for a file too short to have one.
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
    /// Fewer bytes, another file type, a format newer than version 4, or numbers that no server
    /// writes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Ok(Self::fields(bytes)?)
    }

    fn fields(bytes: &[u8]) -> Result<Self, Malformed> {
        let wrong = |offset, expected: &str, found: i64| {
            Malformed::new("chunk header", offset, expected, found)
        };
        let short = || {
            Malformed::new(
                "chunk header",
                0,
                "128 bytes",
                format!("{} bytes", bytes.len()),
            )
        };
        let bytes: [u8; 128] = bytes_at(bytes, 0).ok_or_else(short)?;
        let byte = |at| bytes_at(&bytes, at).map_or(0, |[byte]| byte);
        let number = |at| i32_at(&bytes, at).unwrap_or_default();

        if byte(0) != FILE_TYPE {
            return Err(wrong(0, "2, a chunk's file type", byte(0).into()));
        }
        let min_compatible = byte(1);
        let version = if byte(34) == 0 {
            min_compatible
        } else {
            byte(34)
        };
        if !(2..=NEWEST_VERSION).contains(&min_compatible) {
            return Err(wrong(
                1,
                "a format version from 2 to 4",
                min_compatible.into(),
            ));
        }
        if version < min_compatible {
            return Err(wrong(
                34,
                "a format version not below the one at byte 1",
                version.into(),
            ));
        }
        let chunk_size = u32::try_from(number(2)).ok().and_then(ChunkSize::new);
        let start =
            u32::try_from(number(6)).map_err(|_| wrong(6, "a chunk number", number(6).into()))?;
        let end = u32::try_from(number(10)).ok().filter(|end| *end >= start);
        Ok(Self {
            min_compatible,
            version,
            chunk_size: chunk_size
                .ok_or_else(|| wrong(2, "a chunk size above 0", number(2).into()))?,
            start: ChunkNumber(start),
            end: ChunkNumber(end.ok_or_else(|| {
                wrong(10, "a chunk number not below the first", number(10).into())
            })?),
            scavenged: number(14) > 0,
            id: Uuid::from_bytes_le(bytes_at(&bytes, 18).unwrap_or_default()),
            transform: if version >= TRANSFORMED {
                Transform::of(byte(35))
            } else {
                Transform::Identity
            },
        })
    }

    /// The 128 bytes as a server of this format version writes them.
    #[must_use]
    pub fn encode(&self) -> [u8; 128] {
        let (version, transform) = if self.version >= TRANSFORMED {
            (self.version, self.transform.byte())
        } else {
            (0, 0)
        };
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

    /// The byte of the file at which the log position `position` lies; the end of the range counts
    /// as inside.
    ///
    /// None outside the range, in a scavenged chunk (only its position map knows) and where the
    /// data is transformed.
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
            Transform::AesGcm => {
                Err(
                    Malformed::new("chunk header", 35, "data that is not encrypted", "AES-GCM")
                        .into(),
                )
            }
            Transform::Other(other) => {
                Err(
                    Malformed::new("chunk header", 35, "data that is not transformed", other)
                        .into(),
                )
            }
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
    /// Reads a footer from the last 128 bytes of a file; none where they do not say "completed", as
    /// in every active chunk.
    ///
    /// # Errors
    /// Fewer bytes, or numbers that contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        Ok(Self::fields(bytes)?)
    }

    fn fields(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let short = || {
            Malformed::new(
                "chunk footer",
                0,
                "128 bytes",
                format!("{} bytes", bytes.len()),
            )
        };
        let bytes: [u8; 128] = bytes_at(bytes, 0).ok_or_else(short)?;
        let [flags] = bytes_at(&bytes, 0).unwrap_or_default();
        if flags & 1 == 0 {
            return Ok(None);
        }
        let wrong = |offset, expected: &str, found: i64| {
            Malformed::new("chunk footer", offset, expected, found)
        };
        let wide = flags & 2 != 0;
        let number = |at: usize| i64::from(i32_at(&bytes, at).unwrap_or_default());
        let length = |at: usize, value: i64| {
            u64::try_from(value).map_err(|_| wrong(at as u64, "a length", value))
        };

        let physical = length(1, number(1))?;
        let (logical, map_at) = if wide {
            (i64_at(&bytes, 5).unwrap_or_default(), 13)
        } else {
            (number(5), 9)
        };
        let logical = length(5, logical)?;
        let map_length = length(map_at, number(map_at))?;
        let map_entries = if wide {
            MapEntries::Wide
        } else {
            MapEntries::Narrow
        };
        if logical < physical {
            return Err(wrong(
                5,
                "a logical size not below the physical size",
                number(5),
            ));
        }
        if !map_length.is_multiple_of(map_entries.length()) {
            return Err(wrong(
                map_at as u64,
                "a whole number of position map entries",
                number(map_at),
            ));
        }
        let md5 = Md5Hash(bytes_at(&bytes, 112).unwrap_or_default());
        Ok(Some(Self {
            map_entries,
            physical,
            logical,
            map_length,
            md5,
        }))
    }

    /// The 128 bytes; none where a size does not fit its field.
    #[must_use]
    pub fn encode(&self) -> Option<[u8; 128]> {
        let physical = i32::try_from(self.physical).ok()?.to_le_bytes();
        let map_length = i32::try_from(self.map_length).ok()?.to_le_bytes();
        let (flags, logical) = match self.map_entries {
            MapEntries::Wide => (
                0b11,
                i64::try_from(self.logical).ok()?.to_le_bytes().to_vec(),
            ),
            MapEntries::Narrow => (
                0b01,
                i32::try_from(self.logical).ok()?.to_le_bytes().to_vec(),
            ),
        };
        let mut bytes = [0; 128];
        let (fields, md5) = bytes.split_last_chunk_mut::<16>()?;
        *md5 = self.md5.0;
        for (to, from) in fields.iter_mut().zip(
            [flags]
                .into_iter()
                .chain(physical)
                .chain(logical)
                .chain(map_length),
        ) {
            *to = from;
        }
        Some(bytes)
    }

    /// Entries of the position map, which is the number of records in a scavenged chunk.
    #[must_use]
    pub const fn map_count(&self) -> u64 {
        self.map_length / self.map_entries.length()
    }

    /// The length of the completed file (disk-format §3.5); none for a transform whose layout is
    /// not known.
    ///
    /// Format version 2 may have been padded as well: [`inspect`] takes both.
    #[must_use]
    pub fn file_length(&self, header: &Header) -> Option<u64> {
        let length = header
            .transform
            .prefix_length(self.physical.checked_add(self.map_length)?)?
            .checked_add(FOOTER_LENGTH)?;
        if header.version >= ALIGNED {
            length.checked_next_multiple_of(ALIGNMENT)
        } else {
            Some(length)
        }
    }

    /// What must hold between header, footer and file length.
    fn agrees(&self, header: &Header, length: u64) -> Result<(), Malformed> {
        let footer_at = length.saturating_sub(FOOTER_LENGTH);
        let wrong = |at: u64, expected: String, found: u64| {
            Malformed::new("chunk footer", footer_at + at, expected, found)
        };
        let range = header.end_position().since(header.start_position());
        if self.logical > range {
            return Err(wrong(
                5,
                format!("a logical size of at most {range} bytes"),
                self.logical,
            ));
        }
        if !header.scavenged && self.logical != self.physical {
            return Err(wrong(
                5,
                format!(
                    "the physical size, {}, as the chunk is not scavenged",
                    self.physical
                ),
                self.logical,
            ));
        }
        if !header.scavenged && self.map_length != 0 {
            return Err(wrong(
                13,
                "no position map, as the chunk is not scavenged".to_owned(),
                self.map_length,
            ));
        }
        let expected = match header.transform {
            Transform::Identity => self.file_length(header),
            // Where exactly the transform puts the map was read, not seen; the MD5 decides.
            Transform::AesGcm | Transform::Other(_) => None,
        };
        let padded_as_well = |exact: u64| {
            header.version < ALIGNED && exact.checked_next_multiple_of(ALIGNMENT) == Some(length)
        };
        match expected {
            Some(exact) if exact != length && !padded_as_well(exact) => Err(Malformed::new(
                "chunk file",
                length,
                format!("a length of {exact} bytes, as header and footer give it"),
                length,
            )),
            _ => Ok(()),
        }
    }
}

/// What a chunk file is, as its last 128 bytes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Whole and immutable.
    Completed(Footer),
    /// Records may still come. Also a chunk of 25.0 and later in the moment between its footer and
    /// the cut to its length (disk-format §3.7).
    Ongoing,
    /// It says "completed", but footer, header and length contradict each other. As the file of
    /// chunk(W) it is good: what lies beyond W means nothing (disk-format §3.7), and the end of a
    /// short copy can look like anything.
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
/// A file below 256 bytes, a bad header, or what the storage reports. A bad footer is a [`State`],
/// as only the caller knows whether it matters.
pub fn inspect(source: &dyn ReadAt) -> Result<ChunkFile> {
    let length = source.size();
    let Some(footer_at) = length
        .checked_sub(FOOTER_LENGTH)
        .filter(|at| *at >= HEADER_LENGTH)
    else {
        return Err(Malformed::new(
            "chunk file",
            length,
            "at least 256 bytes",
            format!("{length} bytes"),
        )
        .into());
    };
    let mut bytes = [0; 128];
    source.read_exact_at(0, &mut bytes)?;
    let header = Header::parse(&bytes)?;
    source.read_exact_at(footer_at, &mut bytes)?;
    let state = match Footer::fields(&bytes) {
        Ok(None) => State::Ongoing,
        Ok(Some(footer)) => footer
            .agrees(&header, length)
            .map_or_else(State::Contradictory, |()| State::Completed(footer)),
        Err(malformed) => State::Contradictory(Malformed {
            offset: footer_at + malformed.offset,
            ..malformed
        }),
    };
    Ok(ChunkFile {
        header,
        length,
        state,
    })
}

impl ChunkFile {
    /// The footer of a chunk that has to be completed: every one before chunk(W) (disk-format
    /// §6.6).
    ///
    /// # Errors
    /// The chunk is not completed, or its footer contradicts the rest.
    pub fn completed(&self) -> Result<&Footer> {
        match &self.state {
            State::Completed(footer) => Ok(footer),
            State::Contradictory(malformed) => Err(malformed.clone().into()),
            State::Ongoing => {
                let footer_at = self.length.saturating_sub(FOOTER_LENGTH);
                Err(Malformed::new(
                    "chunk footer",
                    footer_at,
                    "a completed chunk",
                    "one that is not",
                )
                .into())
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

    /// The bytes of the file that hold the records before W, in the chunk that W lies in; the
    /// footer, if there is one, means nothing then.
    ///
    /// # Errors
    /// W outside the range, a scavenged chunk (W is unusable then, disk-format §7), transformed
    /// data, or a file that ends before W.
    pub fn data_before(&self, writer: LogPosition) -> Result<Range<u64>> {
        self.header.readable()?;
        let Some(end) = self.header.offset_of(writer) else {
            let (start, end) = (self.header.start_position(), self.header.end_position());
            let expected = format!("an unscavenged chunk that covers the position {writer}");
            let found = format!(
                "{} from {start} to {end}",
                if self.header.scavenged {
                    "a scavenged one"
                } else {
                    "one"
                }
            );
            return Err(Malformed::new("chunk header", 6, expected, found).into());
        };
        if end > self.length {
            return Err(Malformed::new(
                "chunk file",
                self.length,
                format!("{end} bytes, to hold the log up to {writer}"),
                self.length,
            )
            .into());
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: u32 = 256 * 1024 * 1024;

    fn header() -> Header {
        Header {
            min_compatible: 3,
            version: 4,
            chunk_size: ChunkSize::new(100_000).unwrap(),
            start: ChunkNumber(2),
            end: ChunkNumber(2),
            scavenged: false,
            id: Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            transform: Transform::Identity,
        }
    }

    fn footer(physical: u64) -> Footer {
        Footer {
            map_entries: MapEntries::Wide,
            physical,
            logical: physical,
            map_length: 0,
            md5: Md5Hash([7; 16]),
        }
    }

    fn file(header: &Header, footer: &Footer, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        let footer_at = bytes.len() - 128;
        bytes[..128].copy_from_slice(&header.encode());
        bytes[footer_at..].copy_from_slice(&footer.encode().unwrap());
        bytes
    }

    #[test]
    fn lengths_are_those_of_the_server() {
        let size = ChunkSize::new(DEFAULT).unwrap();
        assert_eq!(full_length(size, Transform::Identity), Some(268_439_552));
        assert_eq!(full_length(size, Transform::AesGcm), Some(277_098_496));
        assert_eq!(full_length(size, Transform::Other(9)), None);
        assert_eq!(Transform::Identity.prefix_length(588), Some(716));
        assert_eq!(Transform::AesGcm.prefix_length(497), Some(192 + 2 * 512));
        assert_eq!(hashed_length(4096), Some(4080));
        assert_eq!(hashed_length(15), None);
    }

    #[test]
    fn a_header_is_written_as_its_version_does() {
        let bytes = header().encode();
        assert_eq!(
            bytes[..14],
            [2, 3, 0xa0, 0x86, 1, 0, 2, 0, 0, 0, 2, 0, 0, 0]
        );
        assert_eq!(
            bytes[18..36],
            [
                0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
                0xee, 0xff, 4, 0
            ]
        );
        let old = Header {
            version: 3,
            ..header()
        };
        assert_eq!(old.encode()[34..], [0; 94]);
        assert_eq!(Header::parse(&old.encode()).unwrap(), old);
    }

    #[test]
    fn a_header_no_server_writes_is_refused_where_it_is_wrong() {
        let cases: [(usize, u8, &str); 7] = [
            (
                0,
                1,
                "chunk header at byte 0: expected 2, a chunk's file type, found 1",
            ),
            (
                1,
                5,
                "chunk header at byte 1: expected a format version from 2 to 4, found 5",
            ),
            (
                1,
                1,
                "chunk header at byte 1: expected a format version from 2 to 4, found 1",
            ),
            (
                34,
                2,
                "chunk header at byte 34: expected a format version not below the one at byte 1, found 2",
            ),
            (
                5,
                0x80,
                "chunk header at byte 2: expected a chunk size above 0, found -2147383648",
            ),
            (
                9,
                0x80,
                "chunk header at byte 6: expected a chunk number, found -2147483646",
            ),
            (
                10,
                1,
                "chunk header at byte 10: expected a chunk number not below the first, found 1",
            ),
        ];
        for (at, byte, message) in cases {
            let mut bytes = header().encode();
            bytes[at] = byte;
            assert_eq!(Header::parse(&bytes).unwrap_err().to_string(), message);
        }
        assert!(Header::parse(&header().encode()[..127]).is_err());
    }

    #[test]
    fn the_old_footer_has_narrow_sizes() {
        let narrow = Footer {
            map_entries: MapEntries::Narrow,
            physical: 10,
            logical: 20,
            map_length: 16,
            md5: Md5Hash([1; 16]),
        };
        let bytes = narrow.encode().unwrap();
        assert_eq!(
            bytes[..17],
            [1, 10, 0, 0, 0, 20, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(Footer::parse(&bytes).unwrap(), Some(narrow));
        assert_eq!(narrow.map_count(), 2);
        assert_eq!(
            Footer {
                physical: 1 << 31,
                ..narrow
            }
            .encode(),
            None
        );
    }

    #[test]
    fn completed_only_where_header_footer_and_length_agree() {
        let sound = file(&header(), &footer(5000), 8192);
        let found = inspect(&sound).unwrap();
        assert_eq!(found.completed().unwrap(), &footer(5000));
        assert_eq!(found.completed_data().unwrap(), 128..5128);
        let identity = found.identity(ChunkVersion(1));
        assert_eq!(
            (identity.md5, identity.length, identity.version),
            (Some(Md5Hash([7; 16])), 8192, ChunkVersion(1))
        );

        let contradictions = [
            file(&header(), &footer(5000), 12288),
            file(&header(), &footer(100_001), 102_400),
            file(
                &header(),
                &Footer {
                    logical: 5001,
                    ..footer(5000)
                },
                8192,
            ),
            file(
                &header(),
                &Footer {
                    map_length: 12,
                    ..footer(5000)
                },
                8192,
            ),
        ];
        for bytes in contradictions {
            let found = inspect(&bytes).unwrap();
            assert!(matches!(found.state, State::Contradictory(_)), "{found:?}");
            assert!(found.completed().is_err());
            assert_eq!(found.identity(ChunkVersion(0)).md5, None);
            assert!(
                found
                    .data_before(header().start_position().checked_add(100).unwrap())
                    .is_ok(),
                "as chunk(W) it is good"
            );
        }
    }

    #[test]
    fn version_2_is_not_padded_or_padded_as_a_whole() {
        let old = Header {
            min_compatible: 2,
            version: 2,
            ..header()
        };
        assert!(
            inspect(&file(&old, &footer(5000), 5256))
                .unwrap()
                .completed()
                .is_ok()
        );
        assert!(
            inspect(&file(&old, &footer(5000), 8192))
                .unwrap()
                .completed()
                .is_ok()
        );
        assert!(
            inspect(&file(&old, &footer(5000), 12288))
                .unwrap()
                .completed()
                .is_err()
        );
        assert!(
            inspect(&file(&header(), &footer(5000), 5256))
                .unwrap()
                .completed()
                .is_err()
        );
    }

    #[test]
    fn a_footer_in_the_middle_of_a_full_length_file_is_an_active_chunk() {
        let mut bytes = file(&header(), &footer(5000), 8192);
        bytes.resize(
            usize::try_from(full_length(header().chunk_size, Transform::Identity).unwrap())
                .unwrap(),
            0,
        );
        let found = inspect(&bytes).unwrap();
        assert_eq!(found.state, State::Ongoing);
        let message = found.completed().unwrap_err().to_string();
        assert_eq!(
            message,
            "chunk footer at byte 102272: expected a completed chunk, found one that is not"
        );
    }

    #[test]
    fn the_data_before_w_is_in_the_chunk_that_w_is_in() {
        let found = inspect(&file(&header(), &footer(5000), 8192)).unwrap();
        let at = |position| LogPosition::new(position).unwrap();
        assert_eq!(found.data_before(at(200_000)).unwrap(), 128..128);
        assert_eq!(found.data_before(at(200_588)).unwrap(), 128..716);
        assert!(found.data_before(at(199_999)).is_err());
        assert!(
            found.data_before(at(220_000)).is_err(),
            "the file ends before"
        );
        let scavenged = inspect(&file(
            &Header {
                scavenged: true,
                ..header()
            },
            &footer(5000),
            8192,
        ))
        .unwrap();
        assert!(scavenged.data_before(at(200_588)).is_err());
        let encrypted = inspect(&file(
            &Header {
                transform: Transform::AesGcm,
                ..header()
            },
            &footer(5000),
            8192,
        ))
        .unwrap();
        assert!(encrypted.completed().is_ok(), "can be copied and hashed");
        assert!(encrypted.completed_data().is_err());
        assert!(encrypted.data_before(at(200_588)).is_err());
    }

    prop_compose! {
        fn any_header()(
            min_compatible in 2_u8..=4,
            newer: bool,
            chunk_size in 1_u32..=i32::MAX.cast_unsigned(),
            start in 0_u32..=i32::MAX.cast_unsigned(),
            chunks in 0_u32..5,
            scavenged: bool,
            id: u128,
            transform: u8,
        ) -> Header {
            let version = if newer { 4 } else { min_compatible };
            Header {
                min_compatible,
                version,
                chunk_size: ChunkSize::new(chunk_size).unwrap(),
                start: ChunkNumber(start),
                end: ChunkNumber((start + chunks).min(i32::MAX.cast_unsigned())),
                scavenged,
                id: Uuid::from_u128(id),
                transform: if version == 4 { Transform::of(transform) } else { Transform::Identity },
            }
        }
    }

    proptest! {
        #[test]
        fn headers_read_back(header in any_header()) {
            prop_assert_eq!(Header::parse(&header.encode()).unwrap(), header);
            prop_assert!(header.start_position() < header.end_position());
        }

        #[test]
        fn footers_read_back(physical in 0_u64..1 << 31, more in 0_u64..1 << 40, entries in 0_u64..1 << 27, md5: [u8; 16], wide: bool) {
            let map_entries = if wide { MapEntries::Wide } else { MapEntries::Narrow };
            let footer = Footer { map_entries, physical, logical: physical + more, map_length: entries * map_entries.length(), md5: Md5Hash(md5) };
            match footer.encode() {
                Some(bytes) => prop_assert_eq!(Footer::parse(&bytes).unwrap(), Some(footer)),
                None => prop_assert!(!wide && footer.logical > 0x7fff_ffff),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), valid: bool) {
            if let (true, Some(start)) = (valid, bytes.get_mut(..128)) {
                start.copy_from_slice(&header().encode());
            }
            let _ = Footer::parse(&bytes);
            if let Ok(found) = inspect(&bytes) {
                let _ = (found.completed_data(), found.data_before(found.header.start_position()), found.identity(ChunkVersion(0)));
            }
        }
    }
}
