//! Index tables ("PTables"): sorted lists of where each event of each stream lies in the log
//! (disk-format §5.2).
//!
//! A table never changes once `indexmap` names it. But it stands under its final name already while
//! the server writes it, and its MD5 comes last (O1, O2): no name and no length, only the MD5 tells
//! a whole table from a torn one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;

use md5::{Digest, Md5};

use super::field::{i32_at, i64_at, u32_at, u64_at};
use super::{LogPosition, Malformed, Md5Hash, ReadAt, Result};

const HEADER: &str = "index table header";
const FOOTER: &str = "index table footer";
const ENTRIES: &str = "index table entries";
const MIDPOINTS: &str = "index table midpoints";

const HEADER_SIZE: u64 = 128;
const FOOTER_SIZE: u64 = 128;
const MD5_SIZE: u64 = 16;
const MIDPOINT_SIZE: usize = 24;
/// The first byte of header and footer.
const FILE_TYPE: u8 = 1;
/// Bytes read at once while entries stream by.
const WINDOW: usize = 256 * 1024;

/// How many of a table's bytes its trailing MD5 covers, from the start, for a file of `size` bytes;
/// none where there is no room for an MD5.
#[must_use]
pub fn hashed_length(size: u64) -> Option<u64> {
    size.checked_sub(MD5_SIZE)
}

/// The version in a table's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableVersion {
    /// Hashes and event numbers of 32 bits. Servers from 24.10 on refuse it and rebuild the index.
    V1,
    /// Hashes of 64 bits.
    V2,
    /// Event numbers of 64 bits too.
    V3,
    /// With midpoints and a footer; what every server since 4.1 writes.
    V4,
}

impl TableVersion {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::V1,
            2 => Self::V2,
            3 => Self::V3,
            4 => Self::V4,
            _ => return None,
        })
    }

    const fn entry_size(self) -> usize {
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

    /// What the entries of a stream have as [`Entry::stream`]: its
    /// [hash](super::hash::stream_hash), of which the first version keeps the upper half.
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

/// One event of one stream. The order is the server's: by stream, then number, then position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The hash of the stream's name; other streams may share it.
    pub stream: u64,
    /// The event's number in its stream.
    pub event_number: i64,
    /// Where the event's prepare record lies. After a scavenge there may be nothing any more.
    pub position: LogPosition,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "event {} of stream {:016x} at {}",
            self.event_number, self.stream, self.position
        )
    }
}

/// A sample of the entries that speeds up the server's search; only in version 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Midpoint {
    stream: u64,
    event_number: i64,
    /// Which entry was sampled.
    index: u64,
}

impl fmt::Display for Midpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "entry {}, event {} of stream {:016x}",
            self.index, self.event_number, self.stream
        )
    }
}

/// What a table's header, footer and size say: header | entries | midpoints | footer | MD5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
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

impl Layout {
    /// Byte offset of an entry.
    const fn offset_of(&self, index: u64) -> u64 {
        HEADER_SIZE + index * self.version.entry_size() as u64
    }

    const fn entries_end(&self) -> u64 {
        self.offset_of(self.entries)
    }
}

