//! What a restore target holds: nothing that can be lost, or a reason to refuse.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use super::super::checkpoints::{guard_stands, read_checkpoint};
use super::super::outcome::DirectoryOutcome;
use super::listing::{ListedFile, TargetListing};
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::format::checkpoint::{Checkpoint, START_GUARD};
use crate::format::names;
use crate::fs;
use crate::manifest::{Directories, Label, RelativePath, RestoreMark, RestoreState, Root};

/// What a target holds before the restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetContent {
    /// The directory does not exist; the restore creates it.
    Absent,
    /// The directory is empty, `lost+found` aside.
    Empty,
    /// An interrupted restore of the same backup left files, and this restore resumes it.
    Interrupted(InterruptedRestore),
    /// A finished restore of the same backup wrote all of it. It occurs only if several targets are
    /// named, because then the restore of another one was interrupted.
    Finished,
}

/// What an interrupted restore left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InterruptedRestore {
    /// When the restore began. `None` if it ended before it left its mark.
    pub since: Option<Timestamp>,
    /// Files of the backup that are there in their full length. The restore keeps each one that
    /// has the right hash.
    pub files: u64,
    #[serde(skip)]
    pub(in crate::restore) present: HashSet<RelativePath>,
    /// Files of no backup: kbackup's own temporary files, and what a server makes before it sees
    /// the guard (O15).
    #[serde(skip)]
    pub(in crate::restore) leftovers: Vec<PathBuf>,
}

/// The backup to be restored, as far as it is needed to recognise its traces in a target.
#[derive(Clone, Copy)]
pub(in crate::restore) struct BackupToRestore<'a> {
    pub(in crate::restore) repository: Uuid,
    pub(in crate::restore) label: &'a Label,
    pub(in crate::restore) outcome: &'a DirectoryOutcome,
}

impl BackupToRestore<'_> {
    fn is_named_by(&self, mark: &RestoreMark) -> bool {
        mark.repository == self.repository && mark.label == *self.label
    }
}

/// What to do about a target that is already restored, and that no server has started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::restore) enum FinishedTarget {
    /// Leave it unchanged.
    Leave,
    /// Refuse it: an operator who names it alone wants to restore there again.
    Refuse,
}

/// Proves that nothing can be lost in a target.
///
/// # Errors
/// `Refused` if the target holds anything but traces of the same restore.
pub(in crate::restore) fn examine(
    target: &Directories,
    backup: BackupToRestore<'_>,
    finished: FinishedTarget,
) -> Result<TargetContent> {
    let listing = TargetListing::read(target)?;
    if listing.is_empty() {
        return Ok(if listing.db_exists {
            TargetContent::Empty
        } else {
            TargetContent::Absent
        });
    }

    // An unreadable mark does not prove that kbackup wrote the content, so it counts as no mark.
    let Some(mark) = RestoreMark::read(&target.db).ok().flatten() else {
        return unmarked(&listing, target);
    };

    if !guard_stands(&target.db)? {
        let is_left_alone = finished == FinishedTarget::Leave
            && mark.state == RestoreState::Finished
            && backup.is_named_by(&mark)
            && is_as_restored(&listing, target, backup.outcome)?;
        if is_left_alone {
            return Ok(TargetContent::Finished);
        }
        return Err(already_restored(target, backup.is_named_by(&mark)));
    }

    if !backup.is_named_by(&mark) {
        return Err(restore_of_another(target, &mark.label));
    }
    let interrupted = interrupted(listing, backup.outcome, mark.since)?;
    Ok(TargetContent::Interrupted(interrupted))
}

/// Without a mark, only a restore that was killed before it wrote one can be resumed.
fn unmarked(listing: &TargetListing, target: &Directories) -> Result<TargetContent> {
    if !is_bare_guard(listing, &target.db)? {
        return Err(not_empty(listing.first()));
    }

    let mut leftovers = Vec::new();
    for file in &listing.files {
        if is_temporary(&file.path) {
            leftovers.push(file.path.clone());
        }
    }
    Ok(TargetContent::Interrupted(InterruptedRestore {
        since: None,
        files: 0,
        present: HashSet::new(),
        leftovers,
    }))
}

