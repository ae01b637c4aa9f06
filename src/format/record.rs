//! Log records and their frames (disk-format §4.1–4.4): forwards, backwards, and one at a position.
//!
//! A scan holds a window of the file, never more: event data is skipped, all that describes it is
//! checked. Records borrow from the window, so that nothing is allocated for each of them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use uuid::Uuid;

use super::chunk::{ChunkFile, HEADER_LENGTH, Header};
use super::position_map::PositionMap;
use super::window::Window;
use super::{LogPosition, Malformed, ReadAt, Result};

/// Bytes that a scan reads at once.
const SCAN: usize = 256 * 1024;
/// Bytes that reading one record begins with.
const PROBE: usize = 4096;
/// The most that may stand before a record's data, in bytes: its stream and its type. The server
/// holds both in memory, in records of 16 MiB.
const MAX_HEAD: usize = 16 * 1024 * 1024;
/// The most JSON in a system record, in bytes; an epoch's has about 300.
const MAX_SYSTEM_DATA: u64 = 64 * 1024;
/// The two lengths around a record's body.
const FRAME: u64 = 8;
/// Type, version and log position.
const SHORTEST_BODY: u64 = 10;

/// A point in time as the server writes it: 100 ns since the start of the year 1, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(u64);

impl Ticks {
    /// The last tick of the year 9999; the server cannot read a later one.
    pub const MAX: Self = Self(3_155_378_975_999_999_999);
    /// The start of 1970.
    const UNIX: i64 = 621_355_968_000_000_000;

    /// A point in time, unless it is none the server can read.
    #[must_use]
    pub fn new(ticks: i64) -> Option<Self> {
        u64::try_from(ticks)
            .ok()
            .map(Self)
            .filter(|ticks| *ticks <= Self::MAX)
    }

    /// 100 ns since the start of the year 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Microseconds since the start of 1970.
    #[must_use]
    pub fn unix_microseconds(self) -> i64 {
        (i64::try_from(self.0).unwrap_or(i64::MAX) - Self::UNIX).div_euclid(10)
    }
}

/// What a prepare says about itself (disk-format §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// Carries an event.
    pub const DATA: Self = Self(0x01);
    /// First of its transaction.
    pub const TRANSACTION_BEGIN: Self = Self(0x02);
    /// Last of its transaction.
    pub const TRANSACTION_END: Self = Self(0x04);
    /// Deletes its stream for good.
    pub const STREAM_DELETE: Self = Self(0x08);
    /// Counts at once; no commit record follows.
    pub const IS_COMMITTED: Self = Self(0x20);
    /// The data is JSON.
    pub const IS_JSON: Self = Self(0x100);
    /// The data was overwritten; since 23.6.
    pub const IS_REDACTED: Self = Self(0x200);
    /// The metadata are properties; since 25.1.
    pub const IS_PROPERTY_METADATA: Self = Self(0x400);

    /// Are all bits of `flags` set?
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#x})", self.0)
    }
}

/// An event, or a part of a transaction (disk-format §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// What it says about itself.
    pub flags: Flags,
    /// Where its transaction began; the same in every prepare of a multi-event append.
    pub transaction: LogPosition,
    /// Its place in its transaction; −1 for the first and last of an explicit one.
    pub transaction_offset: i32,
    /// The number of the event before it, where [`Flags::IS_COMMITTED`] is set; −2 for "any".
    pub expected_version: i64,
    /// Its stream's name, as UTF-8 that nobody checked.
    pub stream: &'a [u8],
    /// The event's id.
    pub event_id: Uuid,
    /// The id of the request that wrote it.
    pub correlation_id: Uuid,
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
    /// Its event type, as UTF-8 that nobody checked.
    pub event_type: &'a [u8],
    /// Where in the file its data lies, as byte offsets.
    pub data: Span,
    /// Where in the file its metadata lies, as byte offsets.
    pub metadata: Span,
}

