//! The stream-existence filter: does it know the streams of all events before its checkpoint? A
//! server takes a stream that it does not know for a new one.

use super::filter::FilterFile;
use super::report::{IndexFault, IndexProblem, IndexProof};
use super::scope::IndexScope;
use super::streams::has_entries;
use super::tables::{CheckedTable, check_table, read_map};
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::record::{Backwards, Forwards, PrepareFlags, Record};
use crate::format::{self, LogPosition, ReadAt, WriterPosition, bloom, checkpoint};
use crate::log::{ChunkSet, LogFile, read_small, with_place};
use crate::manifest::{FileSet, RelativePath};
use crate::proof::depth::Depth;
use crate::run::Run;

/// The last events before the filter's checkpoint that are looked up.
const LATEST_EVENTS: usize = 1000;
/// Chunks whose first events are looked up, evenly over the log.
const SAMPLED_CHUNKS: usize = 200;
/// Events that are looked up of each of these chunks.
const EVENTS_OF_CHUNK: usize = 5;
/// Bytes of the longest checkpoint that is read; a whole one has 8.
const LONGEST_CHECKPOINT: u64 = 64;

/// A filter, and the log position up to which it says that it is complete.
pub(super) struct StreamFilter {
    pub(super) path: RelativePath,
    pub(super) source: Box<dyn ReadAt>,
    pub(super) complete_to: LogPosition,
}

/// The index beside a filter. The server makes a filter from it.
#[derive(Clone, Copy)]
pub(super) struct IndexBeside<'a> {
    pub(super) tables: &'a [CheckedTable],
    /// How far the tables reach.
    pub(super) commit: LogPosition,
}

/// An event that the server has put into the filter.
struct FilteredEvent {
    position: LogPosition,
    stream: String,
}

impl StreamFilter {
    /// The problem if the filter lacks the stream of an event. The filter has to know the streams
    /// of all events before its checkpoint.
    pub(super) fn lacks(
        &self,
        files: &dyn FileSet,
        stream: &str,
        position: LogPosition,
    ) -> Result<Option<IndexProblem>> {
        if position >= self.complete_to {
            return Ok(None);
        }

        let filter = with_place(files, &self.path, bloom::inspect(&*self.source))?;
        let is_known = filter.might_contain(stream_hash(stream));
        if with_place(files, &self.path, is_known)? {
            return Ok(None);
        }

        let fault = IndexFault::StreamFilterIncomplete;
        let what = format!("it does not know stream `{stream}`, which has an event at {position}");
        Ok(Some(IndexProblem::new(&self.path, fault, what)))
    }

    /// Looks up a sample of the log's events: some from all over it, and the last ones before the
    /// checkpoint. Returns the first problem. `index` is `None` if the server makes a new index.
    pub(super) fn lacks_any(
        &self,
        files: &dyn FileSet,
        chunks: &ChunkSet,
        writer: WriterPosition,
        index: Option<IndexBeside<'_>>,
        run: &Run,
    ) -> Result<Option<IndexProblem>> {
        let end = self.complete_to.min(writer.0);
        let mut readable: Vec<&LogFile> = Vec::new();
        for file in chunks.in_use() {
            let header = file.header();
            if header.transform == Transform::Identity && header.start_position() < end {
                readable.push(file);
            }
        }

        let every = readable.len().div_ceil(SAMPLED_CHUNKS).max(1);
        for file in readable.iter().step_by(every) {
            run.check()?;
            let events = first_events(files, file, end)?;
            if let Some(problem) = self.first_unknown(files, &events, index)? {
                return Ok(Some(problem));
            }
        }

        let mut left = LATEST_EVENTS;
        for file in readable.iter().rev() {
            run.check()?;
            let events = last_events(files, file, end, left)?;
            if let Some(problem) = self.first_unknown(files, &events, index)? {
                return Ok(Some(problem));
            }

            left = left.saturating_sub(events.len());
            if left == 0 {
                break;
            }
        }

        Ok(None)
    }

    fn first_unknown(
        &self,
        files: &dyn FileSet,
        events: &[FilteredEvent],
        index: Option<IndexBeside<'_>>,
    ) -> Result<Option<IndexProblem>> {
        for event in events {
            let Some(problem) = self.lacks(files, &event.stream, event.position)? else {
                continue;
            };

            // The server shows no event of a stream that the index lacks, so it does not miss the
            // stream in the filter. A scavenge can leave such a stream in its chunks (O48).
            if let Some(index) = index
                && event.position <= index.commit
                && !has_entries(files, index.tables, &event.stream)?
            {
                continue;
            }
            return Ok(Some(problem));
        }
        Ok(None)
    }
}

/// Checks the stream-existence filter without the log. Returns `None` if the filter, or its
/// checkpoint, is missing or damaged.
pub(super) fn check_stream_filter(
    files: &dyn FileSet,
    scope: &IndexScope<'_>,
    proof: &mut IndexProof,
) -> Result<Option<StreamFilter>> {
    let path = RelativePath::stream_filter();
    let Some(source) = files.open(&path)? else {
        return Ok(None);
    };
    let filter = FilterFile {
        path: &path,
        source: &*source,
        fault: IndexFault::StreamFilter,
    };
    if !filter.is_good(files, scope.depth, proof)? {
        return Ok(None);
    }

    let checkpoint = RelativePath::stream_filter_checkpoint();
    let Some(position) = files.open(&checkpoint)? else {
        return Ok(None);
    };
    let bytes = read_small(&*position, LONGEST_CHECKPOINT);
    let parsed = bytes.and_then(|bytes| checkpoint::position(&bytes));
    let position = proof.judge(files, &checkpoint, IndexFault::StreamFilter, parsed)?;

    let Some(Some(complete_to)) = position else {
        return Ok(None);
    };
    Ok(Some(StreamFilter {
        path,
        source,
        complete_to,
    }))
}