/// Whether the target holds only what a restore writes before its mark: some or all checkpoints of
/// the guard.
fn is_bare_guard(listing: &TargetListing, db: &Path) -> Result<bool> {
    if !listing.directories.is_empty() {
        return Ok(false);
    }
    for file in &listing.files {
        if !is_of_guard(file, db)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_of_guard(file: &ListedFile, db: &Path) -> Result<bool> {
    if !file.is_regular {
        return Ok(false);
    }
    let Some((checkpoint, value)) = guard_checkpoint(&file.path, db) else {
        return Ok(is_temporary(&file.path));
    };

    let is_writer = checkpoint == Checkpoint::Writer;
    // The writer's file is created empty, and locked, before the others are written.
    if is_writer && file.size == 0 {
        return Ok(true);
    }
    let found = read_checkpoint(&file.path)?;
    // The length of a file can reach a disk before its bytes do. A writer checkpoint of zeros says
    // that the log is empty, so nothing can be lost, with or without the guard's chaser.
    Ok(found == Some(value) || is_writer && found == Some(0))
}

/// The checkpoint of the guard that is kept in this file, with its value.
fn guard_checkpoint(path: &Path, db: &Path) -> Option<(Checkpoint, i64)> {
    let name = path.strip_prefix(db).ok()?.to_str()?;
    let checkpoint = Checkpoint::of_file(name)?;
    START_GUARD
        .into_iter()
        .find(|(guarding, _)| *guarding == checkpoint)
}

/// Whether the target holds every file that a restore places, the final checkpoints, the mark, and
/// nothing else. A server that ran there would have left more.
fn is_as_restored(
    listing: &TargetListing,
    target: &Directories,
    outcome: &DirectoryOutcome,
) -> Result<bool> {
    let mut missing = sizes(outcome);

    for file in &listing.files {
        let Some(place) = &file.place else {
            return Ok(false);
        };
        let is_expected = match missing.remove(place) {
            Some(size) => size == file.size,
            None => is_restores_own(place),
        };
        if !file.is_regular || !is_expected {
            return Ok(false);
        }
    }
    if !missing.is_empty() {
        return Ok(false);
    }

    for (checkpoint, value) in outcome.checkpoints.values() {
        if read_checkpoint(&checkpoint.under(&target.db))? != Some(value) {
            return Ok(false);
        }
    }
    for directory in &listing.directories {
        if !listing.holds_a_file(directory) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What an interrupted restore of this backup left. Every file has to belong to the backup, or be
/// of a kind that no database needs.
fn interrupted(
    listing: TargetListing,
    outcome: &DirectoryOutcome,
    since: Timestamp,
) -> Result<InterruptedRestore> {
    let sizes = sizes(outcome);
    let mut found = InterruptedRestore {
        since: Some(since),
        files: 0,
        present: HashSet::new(),
        leftovers: Vec::new(),
    };

    for file in listing.files {
        if !file.is_regular {
            return Err(foreign(&file.path));
        }
        let is_unneeded = is_temporary(&file.path);
        let Some(place) = file.place else {
            if !is_unneeded {
                return Err(foreign(&file.path));
            }
            found.leftovers.push(file.path);
            continue;
        };

        // A file of another length is written again.
        if let Some(size) = sizes.get(&place) {
            if *size == file.size {
                found.files += 1;
                found.present.insert(place);
            }
            continue;
        }
        if is_restores_own(&place) {
            continue;
        }
        if !is_unneeded && !is_of_a_refused_server(&place) {
            return Err(foreign(&file.path));
        }
        found.leftovers.push(file.path);
    }
    Ok(found)
}

fn sizes(outcome: &DirectoryOutcome) -> HashMap<&RelativePath, u64> {
    let mut sizes = HashMap::with_capacity(outcome.files.len());
    for file in &outcome.files {
        sizes.insert(&file.row.path, file.row.size);
    }
    sizes
}

/// Files that every restore writes: its mark and the checkpoints.
fn is_restores_own(place: &RelativePath) -> bool {
    let is_mark = place.root() == Root::Db && place.below_root() == RestoreMark::NAME;
    is_mark || place.as_checkpoint().is_some()
}

/// Files that a server makes before it sees the guard and exits (O15). It had no log to fill them
/// from.
fn is_of_a_refused_server(place: &RelativePath) -> bool {
    let names: &[&str] = match place.root() {
        Root::Db => &[names::SECONDARY_INDEX, names::SECONDARY_INDEX_LOG],
        Root::Index => &[names::STREAM_FILTER_CHECKPOINT, names::STREAM_FILTER],
    };
    names.contains(&place.below_root())
}

/// Whether this is a file of [`fs::write_durably`] before its rename.
fn is_temporary(path: &Path) -> bool {
    match path.file_name().and_then(OsStr::to_str) {
        Some(name) => name.starts_with('.') && name.ends_with(".tmp"),
        None => false,
    }
}

fn not_empty(content: &Path) -> Error {
    Error::new(Kind::Refused, "the target is not empty")
        .at(fs::parent(content))
        .because(format!("it holds `{}`", content.display()))
        .hint(
            "restore into an empty directory; to replace a database, stop its server and move its \
             files away first",
        )
}

fn already_restored(target: &Directories, is_same_backup: bool) -> Error {
    let mut error = Error::new(
        Kind::Refused,
        "the target holds a restored database already",
    )
    .at(&target.db);
    // A restore to several targets may have been interrupted after this one.
    if is_same_backup {
        error = error
            .hint("leave this target out: it holds this backup already, and the others may not");
    }
    error.hint(
        "restore into an empty directory; to replace this database, stop its server and move the \
         directory away",
    )
}

fn restore_of_another(target: &Directories, label: &Label) -> Error {
    let what = format!("the target holds an interrupted restore of another backup, {label}");
    Error::new(Kind::Refused, what).at(&target.db).hint(format!(
        "`kbackup restore {label}` resumes it; or restore into an empty directory"
    ))
}

fn foreign(path: &Path) -> Error {
    let what = "the target holds an interrupted restore, and a file that is not the backup's";
    Error::new(Kind::Refused, what)
        .at(path)
        .hint("move that file away, or restore into an empty directory")
}
