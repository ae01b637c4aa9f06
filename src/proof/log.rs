use std::collections::HashSet;

use super::chunks::{ChunkSet, LogFile, named};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::event::Run;
use crate::format::boundary::Boundaries;
use crate::format::chunk::{HEADER_LENGTH, Header, Transform};
use crate::format::position_map::PositionMap;
use crate::format::record::{Backwards, Flags, Forwards, Frame, Lookup, Prepare, Record};
use crate::format::{self, Boundary, Chain, Epoch, EpochRecord, Lineage, LogPosition, Malformed, ReadAt, WriterPosition};
use crate::manifest::{FileSet, RelativePath};

/// Frames between two looks at whether the run was told to end.
const FRAMES_BETWEEN_CHECKS: u64 = 4096;

/// Follows the epochs of the log back from the one at `epoch` (`epoch.chk`) to the first (disk-format §4.5). Reads a few KiB for each epoch.
///
/// # Errors
/// [`Kind::SourceCorrupt`] where no epoch record stands at `epoch` or at a place that an epoch names as the one before it, [`Kind::Refused`] for encrypted
/// chunks; what the storage reports.
pub fn lineage(files: &dyn FileSet, chunks: &ChunkSet, epoch: LogPosition) -> Result<Lineage> {
    let mut chain = Chain::starting_at(Some(epoch));
    let mut open: Option<(&LogFile, Box<dyn ReadAt>)> = None;
    while let Some(position) = chain.wanted() {
        let file = holding(files, chunks, position)?;
        let source = match open.take() {
            Some((same, source)) if same.path == file.path => source,
            _ => file.open(files)?,
        };
        let record = named(files, &file.path, epoch_record(file, &*source, position))?;
        named(files, &file.path, chain.add(&record))?;
        open = Some((file, source));
    }
    Ok(chain.finish())
}

/// The position of the last epoch record before `end`, found by reading the log backwards, as a server does that has no `epoch.chk`.
///
/// # Errors
/// As for [`scan`].
pub fn last_epoch(files: &dyn FileSet, chunks: &ChunkSet, end: LogPosition, run: &Run) -> Result<Option<LogPosition>> {
    for file in chunks.in_use().iter().rev().filter(|file| file.file.header.start_position() < end) {
        refuse_transformed(files, file)?;
        let source = file.open(files)?;
        let data = named(files, &file.path, data_of(file, end))?;
        let mut frames = named(files, &file.path, Backwards::new(&*source, &file.file.header, data))?;
        let mut count = 0_u64;
        while let Some(frame) = named(files, &file.path, frames.next())? {
            if matches!(&frame.record, Record::System(system) if system.is_epoch()) {
                return Ok(Some(frame.position));
            }
            count += 1;
            if count.is_multiple_of(FRAMES_BETWEEN_CHECKS) {
                run.check()?;
            }
        }
    }
    Ok(None)
}

/// What the epoch record at a position says.
pub(super) fn epoch_record(file: &LogFile, source: &dyn ReadAt, position: LogPosition) -> format::Result<EpochRecord> {
    let mut lookup = lookup(file, source)?;
    match lookup.read_at_position(position)? {
        Some(frame) => EpochRecord::parse(&frame),
        None => Err(Malformed::new("epoch record", 0, format!("an epoch record at log position {position}"), "none").into()),
    }
}

/// Reads single records of a file.
pub(super) fn lookup<'a>(file: &LogFile, source: &'a dyn ReadAt) -> format::Result<Lookup<'a>> {
    let data = match file.file.footer() {
        Some(_) => file.file.completed_data()?,
        None => HEADER_LENGTH..file.file.length.min(HEADER_LENGTH + capacity(file)),
    };
    Lookup::new(source, &file.file, data)
}

fn capacity(file: &LogFile) -> u64 {
    file.file.header.end_position().since(file.file.header.start_position())
}

fn holding<'a>(files: &dyn FileSet, chunks: &'a ChunkSet, position: LogPosition) -> Result<&'a LogFile> {
    let file = chunks.holding(position).ok_or_else(|| {
        let what = format!("the log position {position}, where an epoch should stand, lies in no chunk that is here");
        let error = Error::new(Kind::SourceCorrupt, what);
        match chunks.in_use().first() {
            Some(first) if position < first.file.header.start_position() => error.hint("chunks that lie in an archive cannot be followed"),
            _ => error,
        }
    })?;
    refuse_transformed(files, file)?;
    Ok(file)
}

fn refuse_transformed(files: &dyn FileSet, file: &LogFile) -> Result<()> {
    if file.file.header.transform == Transform::Identity {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, "the chunk is encrypted, and its records cannot be proven")
        .on(files.place_of(&file.path))
        .hint("take volume snapshots of this node"))
}

/// The bytes of a file that hold records before `end`.
fn data_of(file: &LogFile, end: LogPosition) -> format::Result<std::ops::Range<u64>> {
    let file = &file.file;
    // The file that the log ends in may have any footer (disk-format §3.7); one that ends where the log does may not have been completed yet (§6.6).
    let past =
        file.header.end_position() < end || (file.header.end_position() == end && (file.footer().is_some() || file.header.scavenged));
    if past { file.completed_data() } else { file.data_before(end) }
}

