//! A frame: a record's body between two lengths (disk-format §4.1).
//!
//! ```text
//! | length 4 | body of that length | the same length 4 |
//! ```
//!
//! [`load`] reads a frame into the window, and [`parse`] parses it there. If a frame is longer than
//! the window, only the part before the event's data is loaded.

use super::STRUCTURE;
use super::fields::{FieldError, Fields, head};
use super::model::{ByteSpan, Frame, Prepare, Record};
use super::placement::RecordPlacement;
use crate::format::window::FileWindow;
use crate::format::{Malformed, Result};

/// The two lengths around a record's body.
pub(super) const FRAME: u64 = 8;
/// Type, version and log position.
pub(super) const SHORTEST_BODY: u64 = 10;
/// The most bytes before a record's data. These are mainly the names of its stream and its type,
/// which the server holds in memory, in records of 16 MiB.
const MAX_HEAD: usize = 16 * 1024 * 1024;

/// Checks a length of a frame against the room there is. The server's own limit of 16 MiB does not
/// hold for all servers (disk-format §4.1).
pub(super) fn body_length(length: i32, at: u64, room: u64) -> Result<u64, Malformed> {
    let most = room.saturating_sub(FRAME);
    if let Ok(body) = u64::try_from(length)
        && (SHORTEST_BODY..=most).contains(&body)
    {
        return Ok(body);
    }
    let expected = format!("a length from {SHORTEST_BODY} to {most} bytes");
    Err(Malformed::new(STRUCTURE, at, expected, length))
}

/// Checks that there is room for the shortest frame.
pub(super) fn check_room(at: u64, room: u64) -> Result<(), Malformed> {
    if room >= FRAME + SHORTEST_BODY {
        return Ok(());
    }
    let found = format!("{room} bytes");
    Err(Malformed::new(STRUCTURE, at, "a whole record", found))
}

/// The number at byte `at` of the file. Zero if the window does not hold it.
pub(super) fn loaded_i32(window: &FileWindow<'_>, at: u64) -> i32 {
    let bytes = window.get(at, 4).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

/// Reads the frame at `offset` into the window. If the frame is too long for the window, reads the
/// part before its data. Reads nothing from byte `written` on. Returns the length of the frame,
/// which includes the two lengths around the body.
pub(super) fn load(
    window: &mut FileWindow<'_>,
    offset: u64,
    end: u64,
    written: u64,
) -> Result<u64> {
    let room = end - offset;
    check_room(offset, room)?;
    window.forwards(offset, 4, written)?;
    let length = body_length(loaded_i32(window, offset), offset, room)? + FRAME;

    let reach = window.reach();
    let held = usize::try_from(length).unwrap_or(usize::MAX);
    window.forwards(offset, held.min(reach), written)?;
    if held <= reach {
        return Ok(length);
    }

    // Names are nearly always short, so the first piece is enough.
    let most = held.min(MAX_HEAD);
    let mut loaded = reach;
    while loaded < most && !head_is_in(window, offset, loaded) {
        loaded = loaded.saturating_mul(4).min(most);
        window.forwards(offset, loaded, written)?;
    }
    Ok(length)
}

/// Whether the first `loaded` bytes of a long record hold all that [`parse`] needs.
fn head_is_in(window: &FileWindow<'_>, offset: u64, loaded: usize) -> bool {
    let frame = window.get(offset, loaded);
    let Some(body) = frame.and_then(|bytes| bytes.get(4..)) else {
        return false;
    };
    let mut fields = Fields::new(body, offset + 4);
    !matches!(head(&mut fields), Err(FieldError::Short))
}

/// Reads the frame that [`load`] brought into the window.
pub(super) fn parse<'w>(
    window: &'w FileWindow<'_>,
    offset: u64,
    length: u64,
    placement: &RecordPlacement,
) -> Result<Frame<'w>> {
    let body_end = offset + length - 4;
    let whole = match usize::try_from(length) {
        Ok(length) => window.get(offset, length),
        Err(_) => None,
    };

    check_suffix(window, whole, body_end, length - FRAME)?;

    let body = match whole {
        Some(bytes) => bytes.get(4..bytes.len().saturating_sub(4)),
        None => window.tail(offset + 4),
    };
    let mut fields = Fields::new(body.unwrap_or_default(), offset + 4);
    let (position, mut record) = head(&mut fields).map_err(|stop| stop.malformed(offset))?;
    let mut end = fields.end();
    if let Record::Prepare(prepare) = &mut record {
        end = find_metadata(window, prepare, body_end)?;
    }

    if end != body_end {
        let expected = format!("fields that end at byte {body_end}");
        let found = format!("fields that end at {end}");
        return Err(Malformed::new(STRUCTURE, offset, expected, found).into());
    }
    placement.check(offset, length, position)?;
    Ok(Frame {
        position,
        offset,
        length,
        record,
    })
}

/// Checks that the length behind the body is the one in front of it.
fn check_suffix(
    window: &FileWindow<'_>,
    whole: Option<&[u8]>,
    body_end: u64,
    body: u64,
) -> Result<()> {
    let suffix = match whole.and_then(<[u8]>::last_chunk) {
        Some(suffix) => *suffix,
        None => window.beside(body_end)?,
    };
    let suffix = i64::from(i32::from_le_bytes(suffix));
    if u64::try_from(suffix) == Ok(body) {
        return Ok(());
    }
    let expected = format!("a length of {body} bytes, as at the record's start");
    Err(Malformed::new(STRUCTURE, body_end, expected, suffix).into())
}

/// Sets the place of the metadata. Returns the byte behind the metadata.
///
/// The data is skipped. Its length is correct if the length of the metadata follows it, and the
/// metadata ends where the record does.
fn find_metadata(window: &FileWindow<'_>, prepare: &mut Prepare<'_>, body_end: u64) -> Result<u64> {
    let ByteSpan {
        offset: data_at,
        length: data_length,
    } = prepare.data;
    let metadata_at = data_at.saturating_add(data_length);
    if metadata_at.saturating_add(4) > body_end {
        let most = body_end.saturating_sub(data_at + 4);
        let expected = format!("at most {most} bytes of data");
        return Err(Malformed::new(STRUCTURE, data_at - 4, expected, data_length).into());
    }

    let stated = match window.get(metadata_at, 4).and_then(<[u8]>::first_chunk) {
        Some(bytes) => *bytes,
        None => window.beside(metadata_at)?,
    };
    let stated = i32::from_le_bytes(stated);
    let length = u64::try_from(stated)
        .map_err(|_| Malformed::new(STRUCTURE, metadata_at, "a length", stated))?;
    prepare.metadata = ByteSpan {
        offset: metadata_at + 4,
        length,
    };
    Ok(metadata_at + 4 + length)
}