/// Reads header, footer and MD5 (272 bytes), and compares them with the size.
///
/// # Errors
/// [`Malformed`] where the server would refuse the table without looking at its entries; what the
/// storage reports.
pub fn inspect(source: &dyn ReadAt) -> Result<Layout> {
    let size = source.size();
    if size < HEADER_SIZE + MD5_SIZE {
        return Err(Malformed::new(
            HEADER,
            0,
            format!("at least {} bytes", HEADER_SIZE + MD5_SIZE),
            size,
        )
        .into());
    }
    let mut header = [0; 128];
    source.read_exact_at(0, &mut header)?;
    let [file_type, version_byte, ..] = header;
    let version = file_version(HEADER, 0, file_type, version_byte)?;

    let footer_at = size
        .checked_sub(HEADER_SIZE + version.footer_size() + MD5_SIZE)
        .map(|middle| HEADER_SIZE + middle)
        .ok_or_else(|| {
            Malformed::new(
                HEADER,
                0,
                format!("at least 272 bytes in version {version}"),
                size,
            )
        })?;
    let midpoints = match version {
        TableVersion::V1 | TableVersion::V2 | TableVersion::V3 => 0,
        TableVersion::V4 => {
            let mut footer = [0; 128];
            source.read_exact_at(footer_at, &mut footer)?;
            let [file_type, version_byte, m0, m1, m2, m3, ..] = footer;
            if file_version(FOOTER, footer_at, file_type, version_byte)? != version {
                return Err(Malformed::new(
                    FOOTER,
                    footer_at + 1,
                    format!("version {version}, as in the header"),
                    version_byte,
                )
                .into());
            }
            u32::from_le_bytes([m0, m1, m2, m3])
        }
    };
    let mut md5 = [0; 16];
    source.read_exact_at(size - MD5_SIZE, &mut md5)?;

    let Some(entry_bytes) =
        (footer_at - HEADER_SIZE).checked_sub(u64::from(midpoints) * MIDPOINT_SIZE as u64)
    else {
        return Err(Malformed::new(
            FOOTER,
            footer_at + 2,
            "midpoints that fit into the file",
            midpoints,
        )
        .into());
    };
    let entry_size = version.entry_size() as u64;
    if entry_bytes % entry_size != 0 {
        let wanted = format!("entries of {entry_size} bytes");
        return Err(
            Malformed::new(ENTRIES, HEADER_SIZE, wanted, format!("{entry_bytes} bytes")).into(),
        );
    }
    let entries = entry_bytes / entry_size;
    if entries > 0 && midpoints == 1 {
        return Err(Malformed::new(
            FOOTER,
            footer_at + 2,
            "no midpoints, or at least 2",
            midpoints,
        )
        .into());
    }
    if entries >= 2 && u64::from(midpoints) > entries {
        return Err(Malformed::new(
            FOOTER,
            footer_at + 2,
            format!("at most {entries} midpoints, one an entry"),
            midpoints,
        )
        .into());
    }
    Ok(Layout {
        version,
        entries,
        midpoints,
        size,
        md5: Md5Hash(md5),
    })
}

fn file_version(
    structure: &'static str,
    offset: u64,
    file_type: u8,
    version: u8,
) -> Result<TableVersion> {
    if file_type != FILE_TYPE {
        return Err(
            Malformed::new(structure, offset, "file type 1, an index table", file_type).into(),
        );
    }
    TableVersion::from_byte(version)
        .ok_or_else(|| Malformed::new(structure, offset + 1, "version 1 to 4", version).into())
}

/// A table whose layout holds; its entries are read as they are asked for.
pub struct Table<'a> {
    source: &'a dyn ReadAt,
    layout: Layout,
}

impl<'a> Table<'a> {
    /// [Inspects](inspect) the table.
    ///
    /// # Errors
    /// Those of [`inspect`].
    pub fn open(source: &'a dyn ReadAt) -> Result<Self> {
        Ok(Self {
            source,
            layout: inspect(source)?,
        })
    }

