//! The body of a record, field by field (disk-format §4.2–4.4). Numbers are little-endian.
//!
//! ```text
//! every record     type 1 | version 1 | log position 8 | …
//! prepare (0)      flags 2 | transaction position 8 | transaction offset 4 | expected version 8
//!                  | stream: text | event id 16 | correlation id 16 | ticks 8 | event type: text
//!                  | data length 4 | data | metadata length 4 | metadata
//! commit (1)       transaction position 8 | first event number 8 | sort key 8
//!                  | correlation id 16 | ticks 8
//! system (2)       ticks 8 | subtype 1 | serialization 1 | reserved 8 | data length 4 | data
//! text             its length in 7 bits a byte, lowest first | UTF-8
//! ```
//!
//! In version 0 of prepare and commit, the expected version and the first event number have 4
//! bytes.

use std::fmt;

use uuid::Uuid;

use super::STRUCTURE;
use super::model::{ByteSpan, Commit, Prepare, PrepareFlags, Record, System, Ticks};
use crate::format::{LogPosition, Malformed, Result};

const PREPARE: u8 = 0;
const COMMIT: u8 = 1;
const SYSTEM: u8 = 2;
/// The most JSON in a system record, in bytes. An epoch has about 300.
const MAX_SYSTEM_DATA: u64 = 64 * 1024;

/// Why fields could not be read.
pub(super) enum FieldError {
    /// The bytes end before the field does.
    Short,
    /// The field holds an impossible value.
    Wrong(Malformed),
}

impl FieldError {
    /// The error for a record at `offset` whose bytes are all there.
    pub(super) fn malformed(self, offset: u64) -> Malformed {
        match self {
            Self::Short => {
                let expected = "fields that end where the record ends";
                Malformed::new(STRUCTURE, offset, expected, "fields that go on")
            }
            Self::Wrong(malformed) => malformed,
        }
    }
}

/// The fields of a body, one after the other.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// File offset of the first byte.
    offset: u64,
}

impl<'a> Fields<'a> {
    /// Reads `bytes`, whose first byte is byte `offset` of the file.
    pub(super) const fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self {
            bytes,
            at: 0,
            offset,
        }
    }

    /// The byte of the file behind the fields that were read.
    pub(super) const fn end(&self) -> u64 {
        self.offset + self.at as u64
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], FieldError> {
        let end = self.at.checked_add(length).ok_or(FieldError::Short)?;
        let slice = self.bytes.get(self.at..end).ok_or(FieldError::Short)?;
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        match self.slice(N)?.first_chunk() {
            Some(bytes) => Ok(*bytes),
            None => Err(FieldError::Short),
        }
    }

    fn byte(&mut self) -> Result<u8, FieldError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn i32(&mut self) -> Result<i32, FieldError> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, FieldError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn uuid(&mut self) -> Result<Uuid, FieldError> {
        Ok(Uuid::from_bytes_le(self.array()?))
    }

    fn position(&mut self) -> Result<LogPosition, FieldError> {
        let value = self.i64()?;
        LogPosition::from_signed(value).ok_or_else(|| self.wrong(8, "a log position", value))
    }

    fn ticks(&mut self) -> Result<Ticks, FieldError> {
        let value = self.i64()?;
        Ticks::new(value).ok_or_else(|| self.wrong(8, "a time up to the year 9999", value))
    }

    /// A length in front of bytes that are not read.
    fn length(&mut self) -> Result<u64, FieldError> {
        let value = self.i32()?;
        u64::try_from(value).map_err(|_| self.wrong(4, "a length", value))
    }

    /// Text behind its length, which is written in 7 bits a byte, lowest first.
    fn text(&mut self) -> Result<&'a [u8], FieldError> {
        let mut length = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let length = usize::try_from(length).map_err(|_| FieldError::Short)?;
                return self.slice(length);
            }
        }
        Err(self.wrong(5, "a text length of at most 5 bytes", "more"))
    }

    /// An error in the field that was just read and began `length` bytes before.
    fn wrong(&self, length: usize, expected: &str, found: impl fmt::Display) -> FieldError {
        let offset = self.offset + self.at.saturating_sub(length) as u64;
        FieldError::Wrong(Malformed::new(STRUCTURE, offset, expected, found))
    }
}

/// Reads a body. Of a prepare, reads only the part before its data.
pub(super) fn head<'a>(fields: &mut Fields<'a>) -> Result<(LogPosition, Record<'a>), FieldError> {
    let (kind, version) = (fields.byte()?, fields.byte()?);
    let position = fields.position()?;

    let record = match (kind, version) {
        (PREPARE, 0 | 1) => Record::Prepare(prepare(fields, version)?),
        (COMMIT, 0 | 1) => Record::Commit(commit(fields, version)?),
        (SYSTEM, 0) => Record::System(system(fields)?),
        (PREPARE | COMMIT | SYSTEM, other) => {
            return Err(fields.wrong(9, "a record version that servers write", other));
        }
        (other, _) => {
            return Err(fields.wrong(10, "a record of type 0, 1 or 2 (log format V2)", other));
        }
    };
    Ok((position, record))
}

fn prepare<'a>(fields: &mut Fields<'a>, version: u8) -> Result<Prepare<'a>, FieldError> {
    let flags = PrepareFlags(u16::from_le_bytes(fields.array()?));
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
    let data = ByteSpan {
        offset: fields.end(),
        length,
    };
    // The metadata follows the data. The caller finds it.
    let metadata = ByteSpan {
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

fn commit(fields: &mut Fields<'_>, version: u8) -> Result<Commit, FieldError> {
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

fn system<'a>(fields: &mut Fields<'a>) -> Result<System<'a>, FieldError> {
    let timestamp = fields.ticks()?;
    let [subtype, serialization] = fields.array()?;
    if subtype == 0 || serialization == 0 {
        let found = format!("{subtype} and {serialization}");
        return Err(fields.wrong(2, "a system record's subtype and serialization", found));
    }
    // Reserved.
    fields.i64()?;

    let length = fields.length()?;
    if length > MAX_SYSTEM_DATA {
        return Err(fields.wrong(4, "at most 64 KiB in a system record", length));
    }
    let length = usize::try_from(length).map_err(|_| FieldError::Short)?;
    Ok(System {
        timestamp,
        subtype,
        serialization,
        data: fields.slice(length)?,
    })
}
