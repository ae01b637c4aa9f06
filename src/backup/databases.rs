//! The server's SQLite and DuckDB files: step D9, `scavenging.db`, and the secondary indexes,
//! `kurrent.ddb`. Both are copied only while nobody has them open.

use std::path::{Path, PathBuf};

use super::capture::{Capture, CopyRequest};
use super::source_files::{changed, open, open_if_present, timestamp};
use crate::error::Result;
use crate::format::{LogPosition, ReadAt, WriterPosition};
use crate::fs;
use crate::log::ChunkSet;
use crate::manifest::{RelativePath, Role, SecondaryIndex};
use crate::proof;
use crate::transfer::Paced;

/// Step D9: copies `scavenging.db` if no scavenge has it open. If it has a journal beside it,
/// kbackup leaves it out, and the next scavenge starts from the beginning (disk-format §7).
///
/// # Errors
/// `Unstable` if somebody wrote to it while it was copied.
pub(super) fn copy_scavenge_state(capture: &mut Capture<'_>) -> Result<()> {
    let path = RelativePath::scavenge_state();
    let Some(file) = open_if_present(capture.source, &path)? else {
        return Ok(());
    };
    if let Some(journal) = journal_beside(file.path())? {
        capture.run.note(format!(
            "this backup leaves scavenging.db out, because its journal `{}` is there",
            journal.display()
        ));
        return Ok(());
    }

    let (size, modified) = (file.size(), timestamp(file.status()?.modified));
    let is_held = match capture.held_row(&path) {
        Some(row) => row.size == size && row.modified == modified,
        None => false,
    };
    if is_held && capture.keep(&path)? {
        return Ok(());
    }

    capture.copy_and_add(&path, &CopyRequest::whole(Role::ScavengeState, &file))?;

    let now = open(capture.source, &path)?.status()?;
    if now.size != size || timestamp(now.modified) != modified {
        capture.remove(&path)?;
        return Err(changed("scavenging.db was written to").at(file.path()));
    }
    Ok(())
}

/// Leaves out a scavenge state that this run has read and that no scavenge could use, or that would
/// make the next one remove new events (O34). The next scavenge then begins anew.
pub(super) fn leave_out_bad_scavenge_state(
    capture: &mut Capture<'_>,
    chunks: &ChunkSet,
    end: LogPosition,
) -> Result<()> {
    let path = RelativePath::scavenge_state();
    if !capture.is_newly_read(&path) {
        return Ok(());
    }

    let files = capture.files();
    let paced = Paced::new(&files, capture.run);
    let fault = proof::scavenge_state_fault(&paced, chunks, WriterPosition(end), capture.run)?;
    let Some(why) = fault else {
        return Ok(());
    };

    capture.run.warn(format!(
        "this backup leaves scavenging.db out: {why}; the next scavenge of a restored server begins \
         from the start. On the node, remove the files in index/scavenging while it is stopped"
    ));
    capture.remove(&path)
}

fn journal_beside(database: &Path) -> Result<Option<PathBuf>> {
    for suffix in ["-wal", "-journal", "-shm"] {
        let mut journal = database.as_os_str().to_owned();
        journal.push(suffix);
        let journal = PathBuf::from(journal);
        if fs::status(&journal)?.is_some() {
            return Ok(Some(journal));
        }
    }
    Ok(None)
}

/// Copies the secondary indexes of a stopped node. The server changes file and write-ahead log in
/// place, so they cannot be copied while it runs (U8, O35). A server rebuilds indexes that are
/// missing, and does not start with a file that it cannot open. So such a file is left out.
pub(super) fn copy_secondary_index(
    capture: &mut Capture<'_>,
    is_running: bool,
) -> Result<SecondaryIndex> {
    let path = RelativePath::secondary_index();
    let Some(file) = open_if_present(capture.source, &path)? else {
        return Ok(SecondaryIndex::Absent);
    };
    if is_running {
        return Ok(SecondaryIndex::LeftOut);
    }
    capture.copy_and_add(&path, &CopyRequest::whole(Role::SecondaryIndex, &file))?;
    if let Some(why) = proof::secondary_index_fault(&capture.files())? {
        capture.run.warn(format!(
            "this backup leaves kurrent.ddb out: {why}; a restored server rebuilds its secondary \
             indexes. The node itself does not start with this file: remove kurrent.ddb and \
             kurrent.ddb.wal there"
        ));
        capture.remove(&path)?;
        return Ok(SecondaryIndex::LeftOut);
    }

    let path = RelativePath::secondary_index_log();
    if let Some(file) = open_if_present(capture.source, &path)? {
        capture.copy_and_add(&path, &CopyRequest::whole(Role::SecondaryIndex, &file))?;
    }
    Ok(SecondaryIndex::Included)
}
