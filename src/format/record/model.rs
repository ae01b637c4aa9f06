//! What a log record holds (disk-format §4.2–4.4).

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use crate::format::LogPosition;

/// A point in time as the server writes it: 100 ns since the start of the year 1, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(u64);

impl Ticks {
    /// The last tick of the year 9999. The server cannot read a later one.
    pub const MAX: Self = Self(3_155_378_975_999_999_999);
    /// The start of 1970.
    const UNIX: i64 = 621_355_968_000_000_000;

    /// Returns `None` for a point in time that the server cannot read.
    #[must_use]
    pub fn new(ticks: i64) -> Option<Self> {
        let ticks = Self(u64::try_from(ticks).ok()?);
        if ticks > Self::MAX {
            return None;
        }
        Some(ticks)
    }

    /// Number of 100 ns since the start of the year 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Microseconds since the start of 1970.
    #[must_use]
    pub fn unix_microseconds(self) -> i64 {
        let ticks = i64::try_from(self.0).unwrap_or(i64::MAX);
        (ticks - Self::UNIX).div_euclid(10)
    }
}

/// The flags of a prepare (disk-format §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrepareFlags(pub u16);

impl PrepareFlags {
    /// The prepare carries an event.
    pub const DATA: Self = Self(0x01);
    /// The prepare is the first of its transaction.
    pub const TRANSACTION_BEGIN: Self = Self(0x02);
    /// The prepare is the last of its transaction.
    pub const TRANSACTION_END: Self = Self(0x04);
    /// The prepare deletes its stream for good.
    pub const STREAM_DELETE: Self = Self(0x08);
    /// The prepare counts without a commit record.
    pub const IS_COMMITTED: Self = Self(0x20);
    /// The data is JSON.
    pub const IS_JSON: Self = Self(0x100);
    /// The data was overwritten.
    pub const IS_REDACTED: Self = Self(0x200);
    /// The metadata holds properties.
    pub const IS_PROPERTY_METADATA: Self = Self(0x400);

    /// Whether all bits of `flags` are set.
    #[must_use]
    pub const fn contains(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl fmt::Debug for PrepareFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrepareFlags({:#x})", self.0)
    }
}

/// An event, or a part of a transaction (disk-format §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepare<'a> {
    /// What the prepare says about itself.
    pub flags: PrepareFlags,
    /// Where its transaction began: the same position in every prepare of a multi-event append.
    pub transaction: LogPosition,
    /// Its place in its transaction: −1 for the first and the last prepare of an explicit
    /// transaction.
    pub transaction_offset: i32,
    /// The number of the event before it, if [`PrepareFlags::IS_COMMITTED`] is set; −2 for "any".
    pub expected_version: i64,
    /// The name of its stream, as UTF-8 that nobody checked.
    pub stream: &'a [u8],
    /// The id of the event.
    pub event_id: Uuid,
    /// The id of the request that wrote it.
    pub correlation_id: Uuid,
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
    /// Its event type, as UTF-8 that nobody checked.
    pub event_type: &'a [u8],
    /// Where its data lies in the file.
    pub data: ByteSpan,
    /// Where its metadata lies in the file.
    pub metadata: ByteSpan,
}

impl Prepare<'_> {
    /// The number of the event in its stream. Returns `None` for a part of an explicit transaction:
    /// the commit record gives its number.
    #[must_use]
    pub const fn event_number(&self) -> Option<i64> {
        if self.flags.contains(PrepareFlags::IS_COMMITTED) {
            self.expected_version.checked_add(1)
        } else {
            None
        }
    }

    /// The name of its stream, for people and for comparing with text.
    #[must_use]
    pub fn stream_name(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.stream)
    }
}

/// Bytes of a file that were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSpan {
    /// Byte offset in the file.
    pub offset: u64,
    /// Number of bytes.
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

/// A record that the server wrote for itself (disk-format §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct System<'a> {
    /// The leader's clock when it was written.
    pub timestamp: Ticks,
    /// The kind of record. No server has written another kind than [`System::EPOCH`].
    pub subtype: u8,
    /// How `data` is written: [`System::JSON`] in every epoch.
    pub serialization: u8,
    /// The content, of at most 64 KiB.
    pub data: &'a [u8],
}

impl System<'_> {
    /// The subtype of an epoch.
    pub const EPOCH: u8 = 1;
    /// The serialization of an epoch.
    pub const JSON: u8 = 2;

    /// Whether this is an epoch.
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
    /// A record that the server wrote for itself.
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
    /// The position of the record in the log, as the record itself says.
    pub position: LogPosition,
    /// The byte of the file at which the frame begins.
    pub offset: u64,
    /// Bytes from the first length to the end of the second.
    pub length: u64,
    /// What the frame holds.
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