impl Prepare<'_> {
    /// The event's number in its stream; none for a part of an explicit transaction, whose commit
    /// record gives it.
    #[must_use]
    pub const fn event_number(&self) -> Option<i64> {
        if self.flags.contains(Flags::IS_COMMITTED) {
            self.expected_version.checked_add(1)
        } else {
            None
        }
    }

    /// Its stream's name, for people and for comparing with text.
    #[must_use]
    pub fn stream_name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.stream)
    }
}

/// Bytes of a file that were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The end of an explicit transaction (disk-format §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where its transaction began.
    pub transaction: LogPosition,
    /// The number of the transaction's first event in its stream.
    pub first_event_number: i64,
    /// The id of the request that wrote it.
    pub correlation_id: Uuid,
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
}

/// A record of the server's own (disk-format §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System<'a> {
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
    /// What it is; [`System::EPOCH`] is the only kind there has ever been.
    pub subtype: u8,
    /// How `data` is written; [`System::JSON`] in every epoch.
    pub serialization: u8,
    /// What it says; at most 64 KiB.
    pub data: &'a [u8],
}

impl System<'_> {
    /// The subtype of an epoch.
    pub const EPOCH: u8 = 1;
    /// The serialization of an epoch.
    pub const JSON: u8 = 2;

    /// Is it an epoch?
    #[must_use]
    pub const fn is_epoch(&self) -> bool {
        self.subtype == Self::EPOCH
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// An event, or a part of a transaction.
    Prepare(Prepare<'a>),
    /// The end of an explicit transaction.
    Commit(Commit),
    /// A record of the server's own.
    System(System<'a>),
}

impl Record<'_> {
    /// The leader's clock when it was written.
    #[must_use]
    pub const fn timestamp(&self) -> Ticks {
        match self {
            Self::Prepare(prepare) => prepare.timestamp,
            Self::Commit(commit) => commit.timestamp,
            Self::System(system) => system.timestamp,
        }
    }
}

/// A record with its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where it stands in the log, as it says itself.
    pub position: LogPosition,
    /// Where it stands in the file, in bytes.
    pub offset: u64,
    /// Bytes from the first length to the end of the second.
    pub length: u64,
    /// What it holds.
    pub record: Record<'a>,
}

impl Frame<'_> {
    /// The log position behind it.
    #[must_use]
    pub fn end(&self) -> LogPosition {
        self.position
            .checked_add(self.length)
            .unwrap_or(self.position)
    }
}

/// How log positions and file offsets belong together in one chunk file.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// Every record stands where it was written.
    InPlace {
        /// Log position of the first byte of data.
        start: LogPosition,
    },
    /// Records moved together; positions only rise, within the file's range.
    Compacted {
        /// Where the range begins.
        start: LogPosition,
        /// Where it ends, exclusive.
        end: LogPosition,
    },
}

impl Layout {
    fn of(header: &Header) -> Self {
        let start = header.start_position();
        if header.scavenged {
            Self::Compacted {
                start,
                end: header.end_position(),
            }
        } else {
            Self::InPlace { start }
        }
    }

    /// May the frame of `length` bytes at `offset` say that it is at `position`?
    fn check(&self, offset: u64, length: u64, position: LogPosition) -> Result<(), Malformed> {
        let expected = match self {
            Self::InPlace { start } => {
                match start.checked_add(offset.saturating_sub(HEADER_LENGTH)) {
                    Some(place) if place == position => return Ok(()),
                    Some(place) => format!("the log position {place}"),
                    None => "a log position".to_owned(),
                }
            }
            Self::Compacted { start, end } => {
                if *start <= position
                    && position
                        .checked_add(length)
                        .is_some_and(|behind| behind <= *end)
                {
                    return Ok(());
                }
                format!("a log position from {start} on, and the record's end at most at {end}")
            }
        };
        Err(Malformed::new("log record", offset + 6, expected, position))
    }
}

