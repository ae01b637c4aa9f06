//! Steps D10 and D15–D17: finds the chunks of the log, and reuses or copies each. kbackup
//! recognises a chunk that it holds by the chunk's identity, never by its name (O7). `chunk_copy`
//! copies a single chunk.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::capture::Capture;
use super::chunk_copy::{copy_active, copy_grown, copy_whole};
use super::chunk_rules::ChunkRules;
use super::counted_source::CountedSource;
use super::source_chunk::SourceChunk;
use crate::error::{Error, Kind, Result};
use crate::format::{ChunkNumber, ChunkSize, WriterPosition};
use crate::log::{ChunkSet, Inspected, LogFile};
use crate::manifest::{ChunkRow, FileSet, RelativePath};
use crate::parallel;
use crate::repository::Repository;
use crate::transfer::files_at_once;

/// No file system stores times more coarsely than this; FAT does it in steps of two seconds.
const LONGEST_TICK: Duration = Duration::from_secs(2);

/// The log whose chunks were copied.
pub(super) struct CopiedLog {
    pub(super) chunk_size: ChunkSize,
    /// Where the log ends for a server.
    pub(super) writer: WriterPosition,
}

/// Copies every chunk that a server would use for the log up to W.
///
/// # Errors
/// `Unstable` if the directory changed meanwhile; `SourceCorrupt` if a chunk is missing or bad at
/// the source; `Refused` for encrypted chunks.
pub(super) fn copy(
    capture: &mut Capture<'_>,
    repository: &dyn Repository,
    rules: ChunkRules,
) -> Result<CopiedLog> {
    let set = list(capture)?;
    let chunk_size = set.chunk_size();
    let rules = ChunkRules {
        writer: end_of_log(&set, rules),
        ..rules
    };
    let Some(last) = chunk_size.chunk_of(rules.writer.0) else {
        let what = format!("writer.chk is beyond every chunk: {}", rules.writer);
        return Err(Error::new(Kind::SourceCorrupt, what));
    };

    let kept = keep_unchanged(capture, &set, last)?;
    let chunks = ChunksToCopy::sort(capture, &set, &kept, last, rules)?;

    copy_new(capture, &chunks.new, rules)?;
    for found in chunks.grown {
        let chunk = SourceChunk::open(capture.source, found)?;
        if found.end() >= last {
            copy_active(capture, repository, &chunk, rules)?;
        } else {
            copy_grown(capture, repository, &chunk, rules)?;
        }
    }

    // If the log ends where a chunk ends, no file need follow.
    let next = chunks.next;
    if next <= last && chunk_size.start_of(next) < rules.writer.0 {
        let what = format!(
            "chunk {next} is missing, and the log goes on to {}",
            rules.writer
        );
        return Err(rules.inconsistent(what).at(&capture.source.db));
    }
    Ok(CopiedLog {
        chunk_size,
        writer: rules.writer,
    })
}

/// Where the log ends for a server. A follower puts a scavenged chunk of its leader in its place
/// before it moves its writer checkpoint over it. Servers before 24.6 accept a writer checkpoint at
/// the end of the chunk's records, and move it to the end of the chunk (disk-format §6.7).
fn end_of_log(set: &ChunkSet, rules: ChunkRules) -> WriterPosition {
    let writer = rules.writer;
    let Some(file) = set.holding(writer.0) else {
        return writer;
    };
    let header = file.header();
    let is_first_number = set.chunk_size().chunk_of(writer.0) == Some(header.start);
    if rules.is_running || !header.scavenged || !is_first_number {
        return writer;
    }

    let written = writer.0.since(header.start_position());
    match file.chunk.footer() {
        Some(footer) if written > 0 && footer.logical == written => {
            WriterPosition(header.end_position())
        }
        _ => writer,
    }
}

/// Lists the chunks of the source. Reads headers and footers again only of the files that have
/// changed since the preflight.
fn list(capture: &mut Capture<'_>) -> Result<ChunkSet> {
    let source = CountedSource::new(capture.source);
    let known = std::mem::take(&mut capture.inspected_in_preflight);

    let set = source
        .files()
        .and_then(|entries| ChunkSet::among(&source, entries, &known));
    capture.cost.bytes_read += source.bytes_read();
    set
}

