//! Copies single chunks. A completed chunk is copied whole and proven by its own MD5. If the parent
//! holds the beginning of a chunk, only the bytes that were appended since are read from the node.

use std::sync::Arc;

use super::capture::{Capture, CopyRequest, ReadRecords, StoredFile, StoredMode};
use super::chunk_prefix::{StoredPrefix, stored_prefix};
use super::chunk_rules::ChunkRules;
use super::source_chunk::{IDENTITY_BYTES, SourceChunk};
use crate::error::{Error, Kind, Result};
use crate::format::{LogPosition, WriterPosition};
use crate::log::RecordFollower;
use crate::manifest::{ChunkRow, Role};
use crate::repository::Repository;
use crate::transfer::{Follow, Follower};

/// Copies a completed chunk of which nothing is held.
///
/// # Errors
/// `SourceCorrupt` if the chunk fails its own MD5, unless the operator accepts that.
pub(super) fn copy_whole(
    capture: &Capture<'_>,
    chunk: &SourceChunk<'_>,
    rules: ChunkRules,
) -> Result<StoredFile> {
    let (path, place) = (chunk.path, chunk.file.path());
    let Some(footer) = chunk.state.footer() else {
        let what = "the chunk should be completed, but is not";
        return Err(Error::new(Kind::SourceCorrupt, what).at(place));
    };
    let request = completed_request(chunk);

    let mut stored = copy_followed(chunk, chunk.start(), rules.writer, |follow| {
        capture.copy(path, &request, follow)
    })?;
    if stored.md5 != Some(footer.md5) {
        // The file system may have reported data as a hole. Reading gives the data all the same.
        let request = CopyRequest {
            reads_every_byte: true,
            ..request
        };
        stored = copy_followed(chunk, chunk.start(), rules.writer, |follow| {
            capture.copy(path, &request, follow)
        })?;
    }
    if stored.md5 == Some(footer.md5) {
        capture.keep_proof(&stored)?;
        return Ok(stored);
    }

    if rules.accepts_damaged {
        capture.run.warn(format!(
            "{path} fails its own MD5; the backup is marked as damaged"
        ));
        stored.records = None;
        stored.is_damaged = true;
        return Ok(stored);
    }
    capture.incoming.remove(path)?;
    Err(Error::new(Kind::SourceCorrupt, "the chunk fails its own MD5")
        .at(place)
        .hint(
            "the node has a damaged chunk: restore this member, or take the backup from another \
             one",
        )
        .hint("`--accept-damaged` takes the backup anyway, and marks it as damaged"))
}

/// Copies a completed chunk of which the parent may hold the beginning.
///
/// # Errors
/// As for [`copy_whole`].
pub(super) fn copy_grown(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    chunk: &SourceChunk<'_>,
    rules: ChunkRules,
) -> Result<()> {
    let expected = chunk.state.footer().map(|footer| footer.md5);

    if let Some(prefix) = stored_prefix(capture, repository, chunk)? {
        let request = completed_request(chunk);
        match extend(capture, chunk, &prefix, &request, rules.writer)? {
            Some(stored) if stored.md5 == expected => {
                capture.add(stored);
                return Ok(());
            }
            // The stored beginning may be damaged, so kbackup reads the whole chunk before it
            // blames the node.
            Some(_) => capture.run.note(format!(
                "{} does not match its stored beginning; kbackup reads all of it",
                chunk.path
            )),
            None => {}
        }
    }

    let stored = copy_whole(capture, chunk, rules)?;
    capture.add(stored);
    Ok(())
}

/// The request for a completed chunk.
pub(super) fn completed_request<'a>(chunk: &'a SourceChunk<'_>) -> CopyRequest<'a> {
    CopyRequest {
        md5: chunk.row.md5,
        chunk: Some(chunk.row),
        ..CopyRequest::whole(Role::Chunk, &chunk.file)
    }
}

/// Copies the chunk that the log ends in: bytes up to the writer checkpoint, and a hole behind
/// them.
///
/// # Errors
/// As for [`ChunkRules::inconsistent`], if the chunk was scavenged.
pub(super) fn copy_active(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    chunk: &SourceChunk<'_>,
    rules: ChunkRules,
) -> Result<()> {
    let (path, writer) = (chunk.path, rules.writer);
    let header = &chunk.state.header;
    if header.scavenged || header.start != header.end {
        let what = "the chunk that the log ends in has been scavenged";
        return Err(rules.inconsistent(what).at(chunk.file.path()));
    }

    let request = CopyRequest {
        length: chunk.length_before(writer.0),
        full_length: chunk.active_length()?,
        mode: StoredMode::Writable,
        chunk: Some(ChunkRow {
            md5: None,
            ..chunk.row
        }),
        ..CopyRequest::whole(Role::Chunk, &chunk.file)
    };
    let prefix = stored_prefix(capture, repository, chunk)?;
    let prefix = prefix.filter(|prefix| prefix.end <= writer.0);

    if let Some(prefix) = &prefix
        && is_unchanged(capture, prefix, &request, writer)
        && capture.keep(path)?
    {
        capture.cost.bytes_read += IDENTITY_BYTES;
        return Ok(());
    }

    let extended = match &prefix {
        Some(prefix) => extend(capture, chunk, prefix, &request, writer)?,
        None => None,
    };
    let stored = match extended {
        Some(stored) => stored,
        None => copy_followed(chunk, chunk.start(), writer, |follow| {
            capture.copy(path, &request, follow)
        })?,
    };
    capture.add(stored);
    Ok(())
}

/// Whether nothing was appended since the parent.
fn is_unchanged(
    capture: &Capture<'_>,
    prefix: &StoredPrefix<'_>,
    request: &CopyRequest<'_>,
    writer: WriterPosition,
) -> bool {
    let Some(parent) = capture.parent() else {
        return false;
    };
    prefix.end == writer.0
        && parent.log.read.writer == writer
        && prefix.row.chunk == request.chunk
        && prefix.row.size == request.full_length
}

/// Copies what was appended to the parent's file. Returns `None` if that file is damaged.
fn extend(
    capture: &mut Capture<'_>,
    chunk: &SourceChunk<'_>,
    prefix: &StoredPrefix<'_>,
    request: &CopyRequest<'_>,
    writer: WriterPosition,
) -> Result<Option<StoredFile>> {
    let path = chunk.path;
    let length = chunk.length_before(prefix.end);

    let stored = copy_followed(chunk, prefix.end, writer, |follow| {
        capture.extend(path, prefix.row, length, request, follow)
    });
    match stored {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.kind() == Kind::StoredCorrupt => {
            capture.stop_reusing(path, &error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Runs `copy`, and reads the chunk's records from `from` on while it copies them.
fn copy_followed(
    chunk: &SourceChunk<'_>,
    from: LogPosition,
    writer: WriterPosition,
    copy: impl FnOnce(Follower<'_>) -> Result<StoredFile>,
) -> Result<StoredFile> {
    let mut follower = RecordFollower::new(&chunk.state, from, writer);
    let mut stored = match &mut follower {
        Some(follower) => copy(Some(follower as &mut dyn Follow))?,
        None => copy(None)?,
    };

    let mut told = None;
    if let Some(follower) = follower {
        let followed = follower.into_followed();
        told = followed.records;
        stored.header_and_footer = followed.file.map(Arc::new);
    }
    stored.records = Some(Box::new(ReadRecords { from, told }));
    stored.bytes_read += IDENTITY_BYTES;
    Ok(stored)
}
