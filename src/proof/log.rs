use std::collections::HashSet;

use super::chunks::{ChunkSet, LogFile, named};
use super::passage::{self, Broken, Passage, Tally, data_of};
use crate::error::{Error, Kind, Result};
use crate::format::boundary::Boundaries;
use crate::format::chunk::{HEADER_LENGTH, Header, Transform};
use crate::format::record::{Backwards, Lookup, Record};
use crate::format::{
    self, Boundary, Chain, EpochRecord, Lineage, LogPosition, Malformed, ReadAt, WriterPosition,
};
use crate::manifest::{FileSet, RelativePath};
use crate::run::Run;

/// Frames between two looks at whether the run was told to end.
const FRAMES_BETWEEN_CHECKS: u64 = 4096;

/// Follows the epochs of the log back from the one at `epoch` (`epoch.chk`) to the first
/// (disk-format §4.5). Reads a few KiB for each epoch.
///
/// # Errors
/// [`Kind::SourceCorrupt`] where no epoch record stands at `epoch` or at a place that an epoch
/// names as the one before it, [`Kind::Refused`] for encrypted chunks; what the storage reports.
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

/// The position of the last epoch record before `end`, found by reading the log backwards, as a
/// server does that has no `epoch.chk`.
///
/// # Errors
/// As for [`scan`].
pub fn last_epoch(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    end: LogPosition,
    run: &Run,
) -> Result<Option<LogPosition>> {
    for file in chunks
        .in_use()
        .iter()
        .rev()
        .filter(|file| file.file.header.start_position() < end)
    {
        refuse_transformed(files, file)?;
        let source = file.open(files)?;
        let data = named(files, &file.path, data_of(&file.file, end))?;
        let mut frames = named(
            files,
            &file.path,
            Backwards::new(&*source, &file.file.header, data),
        )?;
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
pub(super) fn epoch_record(
    file: &LogFile,
    source: &dyn ReadAt,
    position: LogPosition,
) -> format::Result<EpochRecord> {
    let mut lookup = lookup(file, source)?;
    match lookup.read_at_position(position)? {
        Some(frame) => EpochRecord::parse(&frame),
        None => Err(Malformed::new(
            "epoch record",
            0,
            format!("an epoch record at log position {position}"),
            "none",
        )
        .into()),
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
    file.file
        .header
        .end_position()
        .since(file.file.header.start_position())
}

fn holding<'a>(
    files: &dyn FileSet,
    chunks: &'a ChunkSet,
    position: LogPosition,
) -> Result<&'a LogFile> {
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
    Err(Error::new(
        Kind::Refused,
        "the chunk is encrypted, and its records cannot be proven",
    )
    .on(files.place_of(&file.path))
    .hint("take volume snapshots of this node"))
}

/// A chunk file whose records are to be read.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// The file.
    pub path: RelativePath,
    /// Where to begin: a boundary in the file, or its start. Scavenged files are always read whole.
    pub from: LogPosition,
    /// What these records have shown already, where they were looked at while the file was copied.
    pub passage: Option<Passage>,
}

impl Stretch {
    /// Records that nobody has looked at yet.
    #[must_use]
    pub const fn new(path: RelativePath, from: LogPosition) -> Self {
        Self {
            path,
            from,
            passage: None,
        }
    }
}

/// What a log ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// A whole append, or a record outside of one.
    Whole,
    /// An epoch record: the event that the server writes after it is still to come (disk-format
    /// §2.7 C3).
    Epoch,
    /// A part of an append; everything before it ends here (O32).
    HalfAppend(LogPosition),
}

/// What a scan of log records has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// P: the last position at or before the writer's where a log may end. Never directly behind an
    /// epoch record.
    pub boundary: Boundary,
    /// What stands before the writer's position.
    pub end: LogEnd,
    /// What the records told.
    pub seen: Tally,
}