/// Positions rise from record to record, also where a scavenge moved them together.
fn check_order(earlier: LogPosition, later: LogPosition, offset: u64) -> Result<(), Malformed> {
    if earlier < later {
        return Ok(());
    }
    Err(Malformed::new(
        "log record",
        offset + 6,
        "log positions that rise from record to record",
        format!("{later} after {earlier}"),
    ))
}

/// Checks that a scan stays inside the data that the header allows.
fn check_range(source: &dyn ReadAt, header: &Header, data: &Range<u64>) -> Result<()> {
    header.readable()?;
    let capacity = HEADER_LENGTH + header.end_position().since(header.start_position());
    let end = capacity.min(source.size());
    if data.start < HEADER_LENGTH || data.start > data.end || data.end > end {
        let expected = format!("data inside the bytes {HEADER_LENGTH} to {end}");
        return Err(Malformed::new(
            "chunk file",
            data.start,
            expected,
            format!("{} to {}", data.start, data.end),
        )
        .into());
    }
    Ok(())
}

/// Every record of a piece of a chunk's data, from the first to the last.
///
/// A lending iterator: each frame borrows from the window and must be dropped before the next.
#[derive(Debug)]
pub struct Forwards<'s> {
    window: Window<'s>,
    layout: Layout,
    at: u64,
    end: u64,
    /// Nothing is read from here on, as it may not be there yet.
    there: u64,
    previous: Option<LogPosition>,
}

impl<'s> Forwards<'s> {
    /// Scans the bytes `data` of a chunk file, which begin and end between two records:
    /// [`ChunkFile::completed_data`], [`ChunkFile::data_before`], or a later part of them from
    /// [`Header::offset_of`] a boundary on.
    ///
    /// # Errors
    /// Bytes that the header leaves no room for, or that the file does not have.
    pub fn new(source: &'s dyn ReadAt, header: &Header, data: Range<u64>) -> Result<Self> {
        check_range(source, header, &data)?;
        let Range { start: at, end } = data;
        Ok(Self {
            window: Window::new(source, SCAN),
            layout: Layout::of(header),
            at,
            end,
            there: end,
            previous: None,
        })
    }

    /// Of a file that is still being written: gives only records that lie whole before byte
    /// `there`. `previous` is the record before these data, where one was read.
    #[must_use]
    pub fn as_far_as(self, there: u64, previous: Option<LogPosition>) -> Self {
        Self {
            there: there.min(self.end),
            previous,
            ..self
        }
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// Bytes that are no whole valid frame, a record that is not where it says, or what the storage
    /// reports.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        if self.at == self.end || !self.is_there()? {
            return Ok(None);
        }
        let length = load(&mut self.window, self.at, self.end, self.there)?;
        let frame = parse(&self.window, self.at, length, &self.layout)?;
        if let Some(previous) = self.previous.replace(frame.position) {
            check_order(previous, frame.position, self.at)?;
        }
        self.at += length;
        Ok(Some(frame))
    }

    /// Whether the next record lies whole in what is there; one that says an impossible length
    /// does: it is to be told.
    fn is_there(&mut self) -> Result<bool> {
        if self.there == self.end {
            return Ok(true);
        }
        if self.there < self.at + 4 {
            return Ok(false);
        }
        self.window.forwards(self.at, 4, self.there)?;
        let prefix = self
            .window
            .get(self.at, 4)
            .and_then(|bytes| bytes.first_chunk())
            .copied()
            .map_or(0, i32::from_le_bytes);
        Ok(body_length(prefix, self.at, self.end - self.at)
            .map_or(true, |body| body + FRAME <= self.there - self.at))
    }

    /// The byte of the file behind the last record given.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.at
    }

    /// The log position of the last record given.
    #[must_use]
    pub const fn previous(&self) -> Option<LogPosition> {
        self.previous
    }
}