    /// What header, footer and size say.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The entries in the order of the file, which is descending. Memory: one window.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        self.entries_from(0, self.layout.entries)
    }

    /// One entry by its place in the file; none beyond the last.
    ///
    /// # Errors
    /// [`Malformed`] where its position is negative; what the storage reports.
    pub fn entry(&self, index: u64) -> Result<Option<Entry>> {
        if index >= self.layout.entries {
            return Ok(None);
        }
        self.entries_from(index, 1).next().transpose()
    }

    fn entries_from(&self, first: u64, count: u64) -> Entries<'a> {
        let version = self.layout.version;
        Entries {
            version,
            records: Records::new(
                self.source,
                self.layout.offset_of(first),
                count,
                version.entry_size(),
            ),
        }
    }

    /// Hashes the file and compares the result with the MD5 at its end.
    ///
    /// The server does the same at each start, unless it is told to skip it; not for a table
    /// without entries.
    ///
    /// # Errors
    /// [`Malformed`] where they differ; what the storage reports.
    pub fn check_md5(&self) -> Result<()> {
        let end = self.layout.size - MD5_SIZE;
        let mut hasher = Md5::new();
        let mut buffer = vec![0; WINDOW];
        let mut offset = 0;
        while offset < end {
            let length = usize::try_from(end - offset)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let window = buffer.get_mut(..length).unwrap_or_default();
            self.source.read_exact_at(offset, window)?;
            hasher.update(&*window);
            offset += length as u64;
        }
        let computed = Md5Hash(hasher.finalize().into());
        if computed == self.layout.md5 {
            return Ok(());
        }
        Err(Malformed::new(
            "index table MD5",
            end,
            format!("{computed}, which the bytes before it have"),
            self.layout.md5,
        )
        .into())
    }

    /// Reads all entries and midpoints once and checks what the server relies on without looking:
    /// every entry is at most the one before it, and every midpoint repeats the key of an entry,
    /// from the first to the last in order.
    ///
    /// The server itself compares only stream and number, and only of the entries at its midpoints;
    /// a table it wrote passes the stricter test.
    ///
    /// # Errors
    /// [`Malformed`] at the first contradiction; what the storage reports.
    pub fn check_order(&self) -> Result<()> {
        self.scan(|_| ())
    }

    /// The up to `count` entries that lie furthest on in the log, the last one first. They are
    /// found in one pass over the table, which is [checked](Self::check_order) on the way; memory
    /// is in proportion to `count`.
    ///
    /// # Errors
    /// Those of [`Self::check_order`].
    pub fn latest(&self, count: usize) -> Result<Vec<Entry>> {
        let mut kept = BinaryHeap::new();
        self.scan(|entry| {
            kept.push(Reverse((entry.position, entry)));
            if kept.len() > count {
                kept.pop();
            }
        })?;
        // Ascending in reverse order is the last one first.
        Ok(kept
            .into_sorted_vec()
            .into_iter()
            .map(|Reverse((_, entry))| entry)
            .collect())
    }

    fn scan(&self, mut each: impl FnMut(Entry)) -> Result<()> {
        let entries_end = self.layout.entries_end();
        let mut midpoints = Records::new(
            self.source,
            entries_end,
            u64::from(self.layout.midpoints),
            MIDPOINT_SIZE,
        );
        let mut expected = next_midpoint(&mut midpoints)?;
        if let Some((offset, first)) = expected
            && first.index != 0
        {
            return Err(Malformed::new(
                MIDPOINTS,
                offset,
                "the first entry as the first midpoint",
                format!("entry {}", first.index),
            )
            .into());
        }
        let mut previous: Option<Entry> = None;
        let mut last_sampled = None;
        for (index, entry) in (0_u64..).zip(self.entries()) {
            let entry = entry?;
            if let Some(before) = previous
                && entry > before
            {
                let offset = self.layout.offset_of(index);
                return Err(Malformed::new(
                    ENTRIES,
                    offset,
                    format!("at most {before}, the entry before"),
                    entry,
                )
                .into());
            }
            while let Some((offset, midpoint)) = expected
                && midpoint.index <= index
            {
                let key = (midpoint.stream, midpoint.event_number);
                if midpoint.index < index || key != (entry.stream, entry.event_number) {
                    let wanted = format!("the key of entry {index}: {entry}");
                    return Err(Malformed::new(MIDPOINTS, offset, wanted, midpoint).into());
                }
                last_sampled = Some(index);
                expected = next_midpoint(&mut midpoints)?;
            }
            each(entry);
            previous = Some(entry);
        }
        if let Some((offset, midpoint)) = expected {
            let wanted = format!("one of {} entries", self.layout.entries);
            return Err(Malformed::new(MIDPOINTS, offset, wanted, midpoint).into());
        }
        match last_sampled {
            Some(index) if index + 1 != self.layout.entries => {
                let offset =
                    entries_end + u64::from(self.layout.midpoints - 1) * MIDPOINT_SIZE as u64;
                Err(Malformed::new(
                    MIDPOINTS,
                    offset,
                    "the last entry as the last midpoint",
                    format!("entry {index}"),
                )
                .into())
            }
            _ => Ok(()),
        }
    }
}

fn next_midpoint(records: &mut Records<'_>) -> Result<Option<(u64, Midpoint)>> {
    let Some((offset, bytes)) = records.next_record()? else {
        return Ok(None);
    };
    let fields = (i64_at(bytes, 0), u64_at(bytes, 8), i64_at(bytes, 16));
    let (Some(event_number), Some(stream), Some(index)) = fields else {
        return Ok(None);
    };
    let index = u64::try_from(index)
        .map_err(|_| Malformed::new(MIDPOINTS, offset + 16, "the index of an entry", index))?;
    Ok(Some((
        offset,
        Midpoint {
            stream,
            event_number,
            index,
        },
    )))
}

