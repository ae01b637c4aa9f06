//! Checks that the backup fits into its targets.

use std::collections::BTreeMap;
use std::path::Path;

use bytesize::ByteSize;

use super::super::outcome::{DirectoryOutcome, PlacedFile};
use super::content::TargetContent;
use super::path::nearest;
use super::planned::PlannedTarget;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Root;
use crate::server::facts::REFUSES_OLD_TABLES;

/// Bytes that a restore, and the first start after it, will write into a target, as far as holes are
/// known.
pub(super) fn bytes_needed(outcome: &DirectoryOutcome, content: &TargetContent) -> u64 {
    let below_db = bytes_below(Root::Db, outcome, content);
    below_db.saturating_add(bytes_below(Root::Index, outcome, content))
}

/// Refuses a restore that does not fit. Targets may share a file system, and an index may have a
/// file system of its own.
///
/// # Errors
/// `Refused` for the first file system that has too little free space.
pub(in crate::restore) fn check_space(
    outcome: &DirectoryOutcome,
    targets: &[PlannedTarget],
) -> Result<()> {
    let mut needed_on: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();

    for target in targets {
        for (root, directory) in [(Root::Db, &target.db), (Root::Index, &target.index)] {
            let Some(status) = fs::status(nearest(directory)?)? else {
                continue;
            };
            let bytes = bytes_below(root, outcome, &target.found);
            let device = needed_on.entry(status.device).or_insert((directory, 0));
            device.1 = device.1.saturating_add(bytes);
        }
    }

    for (directory, needed) in needed_on.into_values() {
        let free = fs::free_space(nearest(directory)?)?;
        if needed > free {
            let aside = outcome.bytes_copied_aside();
            return Err(not_enough_space(directory, needed, free, aside));
        }
    }
    Ok(())
}

fn bytes_below(root: Root, outcome: &DirectoryOutcome, content: &TargetContent) -> u64 {
    let mut bytes: u64 = 0;
    for file in &outcome.files {
        if file.row.path.root() == root && is_to_be_written(file, content) {
            bytes = bytes.saturating_add(file.bytes_on_disk());
        }
    }

    // The server makes the copy in the directory above the index directory.
    if root == Root::Index && !matches!(content, TargetContent::Finished) {
        bytes = bytes.saturating_add(outcome.bytes_copied_aside());
    }
    bytes
}

fn is_to_be_written(file: &PlacedFile, content: &TargetContent) -> bool {
    match content {
        TargetContent::Absent | TargetContent::Empty => true,
        TargetContent::Interrupted(interrupted) => !interrupted.present.contains(&file.row.path),
        TargetContent::Finished => false,
    }
}

fn not_enough_space(directory: &Path, needed: u64, free: u64, aside: u64) -> Error {
    let error = Error::new(Kind::Refused, "there is not enough space")
        .at(directory)
        .because(format!(
            "the restore needs {} there, {} are free",
            ByteSize(needed),
            ByteSize(free)
        ))
        .hint("free space, or restore to another file system");
    if aside == 0 {
        return error;
    }
    error.hint(format!(
        "{} of that are for `index-backup-…`, the copy that the server makes of an index that it \
         refuses: a server before {} makes none (`--server-version`)",
        ByteSize(aside),
        REFUSES_OLD_TABLES.first_release()
    ))
}
