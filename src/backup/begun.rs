//! Finishes the files that interrupted runs have begun to copy, before the node is quiesced.
//!
//! `resume` handles whole files. Without this, a file that takes longer than one pause of scavenging
//! may last would never be copied: each run would begin it again. A run begins such a file in its
//! pause, and the next one finishes it here, where nothing of the node waits.
//!
//! Only completed chunks and index tables come here. Nobody writes to them any more, and the
//! server's MD5 proves each when all of it is there. The attempts have to find the file at the
//! source again.

use super::capture::{Capture, StoredFile};
use super::chunk_copy::copy_whole;
use super::chunk_rules::ChunkRules;
use super::estimate::CopyEstimate;
use super::index::SourceTable;
use super::resume::{Resumable, chunk_to_resume, if_usable, resumable, table_to_resume};
use super::retry::retry;
use super::source_chunk::SourceChunk;
use crate::error::Result;
use crate::event::{Event, Step};
use crate::format::{ReadAt, WriterPosition};
use crate::manifest::Role;
use crate::parallel;
use crate::repository::Begun;
use crate::transfer::files_at_once;

/// A file of the source that an interrupted run has begun to copy.
enum Unfinished<'a> {
    Chunk(Box<SourceChunk<'a>>),
    Table(Box<SourceTable>),
}

impl Unfinished<'_> {
    fn size(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => chunk.file.size(),
            Self::Table(table) => table.layout.size,
        }
    }
}

/// Finishes what the source still has. `writer` is where its log ended a moment ago. Returns how
/// much of the chunks need not be copied any more.
///
/// # Errors
/// An interruption; a failure of the storage.
pub(super) fn finish_begun(
    capture: &mut Capture<'_>,
    writer: WriterPosition,
    attempts: u32,
) -> Result<CopyEstimate> {
    let mut finished = CopyEstimate::default();
    let begun = retry(attempts, capture.run, |_| capture.incoming.begun())?;
    let mut unfinished = Vec::new();
    for one in &begun {
        unfinished.extend(open(capture, one, writer)?);
    }
    if unfinished.is_empty() {
        return Ok(finished);
    }

    capture.run.emit(Event::Step(Step::Resume));
    capture.run.emit(Event::Expected {
        files: unfinished.len() as u64,
        bytes: unfinished.iter().map(Unfinished::size).sum(),
    });

    let mut stored = Vec::new();
    let reader = &*capture;
    let result = parallel::for_each(
        files_at_once(reader.run),
        &unfinished,
        |file| {
            reader.run.check()?;
            finish(reader, file, writer)
        },
        |_, file| stored.extend(file),
    );

    for file in stored {
        if file.row.role == Role::Chunk {
            finished.files += 1;
            finished.bytes += file.row.size;
        }
        capture.add_resumed(file);
    }
    result?;
    Ok(finished)
}

/// Opens the source's file. Returns `None` if it is another file now, or was resumed already.
fn open<'a>(
    capture: &Capture<'_>,
    begun: &'a Begun,
    writer: WriterPosition,
) -> Result<Option<Unfinished<'a>>> {
    if capture.is_captured(&begun.path) {
        return Ok(None);
    }

    let (md5, unfinished) = match resumable(&begun.path) {
        Some(Resumable::Chunk(name)) => {
            let Some(chunk) = chunk_to_resume(capture, &begun.path, name, writer)? else {
                return Ok(None);
            };
            (chunk.row.md5, Unfinished::Chunk(Box::new(chunk)))
        }
        Some(Resumable::Table(table)) => {
            let Some(table) = table_to_resume(capture, table)? else {
                return Ok(None);
            };
            (Some(table.layout.md5), Unfinished::Table(Box::new(table)))
        }
        None => return Ok(None),
    };

    let is_same = md5 == Some(begun.md5) && begun.bytes <= unfinished.size();
    Ok(is_same.then_some(unfinished))
}

fn finish(
    capture: &Capture<'_>,
    file: &Unfinished<'_>,
    writer: WriterPosition,
) -> Result<Option<StoredFile>> {
    // A file that is bad at the source is for the attempts to judge.
    let rules = ChunkRules {
        writer,
        accepts_damaged: false,
        is_running: true,
    };
    if_usable(match file {
        Unfinished::Chunk(chunk) => copy_whole(capture, chunk, rules),
        Unfinished::Table(table) => table.copy(capture),
    })
}
