//! Judges the records of a log: where the log may end, and where it is damaged (disk-format §2.7).

use std::collections::HashSet;

use crate::error::{Error, Kind, Result};
use crate::format::boundary::Boundaries;
use crate::format::chunk::ChunkHeader;
use crate::format::{self, Boundary, LogPosition, WriterPosition};
use crate::log::{
    ChunkRecords, ChunkSet, LogFile, RecordTally, RecordsFailure, read_records, refuse_encrypted,
};
use crate::manifest::{FileSet, RelativePath};
use crate::run::Run;

/// A chunk file whose records are to be read.
#[derive(Debug, Clone)]
pub struct LogStretch {
    /// The file.
    pub path: RelativePath,
    /// The position to begin at: a boundary in the file, or its start. A scavenged file is always
    /// read whole.
    pub from: LogPosition,
    /// What these records told while the file was copied. `None` if nobody has read them.
    pub records: Option<ChunkRecords>,
}

impl LogStretch {
    /// Records that nobody has read yet.
    #[must_use]
    pub const fn new(path: RelativePath, from: LogPosition) -> Self {
        Self {
            path,
            from,
            records: None,
        }
    }
}

/// What a log ends with, at the writer position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// A whole append, or a record outside of one.
    Whole,
    /// An epoch record. The server has not written the event that follows it (disk-format §2.7 C3).
    Epoch,
    /// A part of an append. Everything before it ends at this position (O32).
    HalfAppend(LogPosition),
}

/// What a scan of log records has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// P: the last position, at or before the writer position, where the log may end. It is never
    /// directly behind an epoch record.
    pub boundary: Boundary,
    /// What the log ends with at the writer position.
    pub end: LogEnd,
    /// What the records told.
    pub seen: RecordTally,
}

/// Parses every record of the given files forwards, those of the last file up to `writer`, and
/// finds where the log may end.
///
/// `start` is a boundary that is known already: the end of an earlier backup, or
/// [`Boundary::ZERO`]. If the records show no later boundary, the log ends at `start`.
///
/// # Errors
/// [`Kind::SourceCorrupt`], with file, byte offset and log position, at the first bytes below
/// `writer` that are not a record, or not the record that belongs there; [`Kind::Refused`] for
/// encrypted chunks; [`Kind::Failed`] if the stretches do not reach up to `writer`.
pub fn scan(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    stretches: &[LogStretch],
    start: Boundary,
    writer: WriterPosition,
    run: &Run,
) -> Result<LogProof> {
    scan_or_damage(files, chunks, stretches, start, writer, run)
        .map_err(|failure| failure.into_error(files))
}

/// A place where the records of the log are not what the server writes.
#[derive(Debug)]
pub(super) struct Torn {
    pub(super) path: RelativePath,
    pub(super) position: LogPosition,
    pub(super) why: format::Error,
}

/// Why a scan did not reach the end of the log.
#[derive(Debug)]
pub(super) enum ScanFailure {
    Torn(Torn),
    Failed(Error),
}

impl From<Error> for ScanFailure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl ScanFailure {
    fn into_error(self, files: &dyn FileSet) -> Error {
        let Torn {
            path,
            position,
            why,
        } = match self {
            Self::Torn(torn) => torn,
            Self::Failed(error) => return error,
        };

        let place = files.place_of(&path);
        match why {
            format::Error::Malformed(why) => {
                let what = format!("the log is damaged at position {position}");
                Error::new(Kind::SourceCorrupt, what).on(place).because(why)
            }
            format::Error::Read(error) => match Error::passed_on(error) {
                Ok(error) => error,
                Err(error) => Error::new(Kind::Failed, "cannot read")
                    .on(place)
                    .because(error),
            },
        }
    }
}

/// As [`scan`], for a caller that reports damage in another way.
pub(super) fn scan_or_damage(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    stretches: &[LogStretch],
    start: Boundary,
    writer: WriterPosition,
    run: &Run,
) -> Result<LogProof, ScanFailure> {
    let mut tracker = Tracker::new(start);

    for part in in_order(chunks, stretches)? {
        let PartToScan { file, from, .. } = part;
        let header = file.header();
        if header.start_position() > writer.0 {
            break;
        }
        refuse_encrypted(files, file)?;

        if tracker.reached != from {
            tracker.jump(from, start);
        }

        // The records that were read during the copy count if they are exactly this part.
        match part.records {
            Some(records) if records.are_of(&file.chunk, from, writer) => tracker.append(records),
            _ => tracker.append(&read(files, file, from, writer, run)?),
        }
        if header.end_position() <= writer.0 {
            tracker.end_of_file(header);
        }
    }

    tracker.finish(start, writer).map_err(ScanFailure::Failed)
}

