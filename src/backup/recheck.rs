//! Hashes a share of the parent's files again. A diff does not read what it reuses from the source,
//! so damage on the repository's disk would pass from backup to backup. Each run takes the next
//! share, so that every file has its turn.
//!
//! The active chunk needs no turn. It gets a new hash when it is extended, so kbackup proves all of
//! it while it copies it.

use std::collections::{BTreeMap, HashSet};

use super::capture::differs;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::ReadAt;
use crate::fs::CopyId;
use crate::manifest::{FileSet, Label, Manifest, RelativePath, Role, Row};
use crate::parallel;
use crate::repository::{Repository, remember_damage, remembered};
use crate::run::Run;
use crate::transfer::{FILES_AT_ONCE, hash_file, paced};

/// How much of the reused files a diff hashes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecheckShare {
    /// This many bytes, and the rest of the last file. A file below 1 MiB counts as 1 MiB.
    Bytes(u64),
    /// This percentage of the bytes.
    Percent(u8),
}

impl RecheckShare {
    const ALL: Self = Self::Percent(100);

    /// The bytes to hash, of `total`.
    fn bytes_of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let share = u128::from(total) * u128::from(percent);
                u64::try_from(share.div_ceil(100)).unwrap_or(u64::MAX)
            }
        }
    }

    /// What a file counts for.
    fn weight_of(self, row: &Row) -> u64 {
        match self {
            Self::Bytes(_) => row.size.max(LEAST_WEIGHT),
            Self::Percent(_) => row.size,
        }
    }
}

/// The least that a file counts for in [`RecheckShare::Bytes`]. A disk needs about as long to find
/// a file as to read this many bytes, so a share of many small files takes no longer than one of
/// few large files.
const LEAST_WEIGHT: u64 = 1 << 20;
/// The key under which the repository keeps the path that was hashed last.
const LAST_HASHED: &str = "rechecked";
/// No path is longer. A longer value is not one that kbackup has kept.
const LONGEST_PATH: usize = 4096;

/// A stored file that differs from its row.
pub(super) struct DamagedFile {
    pub(super) path: RelativePath,
    pub(super) error: Error,
}

/// Hashes the share that is due of the parent's files, and all of them if the parent is known to be
/// damaged. Marks every backup that shares a damaged file.
///
/// # Errors
/// An interruption; a failure of the storage that concerns more than one file.
pub(super) fn recheck(
    repository: &dyn Repository,
    parent: &Manifest,
    share: RecheckShare,
    run: &Run,
) -> Result<Vec<DamagedFile>> {
    let is_suspect = match remembered(repository, &parent.label)? {
        Some(known) => known.is_damaged(),
        None => false,
    };
    let share = if is_suspect { RecheckShare::ALL } else { share };
    let due = DueFiles::of(parent, share, last_hashed(repository)?.as_ref());

    run.emit(Event::Step(Step::Recheck));
    run.emit(Event::Expected {
        files: due.rows.len() as u64,
        bytes: total_size(&due.rows),
    });
    let damaged = hash(repository, parent, &due.rows, run)?;
    let paths: Vec<RelativePath> = damaged.iter().map(|file| file.path.clone()).collect();
    mark_damage(repository, parent, &paths, run);

    // Keep the turn last: if the run dies before, the next one hashes the same files again.
    if let Some(last) = due.last
        && let Err(error) = repository.set_state(LAST_HASHED, Some(last.to_string().as_bytes()))
    {
        run.note(format!(
            "kbackup could not keep how far the stored files were hashed: {error}"
        ));
    }
    Ok(damaged)
}

/// The path that the last turn ended with.
fn last_hashed(repository: &dyn Repository) -> Result<Option<RelativePath>> {
    let Some(bytes) = repository.state(LAST_HASHED)? else {
        return Ok(None);
    };
    if bytes.len() > LONGEST_PATH {
        return Ok(None);
    }
    // If the value is no path, the turns begin again with the first file.
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(None);
    };
    Ok(text.parse().ok())
}

/// What one run hashes.
struct DueFiles<'a> {
    rows: Vec<&'a Row>,
    /// Where the turn ends. `None` if nothing is due.
    last: Option<&'a RelativePath>,
}

impl<'a> DueFiles<'a> {
    /// `last` is where the turn of the previous run ended.
    fn of(parent: &'a Manifest, share: RecheckShare, last: Option<&RelativePath>) -> Self {
        let reused = parent.files.iter().filter(|row| is_reused(row));
        let mut reused: Vec<&Row> = reused.collect();
        reused.sort_by(|one, other| one.path.cmp(&other.path));
        let mut left = share.bytes_of(total_size(&reused));

        if let Some(last) = last {
            let begin = reused.partition_point(|row| row.path <= *last);
            reused.rotate_left(begin);
        }

        let mut rows = Vec::new();
        for row in reused {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(share.weight_of(row));
            rows.push(row);
        }
        let last = rows.last().map(|row| &row.path);
        Self { rows, last }
    }
}

fn total_size(rows: &[&Row]) -> u64 {
    let mut bytes: u64 = 0;
    for row in rows {
        bytes = bytes.saturating_add(row.size);
    }
    bytes
}

/// Whether a diff may reuse a file of its parent.
fn is_reused(row: &Row) -> bool {
    match row.role {
        Role::Chunk
        | Role::Table
        | Role::TableFilter
        | Role::StreamFilterCheckpoint
        | Role::StreamFilter
        | Role::ScavengeState => true,
        Role::Checkpoint | Role::IndexMap | Role::SecondaryIndex => false,
    }
}

