//! Step D10: the parent's last chunk, as the beginning of a chunk that has grown since.

use super::capture::{Capture, differs};
use super::source_chunk::SourceChunk;
use crate::error::{Error, Kind, Result};
use crate::format::{LogPosition, ReadAt};
use crate::fs;
use crate::log::of_source;
use crate::manifest::Row;
use crate::repository::Repository;

/// How many bytes before the end of the parent's log kbackup compares with the source, before it
/// reuses the parent's active chunk.
const PROOF_BYTES: u64 = 64 * 1024;

/// The parent's active chunk.
pub(super) struct StoredPrefix<'a> {
    pub(super) row: &'a Row,
    /// Where the parent's log ended in it.
    pub(super) end: LogPosition,
}

/// Returns the parent's active chunk if `chunk` is the same one, and has only grown since.
///
/// Three things prove that:
///
/// * The branch is the same (`parentage` has checked that), so the node has truncated nothing
///   before
///   the parent's end.
/// * The chunk ids are equal, so it is the same file.
/// * The last bytes before the parent's end are equal.
pub(super) fn stored_prefix<'a>(
    capture: &mut Capture<'a>,
    repository: &dyn Repository,
    chunk: &SourceChunk<'_>,
) -> Result<Option<StoredPrefix<'a>>> {
    let path = chunk.path;
    let (Some(parent), Some(row)) = (capture.parent(), capture.parent_row(path)) else {
        return Ok(None);
    };
    let end = parent.log.position.position();
    if !is_same_active_chunk(chunk, row, end) {
        return Ok(None);
    }
    let length = chunk.length_before(end);
    if length > chunk.file.size() || length > row.size {
        return Ok(None);
    }

    let stored = repository.open(&parent.label, row);
    let is_same = match stored {
        Ok(stored) => has_same_tail(capture, &*stored, &chunk.file, length),
        Err(error) => Err(error),
    };
    match is_same {
        Ok(true) => return Ok(Some(StoredPrefix { row, end })),
        Ok(false) => {}
        Err(error) if error.kind() == Kind::StoredCorrupt => {
            capture.stop_reusing(path, &error);
            return Ok(None);
        }
        Err(error) => return Err(error),
    }

    // One of the two files has changed. The row's hash says whether it is the stored one.
    let stored = repository.open(&parent.label, row)?;
    if capture.has_bytes_of(row, stored)? {
        capture.run.note(format!(
            "the beginning of {path} has changed since the last backup; kbackup reads all of it"
        ));
    } else {
        capture.stop_reusing(path, &differs(path, "the BLAKE3 differs"));
    }
    Ok(None)
}

fn is_same_active_chunk(chunk: &SourceChunk<'_>, row: &Row, end: LogPosition) -> bool {
    let header = &chunk.state.header;
    let Some(stored) = row.chunk else {
        return false;
    };
    stored.md5.is_none()
        && stored.id == header.id
        && !header.scavenged
        && chunk.size().chunk_of(end) == Some(header.start)
}

/// Whether the last bytes before `length` are the same in both files.
fn has_same_tail(
    capture: &mut Capture<'_>,
    stored: &dyn ReadAt,
    source: &fs::File,
    length: u64,
) -> Result<bool> {
    let proof = length.min(PROOF_BYTES);
    let size = usize::try_from(proof)
        .map_err(|error| Error::new(Kind::Failed, "cannot compare so many bytes").because(error))?;
    let (mut ours, mut theirs) = (vec![0; size], vec![0; size]);

    source
        .read_exact_at(length - proof, &mut theirs)
        .map_err(of_source)?;
    capture.cost.bytes_read += proof;
    stored
        .read_exact_at(length - proof, &mut ours)
        .map_err(|error| Error::of_read("cannot read a stored chunk", error))?;
    Ok(ours == theirs)
}
