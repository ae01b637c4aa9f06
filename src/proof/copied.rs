//! Proves that a copied backup is the backup that it was copied from.
//!
//! The original passed the gate when it was taken. So the copy need not be scanned again: it has the
//! same rows, and each stored file has the hash of its row.

use std::collections::HashMap;

use super::Proven;
use super::fault::BackupFault;
use super::structure::structure;
use crate::error::{Error, Kind, Result};
use crate::manifest::{Blake3Hash, FileSet, Manifest, RelativePath, Row};
use crate::run::Run;

/// What a run proved while it copied the files of a backup.
#[derive(Debug, Clone, Copy)]
pub struct CopyEvidence<'a> {
    /// The backup that was copied, as its repository describes it.
    pub original: &'a Manifest,
    /// The proven backup that files were reused from.
    pub parent: Option<&'a Manifest>,
    /// The hashes of the stored bytes of all files that were not reused.
    pub stored: &'a HashMap<RelativePath, Blake3Hash>,
}

/// Proves that `manifest` describes the same backup as the original, and that `files` are those of
/// its rows. Compares names, lengths, headers, footers and small files with the manifest as well.
///
/// # Errors
/// [`Kind::Failed`] if the evidence does not show that the copy is the original.
/// [`Kind::StoredCorrupt`] if the original itself is no backup that a server could start from.
pub fn prove_copy(
    files: &dyn FileSet,
    manifest: Manifest,
    evidence: &CopyEvidence<'_>,
    run: &Run,
) -> Result<Proven<Manifest>> {
    let faults = unproven(&manifest, evidence);
    if !faults.is_empty() {
        let what = "what was copied is not proven to be the backup";
        return Err(Error::new(Kind::Failed, what)
            .on(&manifest.head.label)
            .because(listed(&faults)));
    }

    // All bytes are those of the original, so this finds only what is wrong with that one.
    let faults = structure(files, &manifest, run)?;
    if !faults.is_empty() {
        let what = "the files of the backup do not fit its manifest";
        return Err(Error::new(Kind::StoredCorrupt, what)
            .on(&manifest.head.label)
            .because(listed(&faults))
            .hint("`kbackup verify` on the source repository says what is wrong with the backup"));
    }
    Ok(Proven(manifest))
}

fn unproven(manifest: &Manifest, evidence: &CopyEvidence<'_>) -> Vec<BackupFault> {
    let mut faults = Vec::new();
    if !manifest.is_copy_of(evidence.original) {
        let what = "its description is not that of the original";
        faults.push(BackupFault::of_backup(what));
    }

    let mut parent_rows: HashMap<&RelativePath, &Row> = HashMap::new();
    if let Some(parent) = evidence.parent {
        parent_rows.extend(parent.files.iter().map(|row| (&row.path, row)));
    }
    for row in &manifest.files {
        let is_proven = match evidence.stored.get(&row.path) {
            Some(hash) => *hash == row.blake3,
            None => parent_rows
                .get(&row.path)
                .is_some_and(|held| held.blake3 == row.blake3 && held.size == row.size),
        };
        if !is_proven {
            let what = "its stored bytes are not proven to be those of its row";
            faults.push(BackupFault::of_file(&row.path, what));
        }
    }
    faults
}

fn listed(faults: &[BackupFault]) -> String {
    let list: Vec<String> = faults.iter().map(BackupFault::to_string).collect();
    list.join("; ")
}