fn read(
    files: &dyn FileSet,
    file: &LogFile,
    from: LogPosition,
    writer: WriterPosition,
    run: &Run,
) -> Result<ChunkRecords, ScanFailure> {
    let source = file.open(files)?;
    match read_records(&file.chunk, &*source, from, writer, run) {
        Ok(records) => Ok(records),
        Err(RecordsFailure::Torn(position, why)) => Err(ScanFailure::Torn(Torn {
            path: file.path.clone(),
            position,
            why,
        })),
        Err(RecordsFailure::Stopped(error)) => Err(ScanFailure::Failed(error)),
    }
}

/// A stretch in its place in the log.
struct PartToScan<'a> {
    file: &'a LogFile,
    from: LogPosition,
    records: Option<&'a ChunkRecords>,
}

/// The files to scan, and the position in each to begin at, in the order of the log. A file that is
/// named twice is scanned once.
fn in_order<'a>(chunks: &'a ChunkSet, stretches: &'a [LogStretch]) -> Result<Vec<PartToScan<'a>>> {
    let mut ordered = Vec::with_capacity(stretches.len());
    let mut known = HashSet::new();

    for stretch in stretches {
        if !known.insert(&stretch.path) {
            continue;
        }
        let Some(file) = chunks.file(&stretch.path) else {
            return Err(Error::new(Kind::Failed, "no such chunk is in use").on(&stretch.path));
        };

        let header = file.header();
        let from = if header.scavenged {
            header.start_position()
        } else {
            stretch.from.max(header.start_position())
        };
        ordered.push(PartToScan {
            file,
            from,
            records: stretch.records.as_ref(),
        });
    }

    ordered.sort_by_key(|part| part.file.start());
    Ok(ordered)
}

/// Follows the appends through the records.
struct Tracker {
    boundaries: Boundaries,
    /// The scan has seen everything from the last jump up to here.
    reached: LogPosition,
    /// Whether the last record was an epoch.
    is_behind_epoch: bool,
    seen: RecordTally,
}

impl Tracker {
    fn new(start: Boundary) -> Self {
        Self {
            boundaries: Boundaries::starting_at(start),
            reached: start.position(),
            is_behind_epoch: false,
            seen: RecordTally::default(),
        }
    }

    /// Continues at another position of the log.
    fn jump(&mut self, to: LogPosition, start: Boundary) {
        self.boundaries = Boundaries::starting_at(start);
        self.reached = to;
        self.is_behind_epoch = false;
    }

    /// Adds the next records of the log.
    fn append(&mut self, records: &ChunkRecords) {
        self.boundaries.append(&records.boundaries);
        if records.tally.records > 0 {
            self.reached = records.reached;
            self.is_behind_epoch = records.ends_with_epoch;
        }
        self.seen.append(&records.tally);
    }

    fn end_of_file(&mut self, header: &ChunkHeader) {
        self.boundaries.chunk_completed(header);
        self.reached = header.end_position();
    }

    fn finish(self, start: Boundary, writer: WriterPosition) -> Result<LogProof> {
        if self.reached == writer.0 {
            let boundary = self.boundaries.last();
            let end = if boundary.position() == writer.0 {
                LogEnd::Whole
            } else if self.is_behind_epoch {
                LogEnd::Epoch
            } else {
                LogEnd::HalfAppend(boundary.position())
            };
            return Ok(LogProof {
                boundary,
                end,
                seen: self.seen,
            });
        }

        // Nothing was appended since the start.
        if start.position() == writer.0 {
            return Ok(LogProof {
                boundary: start,
                end: LogEnd::Whole,
                seen: self.seen,
            });
        }

        let reached = self.reached;
        let what = format!("the records were read up to {reached}, and the log ends at {writer}");
        Err(Error::new(Kind::Failed, what))
    }
}
