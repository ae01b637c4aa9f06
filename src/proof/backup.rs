//! The gate: it proves that a server starts from the files of a manifest. Nothing else turns a
//! manifest into a backup.
//!
//! `structure` reads headers, footers and small files. The gate does not read the other bytes
//! again. Instead the run has to show by its evidence that it proved them while it copied them.

use std::collections::{HashMap, HashSet};

use super::Proven;
use super::databases::scavenge_state_fault;
use super::fault::BackupFault;
use super::log::LogProof;
use super::structure::structure_of;
use crate::error::{Error, Kind, Result};
use crate::format::WriterPosition;
use crate::log::{ChunkSet, Inspected};
use crate::manifest::{FileSet, Manifest, RelativePath, Role, Row};
use crate::run::Run;

/// What the run proved while it captured the files.
#[derive(Debug, Clone, Copy)]
pub struct BackupEvidence<'a> {
    /// The proven backup that files were reused from.
    pub parent: Option<&'a Manifest>,
    /// Chunks and tables that this run read, and whose stored bytes have the MD5 that the server
    /// wrote.
    pub md5_compared: &'a HashSet<RelativePath>,
    /// The scan of the records that this run read.
    pub log: &'a LogProof,
    /// Headers and footers that this run read in the files to be proven.
    pub inspected: &'a Inspected,
}

/// Proves that `files` are those of `manifest`, and that a server starts from them with the log up
/// to `manifest.log.position`.
///
/// Reads all small files, and header and footer of each chunk and table, unless this run has read
/// them and the file has not changed since. The evidence has to show the rest. So the cost depends
/// on the number of files and not on their size.
///
/// # Errors
/// [`Kind::Failed`] if something is wrong. The error lists all of it.
pub fn prove_backup(
    files: &dyn FileSet,
    manifest: Manifest,
    evidence: &BackupEvidence<'_>,
    run: &Run,
) -> Result<Proven<Manifest>> {
    let mut faults = structure_of(files, &manifest, evidence.inspected, run)?;
    check_md5s(&manifest, evidence, &mut faults);
    check_end(&manifest, evidence.log, &mut faults);
    check_scavenge_state(files, &manifest, evidence, run, &mut faults)?;
    if faults.is_empty() {
        return Ok(Proven(manifest));
    }

    let list: Vec<String> = faults.iter().map(BackupFault::to_string).collect();
    let what = "what was captured is not proven to be a backup";
    Err(Error::new(Kind::Failed, what)
        .on(manifest.head.label)
        .because(list.join("; ")))
}

/// Checks that this run compared each MD5, or that the file is reused from the proven parent. The
/// operator may have accepted chunks whose MD5 is wrong.
fn check_md5s(manifest: &Manifest, evidence: &BackupEvidence<'_>, faults: &mut Vec<BackupFault>) {
    let mut parent_rows: HashMap<&RelativePath, &Row> = HashMap::new();
    if let Some(parent) = evidence.parent {
        parent_rows.extend(parent.files.iter().map(|row| (&row.path, row)));
    }

    for row in &manifest.files {
        let is_reused = match parent_rows.get(&row.path) {
            Some(parent_row) => is_same_file(parent_row, row),
            None => false,
        };
        let is_accepted = manifest.contents.damaged.contains(&row.path);
        let is_compared = evidence.md5_compared.contains(&row.path);

        if has_md5(row) && !is_reused && !is_accepted && !is_compared {
            faults.push(BackupFault::of_file(&row.path, "its MD5 was not compared"));
        }
    }
}

/// Checks that the log holds the scavenges that the scavenger's state knows of (O34). The parent was
/// proven, and its log is a part of this one, so a reused state is not read again.
fn check_scavenge_state(
    files: &dyn FileSet,
    manifest: &Manifest,
    evidence: &BackupEvidence<'_>,
    run: &Run,
    faults: &mut Vec<BackupFault>,
) -> Result<()> {
    let is_state = |row: &&Row| row.role == Role::ScavengeState;
    let Some(row) = manifest.files.iter().find(is_state) else {
        return Ok(());
    };
    let parent = evidence.parent;
    let parent_row = parent.and_then(|parent| parent.files.iter().find(is_state));
    if parent_row.is_some_and(|parent_row| is_same_file(parent_row, row)) {
        return Ok(());
    }

    // `structure` has reported chunks that cannot be read.
    let Ok(chunks) = ChunkSet::among(files, files.files()?, evidence.inspected) else {
        return Ok(());
    };
    let end = WriterPosition(manifest.log.position.position());
    if let Some(why) = scavenge_state_fault(files, &chunks, end, run)? {
        let fault = BackupFault::of_file(&row.path, why);
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    Ok(())
}

fn has_md5(row: &Row) -> bool {
    let is_completed_chunk = row.chunk.is_some_and(|chunk| chunk.md5.is_some());
    row.table_md5.is_some() || is_completed_chunk
}

fn is_same_file(one: &Row, other: &Row) -> bool {
    one.blake3 == other.blake3
        && one.size == other.size
        && one.chunk == other.chunk
        && one.table_md5 == other.table_md5
}

/// Checks that the log ends where its records allow it, and that the lineage has each epoch that
/// was read.
fn check_end(manifest: &Manifest, scanned: &LogProof, faults: &mut Vec<BackupFault>) {
    let end = manifest.log.position;
    if end != scanned.boundary {
        faults.push(BackupFault::of_backup(format!(
            "the log ends at {end}, and the last boundary found is {}",
            scanned.boundary
        )));
    }

    for epoch in &scanned.seen.epochs {
        let is_in_log = epoch.position < end.position();
        if is_in_log && !manifest.log.lineage.contains(epoch) {
            faults.push(BackupFault::of_backup(format!(
                "the epoch at {} is in the log and not in the lineage",
                epoch.position
            )));
        }
    }
}
