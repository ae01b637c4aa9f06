//! Reads the head of a manifest, which has a checksum of its own.

use super::layout::{
    BEGIN, FORMAT_OF_LONG_HEADS, HASH_DIGITS, HEAD_SEAL, MAX_HEAD_BYTES, PIECE, ROWS, corrupt,
    hash, unreadable,
};
use crate::error::{Error, Kind, Result};
use crate::fs::ReadAt;
use crate::manifest::{Blake3Hash, Head};

/// Bytes of the longest text that [`proven_head`] looks for.
const SEAL_AND_ROWS: usize = HEAD_SEAL.len() + HASH_DIGITS + ROWS.len();

impl Head {
    /// Reads the head of a manifest, and none of its rows.
    ///
    /// # Errors
    /// As for [`Manifest::read`](crate::manifest::Manifest::read), except for damage behind the
    /// head, which stays unnoticed.
    pub fn read(source: &dyn ReadAt) -> Result<Self> {
        let (head, _) = read_head(source)?;
        Ok(head)
    }
}

/// Reads the head. Returns it with the offset of the rows.
pub(super) fn read_head(source: &dyn ReadAt) -> Result<(Head, u64)> {
    let mut text = Vec::new();
    let mut searched = 0;
    let (head_end, rows_begin) = loop {
        let added = read_more(&mut text, source)?;
        refuse_newer(&text)?;

        if let Some(found) = proven_head(&text, searched)? {
            break found;
        }
        if added == 0 || text.len() > MAX_HEAD_BYTES {
            return Err(corrupt("it has no head with a checksum"));
        }
        // What was read next may end a seal that began here.
        searched = text.len().saturating_sub(SEAL_AND_ROWS);
    };

    // In the file the closing brace comes after the rows.
    text.truncate(head_end);
    text.extend_from_slice(b"\n}");
    match serde_json::from_slice(&text) {
        Ok(head) => Ok((head, rows_begin)),
        Err(error) => Err(corrupt(error.to_string())),
    }
}

/// Appends the next piece of the source to `text`. Returns the number of bytes, 0 at the end.
fn read_more(text: &mut Vec<u8>, source: &dyn ReadAt) -> Result<usize> {
    let from = text.len();
    text.resize(from + PIECE.max(from), 0);

    let mut filled = from;
    while let Some(rest) = text.get_mut(filled..)
        && !rest.is_empty()
    {
        match source.read_at(filled as u64, rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) => return Err(unreadable(error)),
        }
    }

    text.truncate(filled);
    Ok(filled - from)
}

/// Where the head ends and the rows begin, if the checksum of the head is right. Returns `None` if
/// `text` does not reach up to the rows. No seal begins before byte `searched`.
fn proven_head(text: &[u8], searched: usize) -> Result<Option<(usize, u64)>> {
    let unsearched = text.get(searched..).unwrap_or_default();
    let mut windows = unsearched.windows(HEAD_SEAL.len());
    let Some(found) = windows.position(|window| window == HEAD_SEAL.as_bytes()) else {
        return Ok(None);
    };
    let end = searched + found;
    let (head, seal) = text.split_at(end);

    let digits_end = HEAD_SEAL.len() + HASH_DIGITS;
    let digits = seal.get(HEAD_SEAL.len()..digits_end);
    let rows = seal.get(digits_end..digits_end + ROWS.len());
    let (Some(digits), Some(rows)) = (digits, rows) else {
        return Ok(None);
    };

    if hash(digits) != Some(Blake3Hash::of(head)) || rows != ROWS.as_bytes() {
        return Err(corrupt("the checksum of its head does not fit"));
    }
    // The rows begin with the bracket that `ROWS` ends with.
    let rows_begin = end + digits_end + ROWS.len() - 1;
    Ok(Some((end, rows_begin as u64)))
}

/// Looks at the format before the checksums, which a newer format may keep elsewhere.
fn refuse_newer(text: &[u8]) -> Result<()> {
    let Some(rest) = text.strip_prefix(BEGIN.as_bytes()) else {
        return Err(corrupt("it does not begin like a manifest"));
    };
    let Some(format) = leading_number(rest) else {
        return Err(corrupt("it does not say its format"));
    };
    if format <= FORMAT_OF_LONG_HEADS {
        return Ok(());
    }

    let what =
        format!("the manifest has format {format}, this program knows {FORMAT_OF_LONG_HEADS}");
    Err(Error::new(Kind::Refused, what).hint("use the newer kbackup that wrote it"))
}

fn leading_number(text: &[u8]) -> Option<u32> {
    let digits = text.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
