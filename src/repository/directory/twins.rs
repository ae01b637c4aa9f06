//! Finds names of one backup that lead to one inode. No backup may have such twins: a copy that keeps
//! hard links carries them into a server, which then writes to both files at once.

use std::collections::HashSet;

use super::stored::Files;
use crate::fs::{self, CopyId};
use crate::manifest::{Manifest, Row};

/// The files that share an inode with a file before them in the manifest.
pub(super) fn find<'a>(files: &Files, manifest: &'a Manifest) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> = manifest.files.iter().collect();
    // A stable sort: of equal rows, the first one stays the first.
    rows.sort_by_key(|row| bytes_of(row));

    let mut twins = Vec::new();
    // Only rows with equal bytes can be of one inode, so nothing else is looked at.
    for equal in rows.chunk_by(|one, other| bytes_of(one) == bytes_of(other)) {
        if equal.len() > 1 {
            find_among(files, equal, &mut twins);
        }
    }
    twins
}

/// Looks at rows with equal bytes. A file that cannot be inspected is damaged, and not a twin.
fn find_among<'a>(files: &Files, rows: &[&'a Row], twins: &mut Vec<&'a Row>) {
    let mut seen = HashSet::new();
    for row in rows {
        let Ok(Some(status)) = fs::status(&files.path_of(&row.path)) else {
            continue;
        };
        if !seen.insert(CopyId::from(&status)) {
            twins.push(row);
        }
    }
}

/// What rows with equal bytes have in common.
fn bytes_of(row: &Row) -> (u64, [u8; 32]) {
    (row.size, *row.blake3.as_bytes())
}
