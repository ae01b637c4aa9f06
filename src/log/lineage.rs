//! Reads the epochs of a log: from the last one back to the first, and the last one itself if no
//! checkpoint names it (disk-format §4.5).

use super::access::with_place;
use super::chunk_set::ChunkSet;
use super::frames::{data_before, lookup, refuse_encrypted};
use super::log_file::LogFile;
use crate::error::{Error, Kind, Result};
use crate::format::record::{Backwards, Record};
use crate::format::{self, Chain, EpochRecord, Lineage, LogPosition, Malformed, ReadAt};
use crate::manifest::FileSet;
use crate::run::Run;

/// Records that are read before the run is asked again whether it should stop.
const RECORDS_BETWEEN_CHECKS: u64 = 4096;

/// Follows the epochs of the log back from the one at `epoch` (`epoch.chk`) to the first. Reads a
/// few KiB for each epoch.
///
/// # Errors
/// [`Kind::SourceCorrupt`] if there is no epoch record at `epoch`, or at the position that an epoch
/// names as the epoch before it; [`Kind::Refused`] for encrypted chunks.
pub fn lineage(files: &dyn FileSet, chunks: &ChunkSet, epoch: LogPosition) -> Result<Lineage> {
    lineage_after(files, chunks, epoch, &[])
}

/// As [`lineage`], but follows the epochs back only to one that is in a lineage of `known`. So a log
/// without an election since then costs one reading, however many epochs it has.
///
/// # Errors
/// As for [`lineage`].
pub fn lineage_after(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    epoch: LogPosition,
    known: &[Lineage],
) -> Result<Lineage> {
    let mut chain = Chain::starting_at(Some(epoch));

    // One chunk may hold many epochs, so the last file stays open.
    let mut open: Option<(&LogFile, Box<dyn ReadAt>)> = None;
    while let Some(position) = chain.wanted() {
        let file = chunk_of_epoch(files, chunks, position)?;
        let source = match open.take() {
            Some((same, source)) if same.path == file.path => source,
            _ => file.open(files)?,
        };

        let record = with_place(files, &file.path, epoch_record(file, &*source, position))?;
        with_place(files, &file.path, chain.add(&record))?;
        if known.iter().any(|lineage| chain.join(lineage)) {
            break;
        }
        open = Some((file, source));
    }

    Ok(chain.finish())
}

/// Finds the position of the last epoch record before `end`. Reads the log backwards, as a server
/// without `epoch.chk` does.
///
/// # Errors
/// [`Kind::SourceCorrupt`] at the first bytes that are not a record; [`Kind::Refused`] for
/// encrypted chunks.
pub fn last_epoch(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    end: LogPosition,
    run: &Run,
) -> Result<Option<LogPosition>> {
    for file in chunks.in_use().iter().rev() {
        if file.header().start_position() >= end {
            continue;
        }

        if let Some(position) = last_epoch_in(files, file, end, run)? {
            return Ok(Some(position));
        }
    }

    Ok(None)
}

/// The last epoch record of one file.
fn last_epoch_in(
    files: &dyn FileSet,
    file: &LogFile,
    end: LogPosition,
    run: &Run,
) -> Result<Option<LogPosition>> {
    refuse_encrypted(files, file)?;
    let source = file.open(files)?;
    let data = with_place(files, &file.path, data_before(&file.chunk, end))?;
    let frames = Backwards::new(&*source, file.header(), data);
    let mut frames = with_place(files, &file.path, frames)?;

    let mut count = 0_u64;
    while let Some(frame) = with_place(files, &file.path, frames.next())? {
        if matches!(&frame.record, Record::System(system) if system.is_epoch()) {
            return Ok(Some(frame.position));
        }

        count += 1;
        if count.is_multiple_of(RECORDS_BETWEEN_CHECKS) {
            run.check()?;
        }
    }

    Ok(None)
}

/// The file that should hold the epoch at a position.
fn chunk_of_epoch<'a>(
    files: &dyn FileSet,
    chunks: &'a ChunkSet,
    position: LogPosition,
) -> Result<&'a LogFile> {
    let Some(file) = chunks.holding(position) else {
        let what = format!("no chunk here holds the log position {position} of an epoch");
        let error = Error::new(Kind::SourceCorrupt, what);
        return Err(match chunks.in_use().first() {
            Some(first) if position < first.header().start_position() => {
                error.hint("kbackup cannot read chunks that lie in an archive")
            }
            _ => error,
        });
    };

    refuse_encrypted(files, file)?;
    Ok(file)
}

/// Reads the epoch record at a position.
fn epoch_record(
    file: &LogFile,
    source: &dyn ReadAt,
    position: LogPosition,
) -> format::Result<EpochRecord> {
    let mut lookup = lookup(file, source)?;
    let Some(frame) = lookup.read_at_position(position)? else {
        let wanted = format!("an epoch record at log position {position}");
        return Err(Malformed::new("epoch record", 0, wanted, "none").into());
    };
    EpochRecord::parse(&frame)
}