/// Parses every record of the given files forwards, those of the last one up to `writer`, and finds
/// where the log may end.
///
/// `start` is a boundary that is known already: of an earlier backup, or [`Boundary::ZERO`]. It is
/// the answer where the records seen show no later one.
///
/// # Errors
/// [`Kind::SourceCorrupt`], with file, byte offset and log position, at the first bytes below
/// `writer` that are no record, or not the one that belongs there; [`Kind::Refused`] for encrypted
/// chunks; [`Kind::Failed`] where the stretches do not lead up to `writer`; what the storage
/// reports.
pub fn scan(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    stretches: &[Stretch],
    start: Boundary,
    writer: WriterPosition,
    run: &Run,
) -> Result<LogProof> {
    scan_or_damage(files, chunks, stretches, start, writer, run)
        .map_err(|stop| stop.into_error(files))
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
            Self::Torn(Torn {
                path,
                position,
                why: format::Error::Malformed(why),
            }) => Error::new(
                Kind::SourceCorrupt,
                format!("the log is damaged at position {position}"),
            )
            .on(files.place_of(&path))
            .because(why),
            Self::Torn(Torn {
                path,
                why: format::Error::Read(error),
                ..
            }) => Error::new(Kind::Failed, "cannot read")
                .on(files.place_of(&path))
                .because(error),
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
    for (file, from, seen) in in_order(chunks, stretches)? {
        let header = &file.file.header;
        if header.start_position() > writer.0 {
            break;
        }
        refuse_transformed(files, file)?;
        if tracker.reached != from {
            tracker.jump(from, start);
        }
        match seen.filter(|seen| seen.is_of(&file.file, from, writer)) {
            Some(seen) => tracker.go_on(seen),
            None => tracker.go_on(&read(files, file, from, writer, run)?),
        }
        if header.end_position() <= writer.0 {
            tracker.end_of_file(header);
        }
    }
    tracker.finish(start, writer).map_err(Stop::Failed)
}

fn read(
    files: &dyn FileSet,
    file: &LogFile,
    from: LogPosition,
    writer: WriterPosition,
    run: &Run,
) -> Result<Passage, Stop> {
    let source = file.open(files)?;
    passage::read(&file.file, &*source, from, writer, run).map_err(|broken| match broken {
        Broken::Torn(position, why) => Stop::Torn(Torn {
            path: file.path.clone(),
            position,
            why,
        }),
        Broken::Stopped(error) => Stop::Failed(error),
    })
}

/// The files to scan and where in each to begin, in the order of the log.
fn in_order<'a>(
    chunks: &'a ChunkSet,
    stretches: &'a [Stretch],
) -> Result<Vec<(&'a LogFile, LogPosition, Option<&'a Passage>)>> {
    let mut ordered = Vec::with_capacity(stretches.len());
    let mut seen = HashSet::new();
    for stretch in stretches
        .iter()
        .filter(|stretch| seen.insert(&stretch.path))
    {
        let file = chunks
            .file(&stretch.path)
            .ok_or_else(|| Error::new(Kind::Failed, "no such chunk is in use").on(&stretch.path))?;
        let header = &file.file.header;
        let from = if header.scavenged {
            header.start_position()
        } else {
            stretch.from.max(header.start_position())
        };
        ordered.push((file, from, stretch.passage.as_ref()));
    }
    ordered.sort_by_key(|(file, ..)| file.start());
    Ok(ordered)
}

/// Follows the appends through the records.
struct Tracker {
    boundaries: Boundaries,
    /// Everything from the last jump up to here has been seen.
    reached: LogPosition,
    /// The last record was an epoch.
    behind_epoch: bool,
    seen: Tally,
}

impl Tracker {
    fn new(start: Boundary) -> Self {
        Self {
            boundaries: Boundaries::starting_at(start),
            reached: start.position(),
            behind_epoch: false,
            seen: Tally::default(),
        }
    }

    /// Goes on elsewhere.
    fn jump(&mut self, to: LogPosition, start: Boundary) {
        self.boundaries = Boundaries::starting_at(start);
        self.reached = to;
        self.behind_epoch = false;
    }

    fn go_on(&mut self, passage: &Passage) {
        self.boundaries.go_on(&passage.boundaries);
        if passage.tally.records > 0 {
            self.reached = passage.reached;
            self.behind_epoch = passage.behind_epoch;
        }
        self.seen.go_on(&passage.tally);
    }

    fn end_of_file(&mut self, header: &Header) {
        self.boundaries.chunk_completed(header);
        self.reached = header.end_position();
    }

    fn finish(self, start: Boundary, writer: WriterPosition) -> Result<LogProof> {
        let Self {
            boundaries,
            reached,
            behind_epoch,
            seen,
        } = self;
        if reached == writer.0 {
            let end = match boundaries.last().position() {
                boundary if boundary == writer.0 => LogEnd::Whole,
                _ if behind_epoch => LogEnd::Epoch,
                boundary => LogEnd::HalfAppend(boundary),
            };
            return Ok(LogProof {
                boundary: boundaries.last(),
                end,
                seen,
            });
        }
        if start.position() == writer.0 {
            return Ok(LogProof {
                boundary: start,
                end: LogEnd::Whole,
                seen,
            });
        }
        Err(Error::new(
            Kind::Failed,
            format!("the records were read up to {reached}, and the log ends at {writer}"),
        ))
    }
}
