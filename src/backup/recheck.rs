//! What a diff takes over is not read at the source again, so damage on the repository's disk would
//! go on from backup to backup. Each diff hashes a share of it again, in turns, so that every file
//! comes round. What gets a new hash, the active chunk that is built upon, is proven when it is
//! copied.

use super::capture::not_as_stored;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::ReadAt;
use crate::fs::CopyId;
use crate::manifest::{Label, Manifest, RelativePath, Role, Row};
use crate::parallel;
use crate::repository::{Repository, remember_damage, remembered};
use crate::run::Run;
use crate::transfer::{FILES_AT_ONCE, hash_file, paced};

/// How much of what a diff takes over is hashed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many bytes, and what is left of the last file. A smaller file counts as 1 MiB.
    Bytes(u64),
    /// So many of a hundred bytes.
    Percent(u8),
}

/// To get to a file costs a disk about as much as to read so many bytes: however small the files
/// are, a share of bytes takes its time and no more.
const LEAST: u64 = 1 << 20;
/// Where the repository keeps the path that was hashed last.
const LAST: &str = "rechecked";
/// A path is not longer.
const LONGEST_PATH: usize = 4096;

/// A stored file that is not what was stored.
pub(super) struct Damaged {
    pub(super) path: RelativePath,
    pub(super) error: Error,
}

/// Hashes the share that is due of the parent's files; all of them where the parent is known to be
/// damaged. Backups that share what is wrong are marked.
///
/// # Errors
/// What the storage reports for more than one file; an interruption.
pub(super) fn recheck(
    repository: &dyn Repository,
    parent: &Manifest,
    share: Share,
    run: &Run,
) -> Result<Vec<Damaged>> {
    let suspicious = remembered(repository, &parent.label)?.is_some_and(|known| known.is_damaged());
    let due = Due::of(
        parent,
        if suspicious {
            Share::Percent(100)
        } else {
            share
        },
        last(repository)?.as_ref(),
    );
    run.emit(Event::Step(Step::Recheck));
    run.emit(Event::Expected {
        files: due.rows.len() as u64,
        bytes: due
            .rows
            .iter()
            .map(|row| row.size)
            .fold(0, u64::saturating_add),
    });
    let mut damaged = Vec::new();
    parallel::for_each(
        FILES_AT_ONCE,
        &due.rows,
        |row| {
            run.check()
                .and_then(|()| wrong_with(repository, parent, row, run))
        },
        |row, error| {
            damaged.extend(error.map(|error| Damaged {
                path: row.path.clone(),
                error,
            }))
        },
    )?;
    damaged.sort_by(|one, other| one.path.cmp(&other.path));
    let paths: Vec<RelativePath> = damaged.iter().map(|damaged| damaged.path.clone()).collect();
    mark(repository, parent, &paths, run);
    // Not before the damage is kept: a run that dies here begins the same turn again.
    if let Some(last) = due.last
        && let Err(error) = repository.set_state(LAST, Some(last.to_string().as_bytes()))
    {
        run.note(format!(
            "how far the stored files were hashed cannot be kept: {error}"
        ));
    }
    Ok(damaged)
}

fn last(repository: &dyn Repository) -> Result<Option<RelativePath>> {
    let kept = repository
        .state(LAST)?
        .filter(|bytes| bytes.len() <= LONGEST_PATH);
    // What cannot be read any more only makes the turn begin anew.
    Ok(kept
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.parse().ok()))
}

/// What is hashed by one run.
struct Due<'a> {
    rows: Vec<&'a Row>,
    /// Where the turn ends; none where no turn was taken.
    last: Option<&'a RelativePath>,
}

