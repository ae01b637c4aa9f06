//! Replaces a damaged file of a listed backup by the same bytes of another one, and gives a file
//! that is one inode with another file of its backup a copy of its own.
//!
//! kbackup makes every new name in `incoming/`, which the next writer cleans up, and renames it
//! once to its place. So a run that is killed in between leaves nothing in `backups/` that no
//! manifest knows.

use std::path::PathBuf;

use super::DirectoryRepository;
use super::draft::{cannot_link, set_attributes};
use super::layout::{FILE_MODE, is_directory, make_directory};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::{Label, Row};
use crate::run::Run;
use crate::transfer::{self, Segment};

/// A file of a backup: the backup's label, and the file's row.
type StoredRow<'a> = (&'a Label, &'a Row);

/// As [`crate::repository::Writer::replace`].
pub(super) fn replace(
    repository: &DirectoryRepository,
    (label, row): StoredRow<'_>,
    (good_label, good_row): StoredRow<'_>,
    run: &Run,
) -> Result<()> {
    let good = repository.backup(good_label)?.open_row(good_row)?;
    let staged = Staged::new(repository);

    // Two names of one backup must never lead to one file. Another path may be such a name.
    let may_share = good_row.path == row.path && good_label != label;
    if !(may_share && staged.link(&good)?) {
        staged.copy(&good, row, run)?;
    }
    staged.publish(repository, (label, row))
}

/// As [`crate::repository::Writer::separate`].
pub(super) fn separate(
    repository: &DirectoryRepository,
    (label, row): StoredRow<'_>,
    run: &Run,
) -> Result<()> {
    let shared = repository.backup(label)?.open_row(row)?;
    let staged = Staged::new(repository);
    staged.copy(&shared, row, run)?;
    staged.publish(repository, (label, row))
}

/// A new name in `incoming/`. Dropping it removes it. If it cannot be removed now, the next writer
/// removes it.
struct Staged {
    path: PathBuf,
}

impl Staged {
    fn new(repository: &DirectoryRepository) -> Self {
        let name = clock::identifier().to_string();
        Self {
            path: repository.layout.incoming().join(name),
        }
    }

    /// Makes the new name lead to a stored file. Returns false if the file system has no hard links,
    /// or no more for this file.
    fn link(&self, good: &fs::File) -> Result<bool> {
        match fs::hard_link(good.path(), &self.path) {
            Ok(()) => Ok(true),
            Err(error) if cannot_link(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies a stored file, and proves it on the way.
    fn copy(&self, from: &fs::File, row: &Row, run: &Run) -> Result<()> {
        let file = fs::create_new(&self.path, FILE_MODE)?;

        let place = from.path().display().to_string();
        let segment = Segment {
            source: from,
            place: &place,
            end: row.size,
            reads_every_byte: false,
            whole: None,
        };
        let plan = transfer::CopyPlan {
            segments: &[segment],
            full_length: row.size,
            md5: false,
        };
        let copied = transfer::copy(&plan, &file, None, run)?;

        if copied.digest.blake3 != row.blake3 {
            return Err(Error::new(Kind::StoredCorrupt, "a stored file is damaged").at(from.path()));
        }
        set_attributes(&file, row.into())?;
        Ok(file.sync()?)
    }

    /// Moves the file to its place in a backup, durably.
    fn publish(&self, repository: &DirectoryRepository, (label, row): StoredRow<'_>) -> Result<()> {
        let directory = make_directory_of(repository, label, row)?;
        fs::rename(&self.path, &directory.join(row.path.file_name()))?;
        fs::sync_directory(&directory)?;
        Ok(fs::sync_directory(&repository.layout.incoming())?)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The directory that the file belongs in. Creates it if it is gone.
fn make_directory_of(
    repository: &DirectoryRepository,
    label: &Label,
    row: &Row,
) -> Result<PathBuf> {
    let files = repository.backup(label)?;
    let place = files.path_of(&row.path);
    let below = place.strip_prefix(files.top()).unwrap_or(&place);

    let mut directory = files.top().to_owned();
    for part in fs::parent(below) {
        let above = directory.clone();
        directory.push(part);
        if !is_directory(&directory)? {
            make_directory(&directory)?;
            fs::sync_directory(&above)?;
        }
    }
    Ok(directory)
}