/// Every record of a piece of a chunk's data, from the last to the first.
///
/// A lending iterator, as [`Forwards`].
#[derive(Debug)]
pub struct Backwards<'s> {
    window: Window<'s>,
    layout: Layout,
    start: u64,
    at: u64,
    following: Option<LogPosition>,
}

impl<'s> Backwards<'s> {
    /// Scans the bytes `data` of a chunk file, which begin and end between two records, as
    /// [`Forwards::new`] has them.
    ///
    /// # Errors
    /// Bytes that the header leaves no room for, or that the file does not have.
    pub fn new(source: &'s dyn ReadAt, header: &Header, data: Range<u64>) -> Result<Self> {
        check_range(source, header, &data)?;
        Ok(Self {
            window: Window::new(source, SCAN),
            layout: Layout::of(header),
            start: data.start,
            at: data.end,
            following: None,
        })
    }

    /// The record before; none at the start.
    ///
    /// # Errors
    /// Bytes that are no whole valid frame, a record that is not where it says, or what the storage
    /// reports.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>> {
        if self.at == self.start {
            return Ok(None);
        }
        let offset = self.frame_start()?;
        let length = load(&mut self.window, offset, self.at, self.at)?;
        if offset + length != self.at {
            let suffix = self.at - offset - FRAME;
            return Err(Malformed::new(
                "log record",
                offset,
                format!("a length of {suffix} bytes, as at the record's end"),
                length - FRAME,
            )
            .into());
        }
        let frame = parse(&self.window, offset, length, &self.layout)?;
        if let Some(following) = self.following.replace(frame.position) {
            check_order(frame.position, following, offset)?;
        }
        self.at = offset;
        Ok(Some(frame))
    }

    /// Where the frame that ends here begins, by the length at its end.
    fn frame_start(&mut self) -> Result<u64> {
        let room = self.at - self.start;
        let suffix_at = self.at.saturating_sub(4);
        if room < FRAME + SHORTEST_BODY {
            return Err(Malformed::new(
                "log record",
                self.start,
                "a whole record",
                format!("{room} bytes"),
            )
            .into());
        }
        self.window.backwards(self.at, 4, self.start)?;
        let suffix = self
            .window
            .get(suffix_at, 4)
            .and_then(|bytes| bytes.first_chunk())
            .copied()
            .map_or(0, i32::from_le_bytes);
        let length = body_length(suffix, suffix_at, room)? + FRAME;
        // Short frames come in blocks that end here; a long one is loaded from its start.
        if let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.window.reach())
        {
            self.window.backwards(self.at, length, self.start)?;
        }
        Ok(self.at - length)
    }
}

/// Reads single records of a chunk by their log position.
#[derive(Debug)]
pub struct Lookup<'s> {
    window: Window<'s>,
    layout: Layout,
    header: Header,
    data: Range<u64>,
    map: Option<PositionMap<'s>>,
}

impl<'s> Lookup<'s> {
    /// For the records in the bytes `data` of a chunk file: [`ChunkFile::completed_data`] or
    /// [`ChunkFile::data_before`].
    ///
    /// # Errors
    /// Bytes that the header leaves no room for, or that the file does not have.
    pub fn new(source: &'s dyn ReadAt, chunk: &ChunkFile, data: Range<u64>) -> Result<Self> {
        check_range(source, &chunk.header, &data)?;
        let map = if chunk.header.scavenged {
            Some(PositionMap::new(source, chunk)?)
        } else {
            None
        };
        Ok(Self {
            window: Window::new(source, PROBE),
            layout: Layout::of(&chunk.header),
            header: chunk.header,
            data,
            map,
        })
    }

