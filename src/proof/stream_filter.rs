//! The stream-existence filter: does it know the streams of all events before its checkpoint? A
//! server takes a stream that it does not know for a new one.

use super::index::{IndexFault, IndexProblem};
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::record::{Backwards, Flags, Forwards, Record};
use crate::format::{self, LogPosition, ReadAt, WriterPosition, bloom, checkpoint};
use crate::log::{ChunkSet, LogFile, open_listed, read_small, with_place};
use crate::manifest::{FileSet, RelativePath};
use crate::run::Run;

/// The last events before the filter's checkpoint that are looked up.
const LATEST: usize = 1000;
/// Chunks whose first events are looked up, evenly over the log, and how many of each.
const CHUNKS: usize = 200;
const OF_CHUNK: usize = 5;

/// A filter, and the log position up to which it says that it is complete.
pub(super) struct StreamFilter {
    pub(super) path: RelativePath,
    pub(super) source: Box<dyn ReadAt>,
    pub(super) complete_to: LogPosition,
}

impl StreamFilter {
    /// What is wrong with the filter where it does not know the stream of an event; none where the
    /// event is none of those that it has to know.
    pub(super) fn lacks(
        &self,
        files: &dyn FileSet,
        stream: &str,
        position: LogPosition,
    ) -> Result<Option<IndexProblem>> {
        if position >= self.complete_to {
            return Ok(None);
        }
        let knows = bloom::inspect(&*self.source)
            .and_then(|opened| opened.might_contain(stream_hash(stream)));
        if with_place(files, &self.path, knows)? {
            return Ok(None);
        }
        let what =
            format!("it does not know stream `{stream}`, whose event at {position} it should");
        Ok(Some(IndexProblem {
            path: self.path.clone(),
            fault: IndexFault::StreamFilterIncomplete,
            what,
        }))
    }

    /// Looks a sample of the log's events up: some from all over it, and the last ones before the
    /// checkpoint.
    pub(super) fn lacks_any(
        &self,
        files: &dyn FileSet,
        chunks: &ChunkSet,
        writer: WriterPosition,
        run: &Run,
    ) -> Result<Option<IndexProblem>> {
        let end = self.complete_to.min(writer.0);
        let readable: Vec<&LogFile> = chunks
            .in_use()
            .iter()
            .filter(|file| {
                file.file.header.transform == Transform::Identity
                    && file.file.header.start_position() < end
            })
            .collect();
        for file in readable
            .iter()
            .step_by(readable.len().div_ceil(CHUNKS).max(1))
        {
            run.check()?;
            for (position, stream) in first_events(files, file, end)? {
                if let Some(problem) = self.lacks(files, &stream, position)? {
                    return Ok(Some(problem));
                }
            }
        }
        let mut left = LATEST;
        for file in readable.iter().rev() {
            run.check()?;
            let events = last_events(files, file, end, left)?;
            left -= events.len().min(left);
            for (position, stream) in events {
                if let Some(problem) = self.lacks(files, &stream, position)? {
                    return Ok(Some(problem));
                }
            }
            if left == 0 {
                break;
            }
        }
        Ok(None)
    }
}

/// Looks a captured filter up in the log it came with, as far as a verification would. None where
/// there is no filter, or nothing is wrong with it.
///
/// # Errors
/// What the storage reports; a filter that cannot be read at all.
pub fn stream_filter_gap(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    writer: WriterPosition,
    run: &Run,
) -> Result<Option<IndexProblem>> {
    let (data, checkpoint) = (
        RelativePath::stream_filter(),
        RelativePath::stream_filter_checkpoint(),
    );
    let (Some(source), Some(position)) = (files.open(&data)?, files.open(&checkpoint)?) else {
        return Ok(None);
    };
    let position = with_place(
        files,
        &checkpoint,
        read_small(&*position, 64).and_then(|bytes| checkpoint::position(&bytes)),
    )?;
    let complete_to = position.unwrap_or(LogPosition::ZERO);
    let lines = with_place(
        files,
        &data,
        bloom::inspect(&*source).and_then(|filter| filter.check_lines()),
    )?;
    if !lines.accepted() {
        let what = format!("more than 5 % of its {} lines are damaged", lines.total);
        return Ok(Some(IndexProblem {
            path: data,
            fault: IndexFault::StreamFilter,
            what,
        }));
    }
    StreamFilter {
        path: data,
        source,
        complete_to,
    }
    .lacks_any(files, chunks, writer, run)
}

type Sample = (LogPosition, String);

/// An event that the server has put into the filter.
fn sample(record: &Record<'_>, position: LogPosition) -> Option<Sample> {
    match record {
        Record::Prepare(prepare)
            if prepare.flags.contains(Flags::DATA) && prepare.event_number().is_some() =>
        {
            Some((position, prepare.stream_name().into_owned()))
        }
        _ => None,
    }
}

fn first_events(files: &dyn FileSet, file: &LogFile, end: LogPosition) -> Result<Vec<Sample>> {
    let source = open_listed(files, &file.path)?;
    let data = if file.file.footer().is_some() {
        file.file.completed_data()
    } else {
        file.file.data_before(end)
    };
    let frames = data.and_then(|data| Forwards::new(&*source, &file.file.header, data));
    // Damage in a chunk, here and below, is told elsewhere.
    let Some(mut frames) = undamaged(files, file, frames)? else {
        return Ok(Vec::new());
    };
    let mut samples = Vec::with_capacity(OF_CHUNK);
    while samples.len() < OF_CHUNK {
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position >= end {
            break;
        }
        samples.extend(sample(&frame.record, frame.position));
    }
    Ok(samples)
}

fn last_events(
    files: &dyn FileSet,
    file: &LogFile,
    end: LogPosition,
    count: usize,
) -> Result<Vec<Sample>> {
    let source = open_listed(files, &file.path)?;
    let header = &file.file.header;
    let whole = header.end_position() <= end || header.scavenged;
    let data = if whole {
        file.file.completed_data()
    } else {
        file.file.data_before(end)
    };
    let frames = data.and_then(|data| Backwards::new(&*source, header, data));
    let Some(mut frames) = undamaged(files, file, frames)? else {
        return Ok(Vec::new());
    };
    let mut samples = Vec::new();
    while samples.len() < count {
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position < end {
            samples.extend(sample(&frame.record, frame.position));
        }
    }
    Ok(samples)
}

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
