//! What a table's header, footer and size say.

use std::fmt;

use crate::format::field::u32_at;
use crate::format::{Malformed, Md5Hash, ReadAt, Result};

pub(super) const HEADER: &str = "index table header";
pub(super) const FOOTER: &str = "index table footer";
pub(super) const ENTRIES: &str = "index table entries";
pub(super) const MIDPOINTS: &str = "index table midpoints";

const HEADER_SIZE: u64 = 128;
const FOOTER_SIZE: u64 = 128;
pub(super) const MD5_SIZE: u64 = 16;
pub(super) const MIDPOINT_SIZE: usize = 24;
/// The first byte of header and footer.
const FILE_TYPE: u8 = 1;

/// The number of bytes from the start that the MD5 at the end of a table covers, in a file of
/// `size` bytes. Returns `None` if there is no room for an MD5.
#[must_use]
pub fn hashed_length(size: u64) -> Option<u64> {
    size.checked_sub(MD5_SIZE)
}

/// The version in a table's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableVersion {
    /// Hashes and event numbers have 32 bits. Not every server reads it (disk-format §5.2).
    V1,
    /// Hashes have 64 bits.
    V2,
    /// Event numbers have 64 bits too.
    V3,
    /// There are midpoints and a footer. Every server since 4.1 writes this version.
    V4,
}

impl TableVersion {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            4 => Some(Self::V4),
            _ => None,
        }
    }

    pub(super) const fn entry_size(self) -> usize {
        match self {
            Self::V1 => 16,
            Self::V2 => 20,
            Self::V3 | Self::V4 => 24,
        }
    }

    const fn footer_size(self) -> u64 {
        match self {
            Self::V1 | Self::V2 | Self::V3 => 0,
            Self::V4 => FOOTER_SIZE,
        }
    }

    /// The value of [`TableEntry::stream`](super::TableEntry::stream) for a stream: its
    /// [hash](crate::format::hash::stream_hash), of which the first version keeps the upper half.
    #[must_use]
    pub const fn entry_hash(self, stream_hash: u64) -> u64 {
        match self {
            Self::V1 => stream_hash >> 32,
            Self::V2 | Self::V3 | Self::V4 => stream_hash,
        }
    }
}

impl fmt::Display for TableVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "1",
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
        })
    }
}

/// What a table's header, footer and size say.
///
/// ```text
/// header    | file type 1 | version 1 | zeros |
/// footer    | file type 1 | version 1 | number of midpoints 4 | zeros |
/// ```
///
/// The number of entries follows from the size of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableLayout {
    /// The format of the entries.
    pub version: TableVersion,
    /// Number of entries.
    pub entries: u64,
    /// Number of midpoints.
    pub midpoints: u32,
    /// Length of the file in bytes.
    pub size: u64,
    /// The MD5 at the end, of all bytes before it.
    pub md5: Md5Hash,
}

impl TableLayout {
    /// Byte offset of an entry.
    pub(super) const fn offset_of(&self, index: u64) -> u64 {
        HEADER_SIZE + index * self.version.entry_size() as u64
    }

    /// Number of entries that lie before a byte of the file.
    pub(super) fn entries_before(&self, end: u64) -> u64 {
        let whole = end.saturating_sub(HEADER_SIZE) / self.version.entry_size() as u64;
        whole.min(self.entries)
    }

    pub(super) const fn entries_end(&self) -> u64 {
        self.offset_of(self.entries)
    }
}

/// Reads header, footer and MD5 (272 bytes), and compares them with the size.
///
/// # Errors
/// [`Malformed`] if this alone makes the server refuse the table; what the storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<TableLayout> {
    let size = source.size();
    let shortest = HEADER_SIZE + MD5_SIZE;
    if size < shortest {
        let expected = format!("at least {shortest} bytes");
        return Err(Malformed::new(HEADER, 0, expected, size).into());
    }
    let mut header = [0; 128];
    source.read_exact_at(0, &mut header)?;
    let [file_type, version, ..] = header;
    let version = file_version(HEADER, 0, file_type, version)?;

    if size < shortest + version.footer_size() {
        let expected = format!("at least 272 bytes in version {version}");
        return Err(Malformed::new(HEADER, 0, expected, size).into());
    }
    let footer_at = size - version.footer_size() - MD5_SIZE;
    let midpoints = match version {
        TableVersion::V1 | TableVersion::V2 | TableVersion::V3 => 0,
        TableVersion::V4 => read_footer(source, footer_at)?,
    };
    let mut md5 = [0; 16];
    source.read_exact_at(size - MD5_SIZE, &mut md5)?;

    let entries = entry_count(version, footer_at, midpoints)?;
    check_midpoints(footer_at, midpoints, entries)?;
    Ok(TableLayout {
        version,
        entries,
        midpoints,
        size,
        md5: Md5Hash(md5),
    })
}

/// Reads the footer of version 4. Returns the number of midpoints.
fn read_footer(source: &dyn ReadAt, footer_at: u64) -> Result<u32> {
    let mut footer = [0; 128];
    source.read_exact_at(footer_at, &mut footer)?;
    let [file_type, stated, ..] = footer;
    if file_version(FOOTER, footer_at, file_type, stated)? != TableVersion::V4 {
        let expected = "version 4, as in the header";
        return Err(Malformed::new(FOOTER, footer_at + 1, expected, stated).into());
    }
    Ok(u32_at(&footer, 2).unwrap_or_default())
}

/// The number of entries between header and midpoints.
fn entry_count(version: TableVersion, footer_at: u64, midpoints: u32) -> Result<u64> {
    let midpoint_bytes = u64::from(midpoints) * MIDPOINT_SIZE as u64;
    let Some(bytes) = (footer_at - HEADER_SIZE).checked_sub(midpoint_bytes) else {
        let expected = "midpoints that fit into the file";
        return Err(Malformed::new(FOOTER, footer_at + 2, expected, midpoints).into());
    };

    let entry_size = version.entry_size() as u64;
    if !bytes.is_multiple_of(entry_size) {
        let expected = format!("entries of {entry_size} bytes");
        let found = format!("{bytes} bytes");
        return Err(Malformed::new(ENTRIES, HEADER_SIZE, expected, found).into());
    }
    Ok(bytes / entry_size)
}

/// A table has no midpoints, or at least two. Only a table of one entry has more midpoints than
/// entries.
fn check_midpoints(footer_at: u64, midpoints: u32, entries: u64) -> Result<()> {
    if entries > 0 && midpoints == 1 {
        let expected = "no midpoints, or at least 2";
        return Err(Malformed::new(FOOTER, footer_at + 2, expected, midpoints).into());
    }
    if entries >= 2 && u64::from(midpoints) > entries {
        let expected = format!("at most {entries} midpoints, one an entry");
        return Err(Malformed::new(FOOTER, footer_at + 2, expected, midpoints).into());
    }
    Ok(())
}

fn file_version(
    structure: &'static str,
    offset: u64,
    file_type: u8,
    version: u8,
) -> Result<TableVersion> {
    if file_type != FILE_TYPE {
        let expected = "file type 1, an index table";
        return Err(Malformed::new(structure, offset, expected, file_type).into());
    }
    TableVersion::from_byte(version)
        .ok_or_else(|| Malformed::new(structure, offset + 1, "version 1 to 4", version).into())
}