    /// The record at `position`; none where the position is outside the data, or a scavenge has
    /// removed the record.
    ///
    /// # Errors
    /// In a chunk that was not scavenged, a position at which no record begins; else as
    /// [`Forwards::next`].
    pub fn read_at_position(&mut self, position: LogPosition) -> Result<Option<Frame<'_>>> {
        if !self.header.covers(position) {
            return Ok(None);
        }
        let offset = match &mut self.map {
            Some(map) => map.offset_of(position)?,
            None => self.header.offset_of(position),
        };
        let Some(offset) = offset.filter(|offset| self.data.contains(offset)) else {
            return Ok(None);
        };
        let length = load(&mut self.window, offset, self.data.end, self.data.end)?;
        let frame = parse(&self.window, offset, length, &self.layout)?;
        if frame.position != position {
            return Err(Malformed::new(
                "log record",
                offset + 6,
                format!("the log position {position}, as in the position map"),
                frame.position,
            )
            .into());
        }
        Ok(Some(frame))
    }
}

/// Checks a length of a frame against the room there is; the server's own limit of 16 MiB is none
/// since 24.10.5 (disk-format §4.1).
fn body_length(length: i32, at: u64, room: u64) -> Result<u64, Malformed> {
    let most = room.saturating_sub(FRAME);
    let fits = u64::try_from(length)
        .ok()
        .filter(|length| (SHORTEST_BODY..=most).contains(length));
    fits.ok_or_else(|| {
        Malformed::new(
            "log record",
            at,
            format!("a length from {SHORTEST_BODY} to {most} bytes"),
            length,
        )
    })
}

/// Brings the frame at `offset` into the window, or all of it up to its data where it is too long,
/// and reads nothing from `there` on. Its length with both lengths around it.
fn load(window: &mut Window<'_>, offset: u64, end: u64, there: u64) -> Result<u64> {
    let room = end - offset;
    if room < FRAME + SHORTEST_BODY {
        return Err(Malformed::new(
            "log record",
            offset,
            "a whole record",
            format!("{room} bytes"),
        )
        .into());
    }
    window.forwards(offset, 4, there)?;
    let prefix = window
        .get(offset, 4)
        .and_then(|bytes| bytes.first_chunk())
        .copied()
        .map_or(0, i32::from_le_bytes);
    let length = body_length(prefix, offset, room)? + FRAME;
    let reach = window.reach();
    let held = usize::try_from(length).unwrap_or(usize::MAX);
    window.forwards(offset, held.min(reach), there)?;
    if held > reach {
        let most = held.min(MAX_HEAD);
        let mut loaded = reach;
        while loaded < most && !head_is_in(window, offset, loaded) {
            loaded = loaded.saturating_mul(4).min(most);
            window.forwards(offset, loaded, there)?;
        }
    }
    Ok(length)
}

/// Does all that [`parse`] has to see of a long record lie in its first `loaded` bytes?
fn head_is_in(window: &Window<'_>, offset: u64, loaded: usize) -> bool {
    let Some(body) = window.get(offset, loaded).and_then(|bytes| bytes.get(4..)) else {
        return false;
    };
    let mut fields = Fields {
        bytes: body,
        at: 0,
        offset: offset + 4,
    };
    !matches!(head(&mut fields), Err(Stop::Short))
}

const PREPARE: u8 = 0;
const COMMIT: u8 = 1;
const SYSTEM: u8 = 2;

/// Why fields could not be read.
enum Stop {
    /// The bytes end before the field does.
    Short,
    /// The field says what it must not.
    Wrong(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Wrong(malformed)
    }
}

impl Stop {
    fn malformed(self, offset: u64) -> Malformed {
        match self {
            Self::Short => Malformed::new(
                "log record",
                offset,
                "fields that end where the record ends",
                "fields that go on",
            ),
            Self::Wrong(malformed) => malformed,
        }
    }
}

/// The fields of a body, one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// File offset of the first byte.
    offset: u64,
}

impl<'a> Fields<'a> {
    fn slice(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(length).ok_or(Stop::Short)?;
        let slice = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.slice(N)?.first_chunk().copied().ok_or(Stop::Short)
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        self.array().map(|[byte]| byte)
    }