/// Looks up streams of a captured log in the filter that was captured with it, as a verification
/// does. Returns `None` if there is no filter, or if nothing is wrong with it.
///
/// # Errors
/// [`Kind::SourceCorrupt`](crate::error::Kind::SourceCorrupt) if the filter, or its checkpoint,
/// cannot be read at all.
pub fn stream_filter_gap(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    writer: WriterPosition,
    run: &Run,
) -> Result<Option<IndexProblem>> {
    let path = RelativePath::stream_filter();
    let checkpoint = RelativePath::stream_filter_checkpoint();
    let (Some(source), Some(position)) = (files.open(&path)?, files.open(&checkpoint)?) else {
        return Ok(None);
    };

    let bytes = with_place(
        files,
        &checkpoint,
        read_small(&*position, LONGEST_CHECKPOINT),
    )?;
    let position = with_place(files, &checkpoint, checkpoint::position(&bytes))?;

    let opened = with_place(files, &path, bloom::inspect(&*source))?;
    let lines = with_place(files, &path, opened.check_lines())?;
    if !lines.accepted() {
        let what = format!("more than 5 % of its {} lines are damaged", lines.total);
        let problem = IndexProblem::new(&path, IndexFault::StreamFilter, what);
        return Ok(Some(problem));
    }

    let filter = StreamFilter {
        path,
        source,
        complete_to: position.unwrap_or(LogPosition::ZERO),
    };
    let Some(gap) = filter.lacks_any(files, chunks, writer, None, run)? else {
        return Ok(None);
    };

    // Few filters have a gap, so only now is the index worth a reading.
    let mut proof = IndexProof::default();
    let Some(map) = read_map(files, &mut proof)? else {
        return Ok(Some(gap));
    };
    let scope = IndexScope {
        chunks: None,
        writer,
        depth: Depth::Quick,
        hash_tables: false,
    };
    let mut tables = Vec::new();
    for row in &map.tables {
        tables.extend(check_table(files, row.table, &scope, &mut proof)?);
    }
    let index = map.commit.map(|commit| IndexBeside {
        tables: &tables,
        commit,
    });
    filter.lacks_any(files, chunks, writer, index, run)
}

impl FilteredEvent {
    /// Returns `None` if the record is not an event that the server puts into the filter.
    fn of(record: &Record<'_>, position: LogPosition) -> Option<Self> {
        let Record::Prepare(prepare) = record else {
            return None;
        };
        if !prepare.flags.contains(PrepareFlags::DATA) || prepare.event_number().is_none() {
            return None;
        }

        let stream = prepare.stream_name().into_owned();
        Some(Self { position, stream })
    }
}

/// Some events from the beginning of a chunk. If the chunk is damaged, the list ends there. Another
/// finding reports the damage.
fn first_events(
    files: &dyn FileSet,
    file: &LogFile,
    end: LogPosition,
) -> Result<Vec<FilteredEvent>> {
    let source = file.open(files)?;
    let data = if file.chunk.footer().is_some() {
        file.chunk.completed_data()
    } else {
        file.chunk.data_before(end)
    };
    let frames = data.and_then(|data| Forwards::new(&*source, file.header(), data));
    let Some(mut frames) = undamaged(files, file, frames)? else {
        return Ok(Vec::new());
    };

    let mut events = Vec::with_capacity(EVENTS_OF_CHUNK);
    while events.len() < EVENTS_OF_CHUNK {
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position >= end {
            break;
        }
        events.extend(FilteredEvent::of(&frame.record, frame.position));
    }
    Ok(events)
}

/// The last events of a chunk before `end`, at most `count`. If the chunk is damaged, the list ends
/// there.
fn last_events(
    files: &dyn FileSet,
    file: &LogFile,
    end: LogPosition,
    count: usize,
) -> Result<Vec<FilteredEvent>> {
    let source = file.open(files)?;
    let header = file.header();
    let is_whole = header.end_position() <= end || header.scavenged;
    let data = if is_whole {
        file.chunk.completed_data()
    } else {
        file.chunk.data_before(end)
    };
    let frames = data.and_then(|data| Backwards::new(&*source, header, data));
    let Some(mut frames) = undamaged(files, file, frames)? else {
        return Ok(Vec::new());
    };

    let mut events = Vec::new();
    while events.len() < count {
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position < end {
            events.extend(FilteredEvent::of(&frame.record, frame.position));
        }
    }
    Ok(events)
}

/// Returns `None` if a parser found damage. An error of the storage stays an error.
fn undamaged<T>(
    files: &dyn FileSet,
    file: &LogFile,
    parsed: format::Result<T>,
) -> Result<Option<T>> {
    match parsed {
        Ok(value) => Ok(Some(value)),
        Err(format::Error::Malformed(_)) => Ok(None),
        Err(error) => with_place(files, &file.path, Err(error)),
    }
}
