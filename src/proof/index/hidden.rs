//! Events that the log holds and the index lacks (O39).

use super::report::HiddenEvents;
use super::tables::CheckedTable;
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::ptable::{Table, TableEntry};
use crate::format::record::{Backwards, Forwards, Prepare, PrepareFlags, Record};
use crate::format::{self, LogPosition, ReadAt};
use crate::log::{ChunkSet, LogFile, open_listed, with_place};
use crate::manifest::FileSet;
use crate::run::Run;

/// Events of the log that are looked up in the index.
const SAMPLES: usize = 1000;
/// Events that are taken from the beginning of one chunk.
const SAMPLES_OF_CHUNK: usize = 16;
/// Bytes of the longest scavenge point that is read.
const LONGEST_POINT: u64 = 64 * 1024;

/// An event of the log that should be in the index.
struct IndexedEvent {
    position: LogPosition,
    /// The hash of its stream's name.
    stream: u64,
    number: i64,
}

/// Looks up events from the beginnings of chunks that no scavenge has rewritten. A scavenge removes
/// the same events from log and index. So if the index lacks such an event, a scavenge has changed
/// the index and not these chunks (O39).
pub(super) fn hidden_events(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    tables: &[CheckedTable],
    commit: LogPosition,
    run: &Run,
) -> Result<Option<HiddenEvents>> {
    let samples = sample(files, chunks, commit, run)?;
    let sampled = samples.len() as u64;

    let missing = not_in(files, tables, samples, run)?;
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else {
        return Ok(None);
    };

    Ok(Some(HiddenEvents {
        missing: missing.len() as u64,
        sampled,
        first: first.position,
        explained: threshold_scavenge_after(files, chunks, last.position)?,
    }))
}

/// A sample of the events up to `commit`, from all over the log and in its order.
fn sample(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    commit: LogPosition,
    run: &Run,
) -> Result<Vec<IndexedEvent>> {
    let mut candidates: Vec<&LogFile> = Vec::new();
    for file in chunks.in_use() {
        let header = file.header();
        let is_readable = header.transform == Transform::Identity && file.chunk.footer().is_some();
        if is_readable && !header.scavenged && header.start_position() <= commit {
            candidates.push(file);
        }
    }

    // A few events of each chunk, or of some chunks if there are very many.
    let every = candidates.len().div_ceil(SAMPLES).max(1);
    let of_each = (SAMPLES / candidates.len().max(1)).clamp(1, SAMPLES_OF_CHUNK);
    let mut samples = Vec::new();
    for file in candidates.into_iter().step_by(every) {
        run.check()?;
        samples.extend(first_events(files, file, of_each, commit)?);
    }
    Ok(samples)
}

/// At most `count` events from the beginning of a chunk. If the chunk is damaged, the list ends
/// there. Another finding reports the damage.
fn first_events(
    files: &dyn FileSet,
    file: &LogFile,
    count: usize,
    commit: LogPosition,
) -> Result<Vec<IndexedEvent>> {
    let source = file.open(files)?;
    let data = with_place(files, &file.path, file.chunk.completed_data())?;
    let frames = Forwards::new(&*source, file.header(), data);
    let mut frames = with_place(files, &file.path, frames)?;

    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position > commit {
            break;
        }

        if let Record::Prepare(prepare) = &frame.record
            && prepare.flags.contains(PrepareFlags::DATA)
            && let Some(number) = prepare.event_number()
        {
            events.push(IndexedEvent {
                position: frame.position,
                stream: stream_hash(&prepare.stream_name()),
                number,
            });
        }
    }
    Ok(events)
}

/// Those events that no table has. Opens one table after the other, because a node may have more
/// tables than a process may have open files.
fn not_in(
    files: &dyn FileSet,
    tables: &[CheckedTable],
    mut events: Vec<IndexedEvent>,
    run: &Run,
) -> Result<Vec<IndexedEvent>> {
    for checked in tables {
        run.check()?;
        if events.is_empty() {
            break;
        }

        let source = open_listed(files, &checked.path)?;
        let table = with_place(files, &checked.path, Table::open(&*source))?;
        let mut others = Vec::new();
        for event in events {
            if !with_place(files, &checked.path, contains(&table, &event))? {
                others.push(event);
            }
        }
        events = others;
    }
    Ok(events)
}

/// Searches a table, which is sorted in descending order.
fn contains(table: &Table<'_>, event: &IndexedEvent) -> format::Result<bool> {
    let wanted = TableEntry {
        stream: table.layout().version.entry_hash(event.stream),
        event_number: event.number,
        position: event.position,
    };

    let (mut low, mut high) = (0, table.layout().entries);
    while low < high {
        let middle = low + (high - low) / 2;
        match table.entry(middle)? {
            Some(entry) if entry == wanted => return Ok(true),
            Some(entry) if entry > wanted => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(false)
}

/// Whether a scavenge with a threshold came after `position`. Such a scavenge does not rewrite
/// chunks from which it would remove little. Its scavenge point is the last record of a chunk
/// (disk-format §2.6).
fn threshold_scavenge_after(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    position: LogPosition,
) -> Result<bool> {
    for file in chunks.in_use() {
        let header = file.header();
        if header.end_position() <= position
            || header.transform != Transform::Identity
            || file.chunk.footer().is_none()
        {
            continue;
        }

        let source = file.open(files)?;
        if let Some(point) = last_scavenge_point(file, &*source)
            && point.threshold > 0
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the server writes into a scavenge point.
#[derive(serde::Deserialize)]
struct ScavengePoint {
    #[serde(default)]
    threshold: i64,
}

/// The scavenge point that a chunk ends with. Returns `None` if it ends with another record, or if
/// its end cannot be read.
fn last_scavenge_point(file: &LogFile, source: &dyn ReadAt) -> Option<ScavengePoint> {
    let data = file.chunk.completed_data().ok()?;
    let mut frames = Backwards::new(source, file.header(), data).ok()?;
    let frame = frames.next().ok()??;

    match &frame.record {
        Record::Prepare(prepare) if prepare.stream == b"$scavengePoints" => {
            scavenge_point(prepare, source)
        }
        _ => None,
    }
}

fn scavenge_point(prepare: &Prepare<'_>, source: &dyn ReadAt) -> Option<ScavengePoint> {
    if prepare.data.length > LONGEST_POINT {
        return None;
    }

    let mut bytes = vec![0; usize::try_from(prepare.data.length).ok()?];
    source.read_exact_at(prepare.data.offset, &mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}