    fn i32(&mut self) -> Result<i32, Stop> {
        self.array().map(i32::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, Stop> {
        self.array().map(i64::from_le_bytes)
    }

    fn uuid(&mut self) -> Result<Uuid, Stop> {
        self.array().map(Uuid::from_bytes_le)
    }

    /// Where the field that was just read began, `length` bytes before.
    fn wrong(&self, length: usize, expected: &str, found: impl fmt::Display) -> Stop {
        Stop::Wrong(Malformed::new(
            "log record",
            self.offset + self.at.saturating_sub(length) as u64,
            expected,
            found,
        ))
    }

    fn position(&mut self) -> Result<LogPosition, Stop> {
        let value = self.i64()?;
        LogPosition::from_signed(value).ok_or_else(|| self.wrong(8, "a log position", value))
    }

    fn ticks(&mut self) -> Result<Ticks, Stop> {
        let value = self.i64()?;
        Ticks::new(value).ok_or_else(|| self.wrong(8, "a time up to the year 9999", value))
    }

    /// A length in front of bytes that are not read.
    fn length(&mut self) -> Result<u64, Stop> {
        let value = self.i32()?;
        u64::try_from(value).map_err(|_| self.wrong(4, "a length", value))
    }

    /// Text behind its length, which is written in 7 bits a byte, lowest first.
    fn text(&mut self) -> Result<&'a [u8], Stop> {
        let mut length = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return self.slice(usize::try_from(length).map_err(|_| Stop::Short)?);
            }
        }
        Err(self.wrong(5, "a text length of at most 5 bytes", "more"))
    }

    /// The file's byte behind what has been read.
    const fn end(&self) -> u64 {
        self.offset + self.at as u64
    }
}

/// A body, of a prepare only up to its data.
fn head<'a>(fields: &mut Fields<'a>) -> Result<(LogPosition, Record<'a>), Stop> {
    let (kind, version) = (fields.byte()?, fields.byte()?);
    let position = fields.position()?;
    let record = match (kind, version) {
        (PREPARE, 0 | 1) => Record::Prepare(prepare(fields, version)?),
        (COMMIT, 0 | 1) => Record::Commit(commit(fields, version)?),
        (SYSTEM, 0) => Record::System(system(fields)?),
        (PREPARE | COMMIT | SYSTEM, other) => {
            return Err(fields.wrong(9, "a record version that servers up to 26.1 know", other));
        }
        (other, _) => {
            return Err(fields.wrong(10, "a record of type 0, 1 or 2 (log format V2)", other));
        }
    };
    Ok((position, record))
}

fn prepare<'a>(fields: &mut Fields<'a>, version: u8) -> Result<Prepare<'a>, Stop> {
    let flags = Flags(fields.array().map(u16::from_le_bytes)?);
    let transaction = fields.position()?;
    let transaction_offset = fields.i32()?;
    let expected_version = if version == 0 {
        match fields.i32()? {
            // The narrow form of the number that deletes a stream.
            0x7fff_fffe => i64::MAX - 1,
            narrow => narrow.into(),
        }
    } else {
        fields.i64()?
    };
    let stream = fields.text()?;
    let event_id = fields.uuid()?;
    let correlation_id = fields.uuid()?;
    let timestamp = fields.ticks()?;
    let event_type = fields.text()?;
    let length = fields.length()?;
    let data = Span {
        offset: fields.end(),
        length,
    };
    // Stands behind the data: the caller finds it.
    let metadata = Span {
        offset: data.offset,
        length: 0,
    };
    Ok(Prepare {
        flags,
        transaction,
        transaction_offset,
        expected_version,
        stream,
        event_id,
        correlation_id,
        timestamp,
        event_type,
        data,
        metadata,
    })
}