fn hash(
    repository: &dyn Repository,
    parent: &Manifest,
    rows: &[&Row],
    run: &Run,
) -> Result<Vec<DamagedFile>> {
    let mut damaged = Vec::new();
    parallel::for_each(
        FILES_AT_ONCE,
        rows,
        |row| {
            run.check()?;
            find_damage(repository, parent, row, run)
        },
        |row, damage| {
            if let Some(error) = damage {
                let path = row.path.clone();
                damaged.push(DamagedFile { path, error });
            }
        },
    )?;

    damaged.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(damaged)
}

/// Hashes one stored file. Returns its damage, or `None` if it is intact.
fn find_damage(
    repository: &dyn Repository,
    parent: &Manifest,
    row: &Row,
    run: &Run,
) -> Result<Option<Error>> {
    let source = match repository.open(&parent.label, row) {
        Ok(source) => paced(source, run),
        Err(error) if error.kind() == Kind::StoredCorrupt => return Ok(Some(error)),
        Err(error) => return Err(error),
    };
    // What is in the page cache says nothing about the disk.
    source.drop_from_cache();

    let why = match hash_file(&*source, false, run) {
        Ok(digest) if digest.blake3 == row.blake3 => return Ok(None),
        Ok(_) => "its bytes are not those that were stored: the BLAKE3 differs".to_owned(),
        // An unreadable block is damage to one file, and no failure of the run.
        Err(error) if error.kind() == Kind::StoredCorrupt => error.in_words(),
        Err(error) if error.kind() == Kind::Failed => error.causes().join(": "),
        Err(error) => return Err(error),
    };
    let place = repository.files(&parent.label)?.place_of(&row.path);
    Ok(Some(differs(place, why)))
}

/// Marks every backup that shares these damaged files of the parent, and warns of each file.
pub(super) fn mark_damage(
    repository: &dyn Repository,
    parent: &Manifest,
    damaged: &[RelativePath],
    run: &Run,
) {
    if damaged.is_empty() {
        return;
    }
    let mut files = damaged_rows(repository, parent, damaged);

    for label in labels(repository, run) {
        // One at a time: a manifest can be large, and there can be many.
        let Ok(manifest) = repository.manifest(&label) else {
            continue;
        };
        let is_affected = note_shared(repository, parent, &manifest, &mut files);
        if is_affected && let Err(error) = remember_damage(repository, &label) {
            run.warn(format!(
                "kbackup could not remember that {label} is damaged: {error}"
            ));
        }
    }

    for (path, file) in files {
        run.warn(format!(
            "{path} is damaged in {}: `kbackup verify --all --repair` repairs it once another \
             backup holds the same bytes",
            file.labels.join(", ")
        ));
    }
}

fn labels(repository: &dyn Repository, run: &Run) -> Vec<Label> {
    match repository.list() {
        Ok(listed) => listed.into_iter().map(|listed| listed.label).collect(),
        Err(error) => {
            run.warn(format!(
                "kbackup cannot tell which other backups share the damaged files: {error}"
            ));
            Vec::new()
        }
    }
}

/// A damaged file of the parent, and the backups that have it.
struct SharedDamage<'a> {
    row: &'a Row,
    copy: Option<CopyId>,
    labels: Vec<String>,
}

/// The damaged files of the parent, by their paths. There can be as many as the parent has files,
/// so each manifest is gone through once.
type DamagedRows<'a> = BTreeMap<&'a RelativePath, SharedDamage<'a>>;

fn damaged_rows<'a>(
    repository: &dyn Repository,
    parent: &'a Manifest,
    damaged: &[RelativePath],
) -> DamagedRows<'a> {
    let damaged: HashSet<&RelativePath> = damaged.iter().collect();
    let stored = repository.files(&parent.label).ok();

    let mut files = BTreeMap::new();
    for row in &parent.files {
        if damaged.contains(&row.path) {
            let file = SharedDamage {
                row,
                copy: copy_of(stored.as_deref(), &row.path),
                labels: Vec::new(),
            };
            files.insert(&row.path, file);
        }
    }
    files
}

/// Notes which of the damaged files a backup shares. Returns whether there is one.
fn note_shared(
    repository: &dyn Repository,
    parent: &Manifest,
    manifest: &Manifest,
    files: &mut DamagedRows<'_>,
) -> bool {
    let is_parent = manifest.label == parent.label;
    let stored = repository.files(&manifest.label).ok();

    let mut is_affected = false;
    for row in &manifest.files {
        let Some(file) = files.get_mut(&row.path) else {
            continue;
        };
        if is_parent || file.is_shared_by(stored.as_deref(), row) {
            file.labels.push(manifest.label.to_string());
            is_affected = true;
        }
    }
    is_affected
}

impl SharedDamage<'_> {
    /// Whether another backup's file of this path is the damaged copy.
    fn is_shared_by(&self, stored: Option<&dyn FileSet>, other: &Row) -> bool {
        let is_same_content = (other.blake3, other.size) == (self.row.blake3, self.row.size);
        self.copy.is_some() && is_same_content && copy_of(stored, &other.path) == self.copy
    }
}

/// Which stored copy of a file a backup has. Damage does not change the answer.
fn copy_of(stored: Option<&dyn FileSet>, path: &RelativePath) -> Option<CopyId> {
    let file: Box<dyn ReadAt> = stored?.open(path).ok()??;
    file.copy_id()
}