/// A chunk file whose records are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The file.
    pub path: RelativePath,
    /// Where to begin: a boundary in the file, or its start. Scavenged files are always read whole.
    pub from: LogPosition,
}

/// What a log ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// A whole append, or a record outside of one.
    Whole,
    /// An epoch record: the event that the server writes after it is still to come (disk-format §2.7 C3).
    Epoch,
    /// A part of an append; everything before it ends here (O32).
    HalfAppend(LogPosition),
}

/// What a scan of log records has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// P: the last position at or before the writer's where a log may end. Never directly behind an epoch record.
    pub boundary: Boundary,
    /// What stands before the writer's position.
    pub end: LogEnd,
    /// The epochs that were seen, oldest first.
    pub epochs: Vec<Epoch>,
    /// The time of the last event that was seen.
    pub last_event: Option<Timestamp>,
    /// Records seen.
    pub records: u64,
    /// Events seen.
    pub events: u64,
    /// Events seen that say that a scavenge began or ended.
    pub scavenges: u64,
    /// Bytes of records seen.
    pub bytes: u64,
}

/// Parses every record of the given files forwards, those of the last one up to `writer`, and finds where the log may end.
///
/// `start` is a boundary that is known already: of an earlier backup, or [`Boundary::ZERO`]. It is the answer where the records seen show no later one.
///
/// # Errors
/// [`Kind::SourceCorrupt`], with file, byte offset and log position, at the first bytes below `writer` that are no record, or not the one that belongs there;
/// [`Kind::Refused`] for encrypted chunks; [`Kind::Failed`] where the stretches do not lead up to `writer`; what the storage reports.
pub fn scan(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    stretches: &[Stretch],
    start: Boundary,
    writer: WriterPosition,
    run: &Run,
) -> Result<LogProof> {
    scan_or_damage(files, chunks, stretches, start, writer, run).map_err(|stop| stop.into_error(files))
}

/// A place where the records of the log are not what the server writes.
#[derive(Debug)]
pub(super) struct Torn {
    pub(super) path: RelativePath,
    pub(super) position: LogPosition,
    pub(super) why: format::Error,
}

/// Why a scan came to no end.
#[derive(Debug)]
pub(super) enum Stop {
    Torn(Torn),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Stop {
    fn into_error(self, files: &dyn FileSet) -> Error {
        match self {
            Self::Torn(Torn { path, position, why: format::Error::Malformed(why) }) => {
                Error::new(Kind::SourceCorrupt, format!("the log is damaged at position {position}")).on(files.place_of(&path)).because(why)
            }
            Self::Torn(Torn { path, why: format::Error::Read(error), .. }) => {
                Error::new(Kind::Failed, "cannot read").on(files.place_of(&path)).because(error)
            }
            Self::Failed(error) => error,
        }
    }
}

pub(super) fn scan_or_damage(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    stretches: &[Stretch],
    start: Boundary,
    writer: WriterPosition,
    run: &Run,
) -> Result<LogProof, Stop> {
    let mut tracker = Tracker::new(start);
    for (file, from) in in_order(chunks, stretches)? {
        if file.file.header.start_position() > writer.0 {
            break;
        }
        refuse_transformed(files, file)?;
        let source = file.open(files)?;
        if tracker.reached != from {
            tracker.jump(from, start);
        }
        scan_file(file, &*source, from, writer, &mut tracker, run)?;
    }
    tracker.finish(start, writer).map_err(Stop::Failed)
}

/// The files to scan and where in each to begin, in the order of the log.
fn in_order<'a>(chunks: &'a ChunkSet, stretches: &[Stretch]) -> Result<Vec<(&'a LogFile, LogPosition)>> {
    let mut ordered = Vec::with_capacity(stretches.len());
    let mut seen = HashSet::new();
    for stretch in stretches.iter().filter(|stretch| seen.insert(&stretch.path)) {
        let file = chunks.file(&stretch.path).ok_or_else(|| Error::new(Kind::Failed, "no such chunk is in use").on(&stretch.path))?;
        let header = &file.file.header;
        let from = if header.scavenged { header.start_position() } else { stretch.from.max(header.start_position()) };
        ordered.push((file, from));
    }
    ordered.sort_by_key(|(file, _)| file.start());
    Ok(ordered)
}