fn commit(fields: &mut Fields<'_>, version: u8) -> Result<Commit, Stop> {
    let transaction = fields.position()?;
    let first_event_number = if version == 0 {
        match fields.i32()? {
            i32::MAX => i64::MAX,
            narrow => narrow.into(),
        }
    } else {
        fields.i64()?
    };
    // The sort key repeats the log position.
    fields.i64()?;
    Ok(Commit {
        transaction,
        first_event_number,
        correlation_id: fields.uuid()?,
        timestamp: fields.ticks()?,
    })
}

fn system<'a>(fields: &mut Fields<'a>) -> Result<System<'a>, Stop> {
    let timestamp = fields.ticks()?;
    let [subtype, serialization] = fields.array()?;
    if subtype == 0 || serialization == 0 {
        return Err(fields.wrong(
            2,
            "a system record's subtype and serialization",
            format!("{subtype} and {serialization}"),
        ));
    }
    // Reserved.
    fields.i64()?;
    let length = fields.length()?;
    if length > MAX_SYSTEM_DATA {
        return Err(fields.wrong(4, "at most 64 KiB in a system record", length));
    }
    let data = fields.slice(usize::try_from(length).map_err(|_| Stop::Short)?)?;
    Ok(System {
        timestamp,
        subtype,
        serialization,
        data,
    })
}

/// Reads the frame that [`load`] brought into the window.
fn parse<'w>(
    window: &'w Window<'_>,
    offset: u64,
    length: u64,
    layout: &Layout,
) -> Result<Frame<'w>> {
    let whole = usize::try_from(length)
        .ok()
        .and_then(|length| window.get(offset, length));
    let body_end = offset + length - 4;
    let suffix = match whole.and_then(|bytes| bytes.last_chunk()) {
        Some(suffix) => *suffix,
        None => window.beside(body_end)?,
    };
    let suffix = i64::from(i32::from_le_bytes(suffix));
    let body = length - FRAME;
    if u64::try_from(suffix) != Ok(body) {
        return Err(Malformed::new(
            "log record",
            body_end,
            format!("a length of {body} bytes, as at the record's start"),
            suffix,
        )
        .into());
    }
    let bytes = match whole {
        Some(bytes) => bytes.get(4..bytes.len().saturating_sub(4)),
        None => window.tail(offset + 4),
    };
    let mut fields = Fields {
        bytes: bytes.unwrap_or_default(),
        at: 0,
        offset: offset + 4,
    };
    let (position, mut record) = head(&mut fields).map_err(|stop| stop.malformed(offset))?;
    let mut end = fields.end();
    if let Record::Prepare(prepare) = &mut record {
        // The data is only skipped; the metadata's length behind it, and the end of the record,
        // show that its length was true.
        let metadata_at = end.saturating_add(prepare.data.length);
        if metadata_at.saturating_add(4) > body_end {
            let most = body_end.saturating_sub(end + 4);
            return Err(Malformed::new(
                "log record",
                end - 4,
                format!("at most {most} bytes of data"),
                prepare.data.length,
            )
            .into());
        }
        let metadata_length = match window
            .get(metadata_at, 4)
            .and_then(|bytes| bytes.first_chunk())
        {
            Some(bytes) => *bytes,
            None => window.beside(metadata_at)?,
        };
        let metadata_length = i32::from_le_bytes(metadata_length);
        let length = u64::try_from(metadata_length)
            .map_err(|_| Malformed::new("log record", metadata_at, "a length", metadata_length))?;
        prepare.metadata = Span {
            offset: metadata_at + 4,
            length,
        };
        end = metadata_at + 4 + length;
    }
    if end != body_end {
        return Err(Malformed::new(
            "log record",
            offset,
            format!("fields that end at byte {body_end}"),
            format!("fields that end at {end}"),
        )
        .into());
    }
    layout.check(offset, length, position)?;
    Ok(Frame {
        position,
        offset,
        length,
        record,
    })
}

#[cfg(test)]
mod tests;
