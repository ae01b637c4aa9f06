//! Events that the log holds, that a server should show, and that the index lacks (O39).
//!
//! A healthy index lacks events too: a scavenge drops from it what the stream's metadata hides, and
//! may leave it in a chunk (O48). So `visibility` judges each event that is not in the index.

use std::collections::BTreeSet;

use super::report::HiddenEvents;
use super::streams::{StreamReader, moment};
use super::tables::CheckedTable;
use super::visibility::{LoggedEvent, Visibility};
use crate::clock;
use crate::error::Result;
use crate::format::chunk::Transform;
use crate::format::hash::stream_hash;
use crate::format::ptable::{Table, TableEntry};
use crate::format::record::{Forwards, PrepareFlags, Record};
use crate::log::{LogFile, open_listed, with_place};
use crate::manifest::FileSet;
use crate::run::Run;

/// Events of the log that are looked up in the index.
const SAMPLES: usize = 1000;
/// Events that are taken from the beginning of one chunk.
const SAMPLES_OF_CHUNK: usize = 16;

/// Looks up events from the beginnings of chunks that no scavenge has rewritten.
pub(super) fn hidden_events(reader: &StreamReader<'_>) -> Result<Option<HiddenEvents>> {
    let samples = sample(reader)?;
    let sampled = samples.len() as u64;

    let gaps = not_in(reader.files, reader.tables, samples, reader.run)?;
    if gaps.is_empty() {
        return Ok(None);
    }

    let streams: BTreeSet<&str> = gaps.iter().map(|event| event.stream.as_str()).collect();
    let known = reader.read(&streams)?;
    let now = clock::now();
    let mut shown = Vec::new();
    let mut unknown = Vec::new();
    for event in &gaps {
        let history = known.history(&event.stream);
        match history.judge(event, &known.scavenges, now) {
            Visibility::Shown => shown.push(event.position),
            Visibility::Unknown => unknown.push(event.position),
            Visibility::Hidden => {}
        }
    }

    let Some(first) = shown.first().or(unknown.first()) else {
        return Ok(None);
    };
    Ok(Some(HiddenEvents {
        missing: shown.len() as u64,
        unknown: unknown.len() as u64,
        sampled,
        first: *first,
    }))
}

/// A sample of the events that the index should hold, from all over the log and in its order.
fn sample(reader: &StreamReader<'_>) -> Result<Vec<LoggedEvent>> {
    let mut candidates: Vec<&LogFile> = Vec::new();
    for file in reader.chunks.in_use() {
        let header = file.header();
        let is_readable = header.transform == Transform::Identity && file.chunk.footer().is_some();
        if is_readable && !header.scavenged && header.start_position() <= reader.commit {
            candidates.push(file);
        }
    }

    // A few events of each chunk, or of some chunks if there are very many.
    let every = candidates.len().div_ceil(SAMPLES).max(1);
    let of_each = (SAMPLES / candidates.len().max(1)).clamp(1, SAMPLES_OF_CHUNK);
    let mut samples = Vec::new();
    for file in candidates.into_iter().step_by(every) {
        reader.run.check()?;
        samples.extend(first_events(reader, file, of_each)?);
    }
    Ok(samples)
}

/// At most `count` events from the beginning of a chunk. If the chunk is damaged, the list ends
/// there. Another finding reports the damage.
fn first_events(
    reader: &StreamReader<'_>,
    file: &LogFile,
    count: usize,
) -> Result<Vec<LoggedEvent>> {
    let files = reader.files;
    let source = file.open(files)?;
    let data = with_place(files, &file.path, file.chunk.completed_data())?;
    let frames = Forwards::new(&*source, file.header(), data);
    let mut frames = with_place(files, &file.path, frames)?;

    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let Ok(Some(frame)) = frames.next() else {
            break;
        };
        if frame.position > reader.commit {
            break;
        }

        if let Record::Prepare(prepare) = &frame.record
            && prepare.flags.contains(PrepareFlags::DATA)
            && let Some(number) = prepare.event_number()
        {
            events.push(LoggedEvent {
                position: frame.position,
                stream: prepare.stream_name().into_owned(),
                number,
                written: moment(prepare.timestamp),
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
    mut events: Vec<LoggedEvent>,
    run: &Run,
) -> Result<Vec<LoggedEvent>> {
    for checked in tables {
        run.check()?;
        if events.is_empty() {
            break;
        }

        let source = open_listed(files, &checked.path)?;
        let table = with_place(files, &checked.path, Table::open(&*source))?;
        let mut others = Vec::new();
        for event in events {
            let wanted = TableEntry {
                stream: checked.version.entry_hash(stream_hash(&event.stream)),
                event_number: event.number,
                position: event.position,
            };
            if !with_place(files, &checked.path, table.contains(&wanted))? {
                others.push(event);
            }
        }
        events = others;
    }
    Ok(events)
}