impl<'a> Due<'a> {
    fn of(parent: &'a Manifest, share: Share, last: Option<&RelativePath>) -> Self {
        let mut rows = Vec::new();
        let mut others: Vec<&Row> = parent
            .files
            .iter()
            .filter(|row| is_taken_over(row))
            .collect();
        others.sort_by(|one, other| one.path.cmp(&other.path));
        let total = others
            .iter()
            .map(|row| row.size)
            .fold(0, u64::saturating_add);
        let mut left = match share {
            Share::Bytes(bytes) => bytes,
            Share::Percent(percent) => {
                u64::try_from((u128::from(total) * u128::from(percent)).div_ceil(100))
                    .unwrap_or(u64::MAX)
            }
        };
        let begin = last.map_or(0, |last| others.partition_point(|row| row.path <= *last));
        others.rotate_left(begin);
        let mut end = None;
        for row in others {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(match share {
                Share::Bytes(_) => row.size.max(LEAST),
                Share::Percent(_) => row.size,
            });
            end = Some(&row.path);
            rows.push(row);
        }
        Self { rows, last: end }
    }
}

/// Whether a diff may take a file of its parent over.
fn is_taken_over(row: &Row) -> bool {
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

/// Why a stored file is not what was stored; none where it is.
fn wrong_with(
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
    let why = match hash_file(&*source, false, run) {
        Ok(digest) if digest.blake3 == row.blake3 => return Ok(None),
        Ok(_) => "its bytes are not those that were stored: the BLAKE3 differs".to_owned(),
        // One block that cannot be read is the damage of one file.
        Err(error) if error.kind() == Kind::Failed => error.causes().join(": "),
        Err(error) => return Err(error),
    };
    let place = repository.files(&parent.label)?.place_of(&row.path);
    Ok(Some(not_as_stored(place, why)))
}

/// Marks every backup that shares these damaged files of the parent, and names it.
pub(super) fn mark(
    repository: &dyn Repository,
    parent: &Manifest,
    damaged: &[RelativePath],
    run: &Run,
) {
    if damaged.is_empty() {
        return;
    }
    let mut affected: Vec<Affected<'_>> = damaged
        .iter()
        .filter_map(|path| parent.row(path))
        .map(|row| Affected {
            row,
            copy: copy_of(repository, &parent.label, row),
            labels: Vec::new(),
        })
        .collect();
    let listed = repository.list().unwrap_or_else(|error| {
        run.warn(format!(
            "which other backups share what is damaged is not known: {error}"
        ));
        Vec::new()
    });
    for label in listed.into_iter().map(|listed| listed.label) {
        // One at a time: a manifest can be large, and there can be many.
        let Ok(manifest) = repository.manifest(&label) else {
            continue;
        };
        let mut shares = false;
        for one in affected
            .iter_mut()
            .filter(|one| one.is_in(repository, &manifest, parent))
        {
            one.labels.push(label.to_string());
            shares = true;
        }
        if shares && let Err(error) = remember_damage(repository, &label) {
            run.warn(format!(
                "it cannot be kept that {label} is damaged: {error}"
            ));
        }
    }
    for Affected { row, labels, .. } in affected {
        let names = labels.join(", ");
        run.warn(format!("{} is damaged in {names}: `kbackup verify --all --repair` mends it once another backup holds it", row.path));
    }
}

/// A damaged file of the parent, and the backups that have it.
struct Affected<'a> {
    row: &'a Row,
    copy: Option<CopyId>,
    labels: Vec<String>,
}

impl Affected<'_> {
    fn is_in(&self, repository: &dyn Repository, manifest: &Manifest, parent: &Manifest) -> bool {
        let same = || {
            manifest
                .row(&self.row.path)
                .filter(|other| (other.blake3, other.size) == (self.row.blake3, self.row.size))
        };
        manifest.label == parent.label
            || self.copy.is_some()
                && same()
                    .is_some_and(|same| copy_of(repository, &manifest.label, same) == self.copy)
    }
}

/// Which copy of its bytes a backup has, whatever is wrong with it.
fn copy_of(repository: &dyn Repository, label: &Label, row: &Row) -> Option<CopyId> {
    let files = repository.files(label).ok()?;
    let stored: Box<dyn ReadAt> = files.open(&row.path).ok()??;
    stored.copy_id()
}
