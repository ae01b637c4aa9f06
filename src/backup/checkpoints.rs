//! Steps D11–D14: reads chaser, epoch, writer and proposal, in this order. Another order could give
//! a chaser or an epoch ahead of the writer.

use super::source_files::changed;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::{InContext, LogPosition, WriterPosition};
use crate::log::{RawCheckpoint, of_source};
use crate::manifest::{Directories, ReadCheckpoints};

/// How often kbackup reads a checkpoint, at most, until two readings in a row agree. A node writes
/// all eight bytes at once.
const READINGS: u32 = 100;

/// Four checkpoints and `truncate.chk`, each at least twice.
pub(super) const BYTES_READ: u64 = 5 * 2 * 8;

/// Reads the checkpoints, in the procedure's order.
///
/// # Errors
/// `SourceCorrupt` if a checkpoint does not have 8 bytes (O13), or if they contradict each other;
/// `Unstable` if a checkpoint never comes to rest.
pub(super) fn read(source: &Directories) -> Result<ReadCheckpoints> {
    let chaser = required(source, Checkpoint::Chaser)?;
    let epoch = position(source, Checkpoint::Epoch)?;
    let writer = WriterPosition(required(source, Checkpoint::Writer)?);
    let proposal = value(source, Checkpoint::Proposal)?.filter(|number| *number >= 0);

    // The chaser was read first, so even on a running node it cannot be ahead. No server starts
    // like this (disk-format §6.5).
    if chaser > writer.0 {
        let what = format!("chaser.chk ({chaser}) is beyond writer.chk ({writer})");
        return Err(Error::new(Kind::SourceCorrupt, what).at(&source.db).hint(
            "an unfinished restore leaves the same; `kbackup check` tells what a server would do",
        ));
    }
    Ok(ReadCheckpoints {
        writer,
        chaser,
        epoch,
        proposal,
    })
}

/// The position in `truncate.chk`. Returns `None` if no truncation is pending.
///
/// # Errors
/// As for [`read`].
pub(super) fn pending_truncation(source: &Directories) -> Result<Option<LogPosition>> {
    position(source, Checkpoint::Truncate)
}

fn required(source: &Directories, which: Checkpoint) -> Result<LogPosition> {
    if let Some(position) = position(source, which)? {
        return Ok(position);
    }
    let what = "the checkpoint is missing or negative";
    Err(Error::new(Kind::SourceCorrupt, what)
        .at(&which.under(&source.db))
        .hint("is this the node's db directory? see --db"))
}

fn position(source: &Directories, which: Checkpoint) -> Result<Option<LogPosition>> {
    let value = value(source, which)?;
    Ok(value.and_then(LogPosition::from_signed))
}

/// Reads a checkpoint until two readings in a row agree.
fn value(source: &Directories, which: Checkpoint) -> Result<Option<i64>> {
    let place = which.under(&source.db);

    let mut last = None;
    for _ in 0..READINGS {
        let raw = RawCheckpoint::at(&place).map_err(of_source)?;
        let reading = raw.value().in_source(&place)?;
        if last == Some(reading) {
            return Ok(reading);
        }
        last = Some(reading);
    }

    Err(changed("a checkpoint never came to rest").at(&place))
}