fn scan_file(
    file: &LogFile,
    source: &dyn ReadAt,
    from: LogPosition,
    writer: WriterPosition,
    tracker: &mut Tracker,
    run: &Run,
) -> Result<(), Stop> {
    let header = &file.file.header;
    let torn = |position: LogPosition, why: format::Error| Stop::Torn(Torn { path: file.path.clone(), position, why });
    let mut data = data_of(file, writer.0).map_err(|why| torn(from, why))?;
    if !header.scavenged {
        data.start = header.offset_of(from).filter(|offset| *offset <= data.end).ok_or_else(|| {
            let wanted = format!("a place between {} and the log's end at {writer}", header.start_position());
            torn(from, Malformed::new("chunk file", 0, wanted, format!("log position {from}")).into())
        })?;
    }
    let mut map = match header.scavenged {
        true => Some(PositionMap::new(source, &file.file).map_err(|why| torn(from, why))?),
        false => None,
    };
    let mut frames = Forwards::new(source, header, data.clone()).map_err(|why| torn(from, why))?;
    loop {
        let offset = frames.offset();
        let place = if header.scavenged { tracker.reached } else { place_in(file, offset) };
        let Some(frame) = frames.next().map_err(|why| torn(place, why))? else { break };
        if let Some(map) = &mut map {
            agrees_with_map(map, &frame).map_err(|why| torn(frame.position, why))?;
        }
        tracker.see(&frame).map_err(|why| torn(frame.position, why))?;
        if tracker.proof.records.is_multiple_of(FRAMES_BETWEEN_CHECKS) {
            run.check()?;
        }
    }
    if let Some(map) = &mut map
        && let Some(entry) = map.next_entry().map_err(|why| torn(tracker.reached, why))?
    {
        let why = Malformed::new(
            "position map",
            entry.offset,
            "no more entries than records",
            format!("one for log position {}", entry.position),
        );
        return Err(torn(entry.position, why.into()));
    }
    if header.end_position() <= writer.0 {
        tracker.end_of_file(header);
    }
    Ok(())
}

fn place_in(file: &LogFile, offset: u64) -> LogPosition {
    let start = file.file.header.start_position();
    start.checked_add(offset.saturating_sub(HEADER_LENGTH)).unwrap_or(start)
}

fn agrees_with_map(map: &mut PositionMap<'_>, frame: &Frame<'_>) -> format::Result<()> {
    match map.next_entry()? {
        Some(entry) if entry.position == frame.position && entry.offset == frame.offset => Ok(()),
        Some(entry) => {
            let wanted = format!("the record at log position {} and byte {}, as the position map has it", entry.position, entry.offset);
            Err(Malformed::new("log record", frame.offset, wanted, format!("log position {}", frame.position)).into())
        }
        None => Err(Malformed::new("log record", frame.offset, "an entry for it in the position map", "none").into()),
    }
}

/// Follows the appends through the records.
struct Tracker {
    boundaries: Boundaries,
    /// Everything from the last jump up to here has been seen.
    reached: LogPosition,
    /// The last record was an epoch.
    behind_epoch: bool,
    proof: LogProof,
}

impl Tracker {
    fn new(start: Boundary) -> Self {
        let proof = LogProof {
            boundary: start,
            end: LogEnd::Whole,
            epochs: Vec::new(),
            last_event: None,
            records: 0,
            events: 0,
            scavenges: 0,
            bytes: 0,
        };
        Self { boundaries: Boundaries::starting_at(start), reached: start.position(), behind_epoch: false, proof }
    }

    /// Goes on elsewhere.
    fn jump(&mut self, to: LogPosition, start: Boundary) {
        self.boundaries = Boundaries::starting_at(start);
        self.reached = to;
        self.behind_epoch = false;
    }

    fn see(&mut self, frame: &Frame<'_>) -> format::Result<()> {
        self.boundaries.add(frame);
        self.reached = frame.end();
        self.behind_epoch = false;
        let proof = &mut self.proof;
        proof.records += 1;
        proof.bytes += frame.length;
        match &frame.record {
            Record::Prepare(prepare) => {
                if prepare.flags.contains(Flags::DATA) || prepare.flags.contains(Flags::STREAM_DELETE) {
                    proof.events += 1;
                    proof.last_event = Timestamp::from_microsecond(prepare.timestamp.unix_microseconds()).ok();
                }
                proof.scavenges += u64::from(is_of_scavenge(prepare));
            }
            Record::System(system) if system.is_epoch() => {
                proof.epochs.push(EpochRecord::parse(frame)?.epoch);
                self.behind_epoch = true;
            }
            Record::Commit(_) | Record::System(_) => {}
        }
        Ok(())
    }

    fn end_of_file(&mut self, header: &Header) {
        self.boundaries.chunk_completed(header);
        self.reached = header.end_position();
    }

    fn finish(self, start: Boundary, writer: WriterPosition) -> Result<LogProof> {
        let Self { boundaries, reached, behind_epoch, mut proof } = self;
        if reached == writer.0 {
            proof.boundary = boundaries.last();
            proof.end = match boundaries.last().position() {
                boundary if boundary == writer.0 => LogEnd::Whole,
                _ if behind_epoch => LogEnd::Epoch,
                boundary => LogEnd::HalfAppend(boundary),
            };
            return Ok(proof);
        }
        if start.position() == writer.0 {
            return Ok(proof);
        }
        Err(Error::new(Kind::Failed, format!("the records were read up to {reached}, and the log ends at {writer}")))
    }
}

/// Whether a scavenge says with this event that it begins or has ended (disk-format §2.6).
fn is_of_scavenge(prepare: &Prepare<'_>) -> bool {
    prepare.stream == b"$scavengePoints" || prepare.stream.starts_with(b"$scavenges")
}