/// Keeps what a listing has shown of those files that nobody wrote to shortly before `moment`, when
/// the listing began. A later change to one of the others might not change its time.
pub(super) fn unchanged_since(set: ChunkSet, moment: SystemTime) -> Inspected {
    let tick_before = moment.checked_sub(LONGEST_TICK);
    set.into_inspected(tick_before.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Keeps the completed chunks that the parent, or an earlier attempt, holds already. Returns their
/// paths.
fn keep_unchanged(
    capture: &mut Capture<'_>,
    set: &ChunkSet,
    last: ChunkNumber,
) -> Result<HashSet<RelativePath>> {
    let mut unchanged = Vec::new();
    for found in set.in_use() {
        if found.end() < last && is_held(capture, found) {
            unchanged.push(found.path.clone());
        }
    }

    let mut kept = HashSet::with_capacity(unchanged.len());
    for paths in unchanged.chunks(parallel::AT_ONCE) {
        let results = capture.keep_all(paths)?;
        for (path, is_kept) in paths.iter().zip(results) {
            if is_kept {
                kept.insert(path.clone());
            }
        }
    }
    Ok(kept)
}

fn is_held(capture: &Capture<'_>, found: &LogFile) -> bool {
    let Some(row) = capture.held_row(&found.path) else {
        return false;
    };
    let identity = ChunkRow::of(&found.chunk, found.name.version);
    identity.md5.is_some() && row.chunk == Some(identity) && row.size == found.chunk.length
}

/// The chunks that are not held yet.
struct ChunksToCopy<'s> {
    /// Completed chunks of which nothing is held: they are copied by several threads.
    new: Vec<&'s LogFile>,
    /// Chunks of which the parent may hold the beginning, and the chunk that the log ends in.
    grown: Vec<&'s LogFile>,
    /// The number after the last chunk that is there.
    next: ChunkNumber,
}

impl<'s> ChunksToCopy<'s> {
    /// # Errors
    /// As for [`ChunkRules::inconsistent`], if a chunk is missing between two others.
    fn sort(
        capture: &Capture<'_>,
        set: &'s ChunkSet,
        kept: &HashSet<RelativePath>,
        last: ChunkNumber,
        rules: ChunkRules,
    ) -> Result<Self> {
        let mut sorted = Self {
            new: Vec::new(),
            grown: Vec::new(),
            next: ChunkNumber(0),
        };

        for found in set.in_use() {
            capture.run.check()?;
            let start = found.start();
            if start > last {
                // The server created it after the writer checkpoint was read (O16).
                break;
            }
            if found.header().scavenged && found.header().start_position() == rules.writer.0 {
                // A follower has put it in its place, and has not moved its writer checkpoint over
                // it yet. A server from 24.6 on continues behind it, but a log that ends before it
                // suits every server (disk-format §6.7).
                break;
            }
            if start != sorted.next {
                return Err(gap(capture, sorted.next, start, rules));
            }
            sorted.next = found.end().next().unwrap_or(found.end());

            if kept.contains(&found.path) {
                continue;
            }
            if found.end() >= last || capture.parent_row(&found.path).is_some() {
                sorted.grown.push(found);
            } else {
                sorted.new.push(found);
            }
        }
        Ok(sorted)
    }
}

/// The error for a missing chunk between two others. Chunk 0 is there: the preflight has seen it.
fn gap(
    capture: &Capture<'_>,
    missing: ChunkNumber,
    found: ChunkNumber,
    rules: ChunkRules,
) -> Error {
    rules
        .inconsistent(format!(
            "chunk {missing} is missing, and the next one there is {found}"
        ))
        .at(&capture.source.db)
        .hint("keep each chunk as a plain file there: kbackup does not follow links to other disks")
}

/// Copies completed chunks of which nothing is held. Copies several at once, to fill the lanes of
/// the MD5 and to keep a remote disk busy.
fn copy_new(capture: &mut Capture<'_>, new: &[&LogFile], rules: ChunkRules) -> Result<()> {
    for new in new.chunks(parallel::AT_ONCE) {
        let mut stored = Vec::with_capacity(new.len());
        let reader = &*capture;
        let result = parallel::for_each(
            files_at_once(reader.run),
            new,
            |found| {
                reader.run.check()?;
                let chunk = SourceChunk::open(reader.source, found)?;
                copy_whole(reader, &chunk, rules)
            },
            |_, file| stored.push(file),
        );

        // Keep these also after a failure, so that the next attempt need not copy them again.
        for file in stored {
            capture.add(file);
        }
        result?;
    }
    Ok(())
}
