//! The server's databases beside log and index: `kurrent.ddb` and `scavenging.db`. A backup, the
//! gate, a verification and a check ask here what is wrong with them, so that they agree.

use super::judge::judge;
use super::scavenge::foreign_scavenge;
use crate::error::Result;
use crate::format::{WriterPosition, duckdb, sqlite};
use crate::log::ChunkSet;
use crate::manifest::{FileSet, RelativePath};
use crate::run::Run;

/// Says why a server would not start with the secondary index (O35). Returns `None` if it would, or
/// if there is none.
///
/// # Errors
/// What the storage reports.
pub fn secondary_index_fault(files: &dyn FileSet) -> Result<Option<String>> {
    let path = RelativePath::secondary_index();
    let Some(source) = files.open(&path)? else {
        return Ok(None);
    };
    match judge(files, &path, duckdb::inspect(&*source))? {
        Ok(_) => Ok(None),
        Err(why) => Ok(Some(format!(
            "{why}: a server with secondary indexes does not start with it (O35)"
        ))),
    }
}

/// Says what is wrong with the scavenger's state: it is no database, or it knows of a scavenge that
/// the log does not hold (O34). Returns `None` if nothing is wrong, or if there is none.
///
/// # Errors
/// What the storage reports, and an interruption.
pub fn scavenge_state_fault(
    files: &dyn FileSet,
    chunks: &ChunkSet,
    writer: WriterPosition,
    run: &Run,
) -> Result<Option<String>> {
    if let Some(why) = scavenge_database_fault(files)? {
        return Ok(Some(why));
    }

    let path = RelativePath::scavenge_state();
    let foreign = foreign_scavenge(files, &path, chunks, writer, run)?;
    let Some(why) = foreign else { return Ok(None) };
    Ok(Some(format!(
        "{why}: the next scavenge would remove events that were written since (O34)"
    )))
}

/// Says why no scavenge could use the scavenger's state. Returns `None` if one could, or if there is
/// none. `SQLite` takes an empty file for an empty database.
///
/// A journal beside the file may hold what the file lacks. The caller has to exclude it.
pub(super) fn scavenge_database_fault(files: &dyn FileSet) -> Result<Option<String>> {
    let path = RelativePath::scavenge_state();
    let Some(source) = files.open(&path)? else {
        return Ok(None);
    };
    if source.size() == 0 {
        return Ok(None);
    }
    match judge(files, &path, sqlite::inspect(&*source))? {
        Ok(_) => Ok(None),
        Err(why) => Ok(Some(format!("{why}: no scavenge can use it"))),
    }
}
