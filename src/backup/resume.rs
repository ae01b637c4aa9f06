//! Resumes what interrupted runs have copied, before the node is quiesced.
//!
//! Nothing of it costs time in the pause of scavenging. A file whose proof was kept is not read at
//! all. Others are read here, at the run's pace, and their proof is kept. So a run that is
//! interrupted again and again gets further each time, however long the whole backup takes.
//!
//! A resumed file is like one that an earlier attempt has captured: the attempts have to find it at
//! the source again. `begun` continues the files that an interrupted run has copied in part.

use super::capture::{Capture, CopyRequest, ReadRecords, StoredFile};
use super::chunk_copy::completed_request;
use super::estimate::CopyEstimate;
use super::index::{SourceTable, TABLE_IDENTITY_BYTES};
use super::retry::retry;
use super::source_chunk::{IDENTITY_BYTES, SourceChunk};
use crate::error::{Kind, Result};
use crate::event::{Event, Step};
use crate::format::WriterPosition;
use crate::format::names::{ChunkName, DbFile, IndexFile, TableId};
use crate::log::RecordFollower;
use crate::manifest::{RelativePath, Role, Root};
use crate::parallel;
use crate::transfer::{Follow, files_at_once};

/// A file of the source that may be resumed.
pub(super) enum Resumable {
    Chunk(ChunkName),
    Table(TableId),
}

/// Resumes what the source still has. `writer` is where its log ended a moment ago. Returns how
/// much of the chunks need not be copied any more.
///
/// # Errors
/// An interruption; a failure of the storage.
pub(super) fn resume(
    capture: &mut Capture<'_>,
    writer: WriterPosition,
    attempts: u32,
) -> Result<CopyEstimate> {
    let mut resumed = CopyEstimate::default();
    let left = retry(attempts, capture.run, |_| capture.incoming.left())?;
    if left.is_empty() {
        return Ok(resumed);
    }

    capture.run.emit(Event::Step(Step::Resume));
    capture.run.emit(Event::Expected {
        files: left.len() as u64,
        bytes: left.iter().map(|(_, size)| size).sum(),
    });

    let mut stored = Vec::new();
    let reader = &*capture;
    let result = parallel::for_each(
        files_at_once(reader.run),
        &left,
        |(path, _)| {
            reader.run.check()?;
            resume_one(reader, path, writer)
        },
        |_, file| stored.extend(file),
    );

    for file in stored {
        if file.row.role == Role::Chunk {
            resumed.files += 1;
            resumed.bytes += file.row.size;
        }
        capture.add_resumed(file);
    }
    result?;
    Ok(resumed)
}

fn resume_one(
    capture: &Capture<'_>,
    path: &RelativePath,
    writer: WriterPosition,
) -> Result<Option<StoredFile>> {
    match resumable(path) {
        Some(Resumable::Chunk(name)) => resume_chunk(capture, path, name, writer),
        Some(Resumable::Table(table)) => resume_table(capture, table),
        None => Ok(None),
    }
}

pub(super) fn resumable(path: &RelativePath) -> Option<Resumable> {
    let name = path.below_root();
    match path.root() {
        Root::Db => match DbFile::of(name) {
            DbFile::Chunk(name) => Some(Resumable::Chunk(name)),
            _ => None,
        },
        Root::Index => match IndexFile::of(name) {
            IndexFile::Table(table) => Some(Resumable::Table(table)),
            _ => None,
        },
    }
}

/// Opens a chunk of the source, if it is completed, and the parent does not have it.
pub(super) fn chunk_to_resume<'a>(
    capture: &Capture<'_>,
    path: &'a RelativePath,
    name: ChunkName,
    writer: WriterPosition,
) -> Result<Option<SourceChunk<'a>>> {
    let opened = SourceChunk::at(capture.source, path, name.version);
    let Some(chunk) = if_usable(opened)? else {
        return Ok(None);
    };

    let is_parents = match capture.parent_row(path) {
        Some(row) => row.chunk == Some(chunk.row),
        None => false,
    };
    let is_completed =
        chunk.state.footer().is_some() && chunk.state.header.end_position() <= writer.0;
    Ok((is_completed && !is_parents).then_some(chunk))
}

/// Opens an index table of the source, if the parent does not have it.
pub(super) fn table_to_resume(
    capture: &Capture<'_>,
    table: TableId,
) -> Result<Option<SourceTable>> {
    let Some(table) = if_usable(SourceTable::open(capture, table))? else {
        return Ok(None);
    };
    Ok((!table.is_held(capture)).then_some(table))
}

fn resume_chunk(
    capture: &Capture<'_>,
    path: &RelativePath,
    name: ChunkName,
    writer: WriterPosition,
) -> Result<Option<StoredFile>> {
    let Some(chunk) = chunk_to_resume(capture, path, name, writer)? else {
        return Ok(None);
    };
    let Some(footer) = chunk.state.footer() else {
        return Ok(None);
    };

    let mut follower = RecordFollower::new(&chunk.state, chunk.start(), writer);
    let follow = follower
        .as_mut()
        .map(|follower| follower as &mut dyn Follow);
    let request = completed_request(&chunk);
    let Some((mut stored, kept)) = capture.resume(path, &request, footer.md5, follow)? else {
        return Ok(None);
    };

    let mut told = kept;
    if told.is_none()
        && let Some(follower) = follower
    {
        told = follower.into_followed().records;
    }
    stored.records = Some(Box::new(ReadRecords {
        from: chunk.start(),
        told,
    }));
    stored.bytes_read = IDENTITY_BYTES;
    capture.keep_proof(&stored)?;
    Ok(Some(stored))
}

fn resume_table(capture: &Capture<'_>, table: TableId) -> Result<Option<StoredFile>> {
    let Some(table) = table_to_resume(capture, table)? else {
        return Ok(None);
    };

    let request: CopyRequest<'_> = table.request();
    let Some((mut stored, _)) = capture.resume(&table.path, &request, table.layout.md5, None)?
    else {
        return Ok(None);
    };
    stored.bytes_read = TABLE_IDENTITY_BYTES;
    capture.keep_proof(&stored)?;
    Ok(Some(stored))
}

/// Returns `None` for a source file that is gone or bad: the attempts find out what that means.
pub(super) fn if_usable<T>(opened: Result<T>) -> Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) => match error.kind() {
            Kind::Unstable | Kind::SourceCorrupt | Kind::Refused => Ok(None),
            _ => Err(error),
        },
    }
}
