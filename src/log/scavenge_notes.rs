//! The events in which a server notes its scavenging.
//!
//! A server writes them into its log when a scavenge begins or ends, and when auto-scavenge is
//! paused or resumed, so also when kbackup asks for that. They hold nothing of a client.

use std::path::Path;

use super::access::with_place;
use super::frames::data_before;
use crate::error::Result;
use crate::format::chunk::{self, ChunkFile};
use crate::format::names::ChunkName;
use crate::format::record::{Forwards, Prepare, Record};
use crate::format::{self, LogPosition, ReadAt, WriterPosition};
use crate::fs;
use crate::manifest::{Directories, FileSet, RelativePath, Root};

/// Bytes of log that are examined at most.
const MOST: u64 = 256 * 1024;
/// The stream of auto-scavenge (`StreamNames.AutoScavenges` of the server). Its schedule is in
/// another stream, because that is a choice of the operator.
const AUTO_SCAVENGES: &[u8] = b"$auto-scavenges";

/// Whether an event notes the state of a scavenge or of auto-scavenge, or belongs to the metadata
/// of such a stream.
pub(super) fn is_note(prepare: &Prepare<'_>) -> bool {
    let stream = prepare.stream.strip_prefix(b"$$").unwrap_or(prepare.stream);
    is_of_scavenge(stream) || stream == AUTO_SCAVENGES
}

/// Whether a stream holds events about scavenges (disk-format §2.6).
pub(super) fn is_of_scavenge(stream: &[u8]) -> bool {
    stream == b"$scavengePoints" || stream == b"$scavenges" || stream.starts_with(b"$scavenges-")
}

/// How far the log of a running node holds nothing but such notes, from the boundary `from` on. The
/// answer is `from` if another record follows there, and if nothing can be said.
///
/// # Errors
/// What the storage reports, or a log that is damaged at this place.
pub fn end_of_scavenge_notes(
    db: &Path,
    from: LogPosition,
    writer: WriterPosition,
) -> Result<LogPosition> {
    if writer.0.since(from) > MOST {
        return Ok(from);
    }

    let directories = Directories::new(db, None);
    let mut reached = from;
    while reached < writer.0 {
        let Some((path, file)) = chunk_holding(&directories, reached)? else {
            break;
        };
        let Some(source) = directories.open(&path)? else {
            break;
        };

        let end = notes_in(&file, &*source, reached, writer);
        let end = with_place(&directories, &path, end)?;
        if end == reached {
            break;
        }
        reached = end;
    }
    Ok(reached)
}

/// The chunk file that holds a position. Few files are read, because the position is near the end
/// of the log.
fn chunk_holding(
    directories: &Directories,
    position: LogPosition,
) -> Result<Option<(RelativePath, ChunkFile)>> {
    let mut chunks = Vec::new();
    for name in fs::names(&directories.db)? {
        let name = name.to_string_lossy();
        if let (Ok(chunk), Ok(path)) = (
            name.parse::<ChunkName>(),
            RelativePath::new(Root::Db, &name),
        ) {
            chunks.push((chunk, path));
        }
    }
    chunks.sort();

    for (_, path) in chunks.into_iter().rev() {
        let Some(source) = directories.open(&path)? else {
            continue;
        };
        let file = with_place(directories, &path, chunk::inspect(&*source))?;
        if file.header.start_position() <= position {
            let holds = file.header.covers(position);
            return Ok(holds.then_some((path, file)));
        }
    }
    Ok(None)
}

/// As [`end_of_scavenge_notes`], in one file.
fn notes_in(
    file: &ChunkFile,
    source: &dyn ReadAt,
    from: LogPosition,
    writer: WriterPosition,
) -> format::Result<LogPosition> {
    let header = &file.header;
    let data = data_before(file, writer.0)?;
    let Some(start) = header.offset_of(from) else {
        return Ok(from);
    };
    if header.scavenged || start > data.end {
        return Ok(from);
    }

    let mut reached = from;
    let mut frames = Forwards::new(source, header, start..data.end)?;
    while let Some(frame) = frames.next()? {
        match &frame.record {
            Record::Prepare(prepare) if is_note(prepare) => reached = frame.end(),
            _ => return Ok(reached),
        }
    }

    // Behind the last record of a completed chunk, the log goes on in the next one.
    if file.footer().is_some() && header.end_position() <= writer.0 {
        reached = header.end_position();
    }
    Ok(reached)
}
