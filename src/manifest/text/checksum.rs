//! The checksum of a whole manifest, which is its last field.

use std::io::{self, Read};

use super::layout::{END, MAX_BYTES, PIECE, SEAL, SEAL_BYTES, corrupt, hash, unreadable};
use crate::error::Result;
use crate::fs::ReadAt;

/// Compares the last checksum with the bytes before it. Returns the number of these bytes.
pub(super) fn check(source: &dyn ReadAt) -> Result<u64> {
    let size = source.size();
    if size > MAX_BYTES {
        return Err(corrupt(format!(
            "it has {size} bytes, and no manifest has more than {MAX_BYTES}"
        )));
    }
    let Some(covered) = size.checked_sub(SEAL_BYTES as u64) else {
        return Err(corrupt("it is too short"));
    };

    let mut seal = [0; SEAL_BYTES];
    source
        .read_exact_at(covered, &mut seal)
        .map_err(unreadable)?;
    let digits = seal
        .strip_prefix(SEAL.as_bytes())
        .and_then(|rest| rest.strip_suffix(END.as_bytes()));
    let Some(digits) = digits else {
        return Err(corrupt("it has no checksum"));
    };

    let computed = hash_of(source, covered).map_err(unreadable)?;
    if hash(digits) != Some(computed.into()) {
        return Err(corrupt("its checksum does not fit"));
    }
    Ok(covered)
}

/// Hashes the first `length` bytes.
fn hash_of(source: &dyn ReadAt, length: u64) -> io::Result<blake3::Hash> {
    let mut bytes = SourceRange {
        source,
        offset: 0,
        end: length,
    };

    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match bytes.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(piece.get(..count).unwrap_or_default()),
        };
    }
}

/// A range of a source as a reader. It is an error if the source ends before the range does.
pub(super) struct SourceRange<'a> {
    pub(super) source: &'a dyn ReadAt,
    /// The next byte to read.
    pub(super) offset: u64,
    pub(super) end: u64,
}

impl Read for SourceRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let length = rest.min(buffer.len());
        let wanted = buffer.get_mut(..length).unwrap_or_default();
        if wanted.is_empty() {
            return Ok(0);
        }

        let count = self.source.read_at(self.offset, wanted)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}