/// Streams a table's entries; made by [`Table::entries`].
pub struct Entries<'a> {
    version: TableVersion,
    records: Records<'a>,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let (offset, bytes) = match self.records.next_record() {
            Ok(record) => record?,
            Err(error) => return Some(Err(error)),
        };
        let (event_number, stream, position) = match self.version {
            TableVersion::V1 => (
                i64::from(i32_at(bytes, 0)?),
                u64::from(u32_at(bytes, 4)?),
                i64_at(bytes, 8)?,
            ),
            TableVersion::V2 => (
                i64::from(i32_at(bytes, 0)?),
                u64_at(bytes, 4)?,
                i64_at(bytes, 12)?,
            ),
            TableVersion::V3 | TableVersion::V4 => {
                (i64_at(bytes, 0)?, u64_at(bytes, 8)?, i64_at(bytes, 16)?)
            }
        };
        let Some(position) = LogPosition::from_signed(position) else {
            return Some(Err(Malformed::new(
                ENTRIES,
                offset,
                "a log position",
                position,
            )
            .into()));
        };
        Some(Ok(Entry {
            stream,
            event_number,
            position,
        }))
    }
}

/// Records of one size, read through a window.
struct Records<'a> {
    source: &'a dyn ReadAt,
    record_size: usize,
    /// Byte offset of the next record.
    next: u64,
    end: u64,
    /// What has been read and, from `used` on, not yet handed out.
    window: Vec<u8>,
    used: usize,
}

impl<'a> Records<'a> {
    fn new(source: &'a dyn ReadAt, start: u64, count: u64, record_size: usize) -> Self {
        Self {
            source,
            record_size,
            next: start,
            end: start + count * record_size as u64,
            window: Vec::new(),
            used: 0,
        }
    }

