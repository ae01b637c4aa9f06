//! Positions in the log, and the numbers and size of its chunks.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A byte position in the log, over all chunks. It is below 2⁶³ (disk-format §2.1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct LogPosition(u64);

impl LogPosition {
    /// The start of the log.
    pub const ZERO: Self = Self(0);
    /// The last position that the server can write.
    pub const MAX: Self = Self(i64::MAX.cast_unsigned());

    /// Returns `None` for a position beyond what the server can write.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        i64::try_from(bytes).ok()?;
        Some(Self(bytes))
    }

    /// A position from the server's signed form. Returns `None` for negative numbers.
    #[must_use]
    pub fn from_signed(bytes: i64) -> Option<Self> {
        u64::try_from(bytes).ok().map(Self)
    }

    /// Bytes from the start of the log.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The server's signed form.
    #[must_use]
    pub fn to_signed(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// This position moved forwards. Returns `None` if it leaves the range of positions.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        Self::new(self.0.checked_add(bytes)?)
    }

    /// Bytes from `earlier` to here, and 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl TryFrom<u64> for LogPosition {
    type Error = &'static str;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        Self::new(bytes).ok_or("a log position is below 2^63")
    }
}

impl From<LogPosition> for u64 {
    fn from(position: LogPosition) -> Self {
        position.0
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The value of `writer.chk`: the end of the last durable record, perhaps inside an append (O38).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterPosition(pub LogPosition);

impl fmt::Display for WriterPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position where a log may end: no append is cut in two there (disk-format §2.7 C1–C3).
///
/// Only a scan of the log's frames makes a boundary out of a position. A manifest holds the result
/// of such a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Boundary(LogPosition);

impl Boundary {
    /// The empty log.
    pub const ZERO: Self = Self(LogPosition::ZERO);

    /// Only for a caller that has seen an append end at `position`, or a record that belongs to no
    /// append.
    #[must_use]
    pub(crate) const fn proven_at(position: LogPosition) -> Self {
        Self(position)
    }

    /// The position in the log.
    #[must_use]
    pub const fn position(self) -> LogPosition {
        self.0
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a chunk: its range of the log begins at `number × chunk size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkNumber(pub u32);

impl ChunkNumber {
    /// The number of the chunk behind this one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for ChunkNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version in a chunk's file name: 0 for a new chunk, and more after each scavenge (disk-format
/// §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkVersion(pub u32);

impl fmt::Display for ChunkVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes of log that belong to one chunk number. The size is the same in every chunk of a database
/// (disk-format, Conventions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChunkSize(NonZeroU32);

impl ChunkSize {
    /// A chunk size in bytes. It is positive and below 2³¹: the header holds it as a signed number.
    #[must_use]
    pub fn new(bytes: u32) -> Option<Self> {
        i32::try_from(bytes).ok()?;
        NonZeroU32::new(bytes).map(Self)
    }

    /// The chunk size in bytes.
    #[must_use]
    pub fn get(self) -> u64 {
        u64::from(self.0.get())
    }

    /// The chunk that holds `position`. Returns `None` for a number that no file name can hold.
    #[must_use]
    pub fn chunk_of(self, position: LogPosition) -> Option<ChunkNumber> {
        let number = u32::try_from(position.get() / self.get()).ok()?;
        Some(ChunkNumber(number))
    }

    /// Bytes from the start of its chunk to `position`.
    #[must_use]
    pub fn local(self, position: LogPosition) -> u64 {
        position.get() % self.get()
    }

    /// Where the range of a chunk begins.
    #[must_use]
    pub fn start_of(self, chunk: ChunkNumber) -> LogPosition {
        LogPosition(u64::from(chunk.0) * self.get())
    }

    /// Where the range of a chunk ends, exclusive.
    #[must_use]
    pub fn end_of(self, chunk: ChunkNumber) -> LogPosition {
        LogPosition((u64::from(chunk.0) + 1) * self.get())
    }
}
