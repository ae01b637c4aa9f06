//! The first 128 bytes of a chunk file.

use uuid::Uuid;

use super::transform::Transform;
use crate::format::field::{bytes_at, i32_at};
use crate::format::{ChunkNumber, ChunkSize, LogPosition, Malformed, Result};

const STRUCTURE: &str = "chunk header";
/// Bytes of a header. The data follows.
pub const HEADER_LENGTH: u64 = 128;
/// The first byte of every chunk.
const FILE_TYPE: u8 = 2;
/// The formats that servers write and read; see [`ChunkHeader::version`].
const KNOWN_FORMATS: std::ops::RangeInclusive<u8> = 2..=4;
/// The first format with a padded length.
const ALIGNED: u8 = 3;
/// The first format with a transform, and with its own version byte.
const TRANSFORMED: u8 = 4;

/// The first 128 bytes of a chunk (disk-format §3.2). Numbers are little-endian.
///
/// ```text
/// | at | bytes | field                                                        |
/// |  0 |     1 | file type, 2                                                 |
/// |  1 |     1 | the least format version that a reader must know             |
/// |  2 |     4 | chunk size                                                   |
/// |  6 |     4 | first chunk number                                           |
/// | 10 |     4 | last chunk number                                            |
/// | 14 |     4 | scavenged: above 0                                           |
/// | 18 |    16 | id                                                           |
/// | 34 |     1 | format version; 0 says that byte 1 holds it                  |
/// | 35 |     1 | transform, from format 4 on                                  |
/// | 36 |    92 | reserved                                                     |
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The least format version that a server must know to read the file.
    pub min_compatible: u8,
    /// The format version: 2 (unaligned), 3 (aligned) or 4 (transformed).
    pub version: u8,
    /// Bytes of log for each chunk number.
    pub chunk_size: ChunkSize,
    /// The first chunk number in the file.
    pub start: ChunkNumber,
    /// The last chunk number in the file. It is beyond `start` only in merged files.
    pub end: ChunkNumber,
    /// Whether a scavenge wrote the file. Then its records have moved together, and a position map
    /// follows them.
    pub scavenged: bool,
    /// A random id, new each time the file is written. The members of a cluster share it only if
    /// the leader's header was replicated (disk-format §3.2).
    pub id: Uuid,
    /// How the data was changed before it was written.
    pub transform: Transform,
}

impl ChunkHeader {
    /// Reads a header from the first 128 bytes of a file.
    ///
    /// # Errors
    /// Fewer bytes, another file type, a format newer than version 4, or numbers that no server
    /// writes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Ok(Self::fields(bytes)?)
    }

    fn fields(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(bytes) = bytes_at::<128>(bytes, 0) else {
            let found = format!("{} bytes", bytes.len());
            return Err(Malformed::new(STRUCTURE, 0, "128 bytes", found));
        };
        let byte = |at| bytes_at(&bytes, at).map_or(0, |[byte]| byte);
        let number = |at| i32_at(&bytes, at).unwrap_or_default();

        if byte(0) != FILE_TYPE {
            return Err(wrong(0, "2, a chunk's file type", byte(0)));
        }

        let min_compatible = byte(1);
        let version = match byte(34) {
            0 => min_compatible,
            version => version,
        };
        if !KNOWN_FORMATS.contains(&min_compatible) {
            return Err(wrong(1, "a format version from 2 to 4", min_compatible));
        }
        if version < min_compatible {
            let expected = "a format version not below the one at byte 1";
            return Err(wrong(34, expected, version));
        }

        let Some(start) = chunk_number(number(6)) else {
            return Err(wrong(6, "a chunk number", number(6)));
        };
        let Some(chunk_size) = chunk_size(number(2)) else {
            return Err(wrong(2, "a chunk size above 0", number(2)));
        };
        let end = chunk_number(number(10));
        let Some(end) = end.filter(|end| *end >= start) else {
            let expected = "a chunk number not below the first";
            return Err(wrong(10, expected, number(10)));
        };

        let transform = if version >= TRANSFORMED {
            Transform::of(byte(35))
        } else {
            Transform::Identity
        };
        Ok(Self {
            min_compatible,
            version,
            chunk_size,
            start,
            end,
            scavenged: number(14) > 0,
            id: Uuid::from_bytes_le(bytes_at(&bytes, 18).unwrap_or_default()),
            transform,
        })
    }

    /// The 128 bytes as a server of this format version writes them.
    #[must_use]
    pub fn encode(&self) -> [u8; 128] {
        let (version, transform) = if self.has_transform_field() {
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

    /// Whether the file's length is padded to a multiple of 4096.
    pub(super) const fn is_aligned(&self) -> bool {
        self.version >= ALIGNED
    }

    /// Whether the format has a field for the transform.
    #[must_use]
    pub const fn has_transform_field(&self) -> bool {
        self.version >= TRANSFORMED
    }

    /// Whether only servers that know transforms read the file. Plain chunks of format 4 are marked
    /// as readable for older ones (disk-format §3.2).
    #[must_use]
    pub const fn needs_transforms(&self) -> bool {
        self.min_compatible >= TRANSFORMED
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

    /// Bytes of log in the file's range.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.end_position().since(self.start_position())
    }

    /// Whether `position` is in the file's range of the log.
    #[must_use]
    pub fn covers(&self, position: LogPosition) -> bool {
        (self.start_position()..self.end_position()).contains(&position)
    }

    /// The byte of the file at which the log position `position` lies. The end of the range counts
    /// as inside.
    ///
    /// Returns `None` outside the range, in a scavenged chunk (only its position map knows), and
    /// for transformed data.
    #[must_use]
    pub fn offset_of(&self, position: LogPosition) -> Option<u64> {
        let is_inside = (self.start_position()..=self.end_position()).contains(&position);
        let is_plain = !self.scavenged && self.transform == Transform::Identity;
        if !is_inside || !is_plain {
            return None;
        }
        Some(HEADER_LENGTH + position.since(self.start_position()))
    }

    /// Checks that the records can be read.
    pub(in crate::format) fn readable(&self) -> Result<()> {
        let malformed = match self.transform {
            Transform::Identity => return Ok(()),
            Transform::AesGcm => wrong(35, "data that is not encrypted", "AES-GCM"),
            Transform::Other(other) => wrong(35, "data that is not transformed", other),
        };
        Err(malformed.into())
    }
}

fn wrong(offset: u64, expected: &str, found: impl std::fmt::Display) -> Malformed {
    Malformed::new(STRUCTURE, offset, expected, found)
}

fn chunk_number(field: i32) -> Option<ChunkNumber> {
    u32::try_from(field).ok().map(ChunkNumber)
}

fn chunk_size(field: i32) -> Option<ChunkSize> {
    ChunkSize::new(u32::try_from(field).ok()?)
}