    /// The next record and its place; nothing more after an error.
    fn next_record(&mut self) -> Result<Option<(u64, &[u8])>> {
        if self.used >= self.window.len() {
            let whole_records = WINDOW / self.record_size * self.record_size;
            let length = usize::try_from(self.end - self.next)
                .unwrap_or(usize::MAX)
                .min(whole_records);
            self.window.resize(length, 0);
            self.used = 0;
            if let Err(error) = self.source.read_exact_at(self.next, &mut self.window) {
                self.window.clear();
                self.end = self.next;
                return Err(error.into());
            }
        }
        let offset = self.next;
        let Some(record) = self.window.get(self.used..self.used + self.record_size) else {
            return Ok(None);
        };
        self.used += self.record_size;
        self.next += self.record_size as u64;
        Ok(Some((offset, record)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSIONS: [TableVersion; 4] = [
        TableVersion::V1,
        TableVersion::V2,
        TableVersion::V3,
        TableVersion::V4,
    ];

    fn byte(version: TableVersion) -> u8 {
        version.to_string().parse().unwrap()
    }

    /// Writes a table; `midpoints` are the indices of the entries they repeat.
    fn encode(version: TableVersion, entries: &[Entry], midpoints: &[usize]) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes[..2].copy_from_slice(&[1, byte(version)]);
        for entry in entries {
            match version {
                TableVersion::V1 | TableVersion::V2 => {
                    bytes.extend(i32::try_from(entry.event_number).unwrap().to_le_bytes())
                }
                TableVersion::V3 | TableVersion::V4 => {
                    bytes.extend(entry.event_number.to_le_bytes())
                }
            }
            match version {
                TableVersion::V1 => {
                    bytes.extend(u32::try_from(entry.stream).unwrap().to_le_bytes())
                }
                TableVersion::V2 | TableVersion::V3 | TableVersion::V4 => {
                    bytes.extend(entry.stream.to_le_bytes())
                }
            }
            bytes.extend(entry.position.to_signed().to_le_bytes());
        }
        if version == TableVersion::V4 {
            for index in midpoints {
                let entry = entries[*index];
                bytes.extend(entry.event_number.to_le_bytes());
                bytes.extend(entry.stream.to_le_bytes());
                bytes.extend((*index as u64).to_le_bytes());
            }
            let mut footer = [0; 128];
            footer[..2].copy_from_slice(&[1, byte(version)]);
            footer[2..6].copy_from_slice(&u32::try_from(midpoints.len()).unwrap().to_le_bytes());
            bytes.extend(footer);
        }
        let md5 = Md5::digest(&bytes);
        bytes.extend(md5);
        bytes
    }

    fn entry(stream: u64, event_number: i64, position: u64) -> Entry {
        Entry {
            stream,
            event_number,
            position: LogPosition::new(position).unwrap(),
        }
    }

    fn descending(count: u64) -> Vec<Entry> {
        (0..count)
            .rev()
            .map(|number| {
                entry(
                    number / 3,
                    i64::try_from(number % 3).unwrap(),
                    number * 7 % 101,
                )
            })
            .collect()
    }

    fn complaint<T: fmt::Debug>(result: Result<T>) -> (&'static str, u64) {
        match result {
            Err(super::super::Error::Malformed(malformed)) => {
                (malformed.structure, malformed.offset)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_version_is_read_through_several_windows() {
        let entries = descending(20_000);
        for version in VERSIONS {
            let bytes = encode(version, &entries, &[0, 17, 17, 19_999]);
            let table = Table::open(&bytes).unwrap();
            assert_eq!(
                (table.layout().version, table.layout().entries),
                (version, 20_000)
            );
            assert_eq!(
                table.layout().midpoints,
                if version == TableVersion::V4 { 4 } else { 0 }
            );
            assert_eq!(
                table.entries().collect::<Result<Vec<_>>>().unwrap(),
                entries
            );
            assert_eq!(table.entry(12_345).unwrap(), Some(entries[12_345]));
            table.check_md5().unwrap();
            table.check_order().unwrap();
        }
    }

    #[test]
    fn tables_without_entries_are_whole() {
        for version in VERSIONS {
            let bytes = encode(version, &[], &[]);
            let table = Table::open(&bytes).unwrap();
            table.check_md5().unwrap();
            table.check_order().unwrap();
            assert_eq!(table.latest(5).unwrap(), []);
            assert_eq!(table.entry(0).unwrap(), None);
        }
    }

    #[test]
    fn one_entry_has_two_midpoints() {
        let bytes = encode(TableVersion::V4, &descending(1), &[0, 0]);
        Table::open(&bytes).unwrap().check_order().unwrap();
    }

    #[test]
    fn counts_of_midpoints_follow_the_servers_rules() {
        assert!(inspect(&encode(TableVersion::V4, &descending(5), &[])).is_ok());
        assert_eq!(
            complaint(inspect(&encode(TableVersion::V4, &descending(5), &[0]))),
            (FOOTER, 128 + 6 * 24 + 2)
        );
        assert!(inspect(&encode(TableVersion::V4, &descending(2), &[0, 1])).is_ok());
        assert_eq!(
            complaint(inspect(&encode(
                TableVersion::V4,
                &descending(2),
                &[0, 1, 1]
            )))
            .0,
            FOOTER
        );
        // As many midpoints as the field can hold do not fit into any file.
        let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
        let footer = bytes.len() - 144;
        bytes[footer + 2..footer + 6].fill(0xff);
        assert_eq!(complaint(inspect(&bytes)).0, FOOTER);
    }

    #[test]
    fn types_and_versions_are_checked() {
        for version in [0, 5, 255] {
            let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
            bytes[1] = version;
            assert_eq!(complaint(inspect(&bytes)), (HEADER, 1));
        }
        let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
        bytes[0] = 2;
        assert_eq!(complaint(inspect(&bytes)), (HEADER, 0));
        let mut bytes = encode(TableVersion::V4, &descending(5), &[]);
        let footer = bytes.len() - 144;
        bytes[footer + 1] = 3;
        assert_eq!(complaint(inspect(&bytes)), (FOOTER, footer as u64 + 1));
    }

    #[test]
    fn entries_out_of_order_are_found() {
        for version in VERSIONS {
            let mut entries = descending(100);
            entries.swap(41, 42);
            let bytes = encode(version, &entries, &[]);
            let table = Table::open(&bytes).unwrap();
            table.check_md5().unwrap();
            assert_eq!(
                complaint(table.check_order()),
                (ENTRIES, 128 + 42 * version.entry_size() as u64)
            );
        }
    }

    #[test]
    fn hashes_are_compared_without_sign_and_numbers_with_it() {
        let entries = [
            entry(u64::MAX, -1, 0),
            entry(1, i64::MAX, 0),
            entry(1, 0, 9),
            entry(1, 0, 8),
            entry(1, -5, 10),
        ];
        let bytes = encode(TableVersion::V4, &entries, &[0, 4]);
        Table::open(&bytes).unwrap().check_order().unwrap();
    }

    #[test]
    fn midpoints_repeat_entries_from_the_first_to_the_last() {
        let entries = descending(10);
        let order = |midpoints: &[usize]| {
            let bytes = encode(TableVersion::V4, &entries, midpoints);
            Table::open(&bytes).unwrap().check_order()
        };
        order(&[0, 3, 3, 9]).unwrap();
        assert_eq!(complaint(order(&[1, 9])).0, MIDPOINTS);
        assert_eq!(complaint(order(&[0, 8])), (MIDPOINTS, 128 + 240 + 24));
        assert_eq!(complaint(order(&[0, 5, 4, 9])), (MIDPOINTS, 128 + 240 + 48));

        // A midpoint that names another key, one that names no entry, one that is negative.
        for (place, value) in [(8, 77), (16, 10), (23, 0x80)] {
            let mut bytes = encode(TableVersion::V4, &entries, &[0, 9]);
            bytes[128 + 240 + 24 + place] = value;
            assert_eq!(
                complaint(Table::open(&bytes).unwrap().check_order()).0,
                MIDPOINTS
            );
        }
    }

    #[test]
    fn a_negative_position_is_refused() {
        let mut bytes = encode(TableVersion::V3, &descending(10), &[]);
        bytes[128 + 5 * 24 + 23] = 0x80;
        let table = Table::open(&bytes).unwrap();
        assert_eq!(complaint(table.entry(5)), (ENTRIES, 128 + 5 * 24));
        assert_eq!(complaint(table.check_order()), (ENTRIES, 128 + 5 * 24));
    }

    #[test]
    fn a_source_that_shrinks_ends_the_stream() {
        struct Shrunk(Vec<u8>, u64);
        impl ReadAt for Shrunk {
            fn size(&self) -> u64 {
                self.1
            }

            fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
                // Only the footer is left of the end.
                let gone = offset >= 1000 && offset < self.1 - 144;
                if gone {
                    Ok(0)
                } else {
                    self.0.read_at(offset, buffer)
                }
            }
        }
        let bytes = encode(TableVersion::V4, &descending(50_000), &[]);
        let size = bytes.len() as u64;
        let shrunk = Shrunk(bytes, size);
        let table = Table::open(&shrunk).unwrap();
        let read: Vec<_> = table.entries().collect();
        assert!(
            matches!(read.last(), Some(Err(super::super::Error::Read(_)))),
            "{}",
            read.len()
        );
        assert_eq!(read.iter().filter(|entry| entry.is_err()).count(), 1);
    }

    #[test]
    fn the_md5_covers_all_but_itself() {
        assert_eq!(hashed_length(272), Some(256));
        assert_eq!(hashed_length(15), None);
    }

    fn versions() -> impl Strategy<Value = TableVersion> {
        prop::sample::select(VERSIONS.to_vec())
    }

    prop_compose! {
        fn sorted()(mut entries in prop::collection::vec((0_u64..1 << 32, 0_i64..1 << 31, 0_u64..1 << 40), 2..200)) -> Vec<Entry> {
            entries.sort_unstable();
            entries.reverse();
            entries.into_iter().map(|(stream, number, position)| entry(stream, number, position)).collect()
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(version in versions(), entries in sorted(), count in 0_usize..300) {
            let bytes = encode(version, &entries, &[0, entries.len() - 1]);
            let table = Table::open(&bytes).unwrap();
            table.check_md5().unwrap();
            prop_assert_eq!(table.entries().collect::<Result<Vec<_>>>().unwrap(), entries.clone());

            let latest = table.latest(count).unwrap();
            prop_assert_eq!(latest.len(), count.min(entries.len()));
            prop_assert!(latest.is_sorted_by_key(|entry| Reverse(entry.position)));
            let kept: u64 = latest.iter().map(|entry| entry.position.get()).sum();
            let mut positions: Vec<u64> = entries.iter().map(|entry| entry.position.get()).collect();
            positions.sort_unstable();
            prop_assert_eq!(kept, positions.iter().rev().take(count).sum::<u64>());
        }

        #[test]
        fn a_table_cut_short_or_changed_is_found(version in versions(), entries in sorted(), at in any::<prop::sample::Index>()) {
            let bytes = encode(version, &entries, &[0, entries.len() - 1]);
            let at = at.index(bytes.len());
            let whole = |bytes: &Vec<u8>| Table::open(bytes).and_then(|table| table.check_md5()).is_ok();
            prop_assert!(!whole(&bytes[..at].to_vec()));
            let mut changed = bytes;
            changed[at] ^= 1;
            prop_assert!(!whole(&changed));
        }

        #[test]
        fn no_bytes_make_it_panic(start in prop::array::uniform2(0_u8..6), mut bytes in prop::collection::vec(any::<u8>(), 128..700)) {
            bytes[..2].copy_from_slice(&start);
            if let Some(footer) = bytes.len().checked_sub(144) {
                bytes[footer..footer + 2].copy_from_slice(&start);
                bytes[footer + 3..footer + 6].fill(0);
            }
            if let Ok(table) = Table::open(&bytes) {
                let _ = table.check_md5();
                let _ = table.latest(3);
            }
        }
    }
}
