//! Reads and writes the checkpoint files of a target, and concludes from them what the directory
//! holds.

use std::path::Path;

use crate::error::Result;
use crate::format::checkpoint::{self, Checkpoint};
use crate::fs::File;
use crate::log::RawCheckpoint;

/// Reads a checkpoint. Returns `None` if there is no plain file of 8 bytes.
pub(super) fn read_checkpoint(path: &Path) -> Result<Option<i64>> {
    match RawCheckpoint::at(path) {
        Ok(raw) => Ok(raw.if_whole()),
        Err(error) if error.is_no_plain_file() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets the eight bytes of a checkpoint whose file is open, durably.
pub(super) fn write_in_place(file: &File, value: i64) -> Result<()> {
    file.write_all_at(0, &checkpoint::encode(value))?;
    file.set_size(checkpoint::LENGTH as u64)?;
    file.sync()?;
    Ok(())
}

/// Whether the start guard of a restore keeps servers away: the chaser is above every writer, or,
/// between the last two writes of a restore, one byte above the writer. No server ever leaves
/// either behind, as its chaser follows its writer. A writer that is missing or empty reads as 0.
pub(super) fn guard_stands(db: &Path) -> Result<bool> {
    // The chaser first: if a server runs unseen, the chaser is then the older value.
    let Some(chaser) = read_checkpoint(&Checkpoint::Chaser.under(db))? else {
        return Ok(false);
    };
    let writer = read_checkpoint(&Checkpoint::Writer.under(db))?.unwrap_or(0);

    if chaser <= writer {
        return Ok(false);
    }
    Ok(chaser == i64::MAX || chaser == writer.saturating_add(1))
}

/// Whether a directory holds a database: one that a restore has finished, or that a server has
/// written to. What an interrupted restore left does not count.
///
/// # Errors
/// `Denied` or `Failed` if a checkpoint cannot be read.
pub fn holds_database(db: &Path) -> Result<bool> {
    let writer = read_checkpoint(&Checkpoint::Writer.under(db))?;
    let chaser = read_checkpoint(&Checkpoint::Chaser.under(db))?;
    let (Some(writer), Some(_)) = (writer, chaser) else {
        return Ok(false);
    };
    Ok(writer > 0 && !guard_stands(db)?)
}
