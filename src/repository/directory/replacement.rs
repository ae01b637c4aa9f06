//! Replaces a damaged file of a listed backup by the same bytes of another one.
//!
//! kbackup makes every new name in `incoming/`, which the next writer cleans up, and renames it
//! once to its place. So a run that is killed in between leaves nothing in `backups/` that no
//! manifest knows.

use std::path::{Path, PathBuf};

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
    let directory = make_directory_of(repository, label, row)?;
    let incoming = repository.layout.incoming();
    let staged = incoming.join(clock::identifier().to_string());

    match fs::hard_link(good.path(), &staged) {
        Ok(()) => {}
        Err(error) if cannot_link(&error) => {
            if let Err(error) = copy(&good, row, &staged, run) {
                // If it cannot be removed now, the next writer removes it.
                let _ = fs::remove_file(&staged);
                return Err(error);
            }
        }
        Err(error) => return Err(error.into()),
    }

    if let Err(error) = fs::rename(&staged, &directory.join(row.path.file_name())) {
        let _ = fs::remove_file(&staged);
        return Err(error.into());
    }
    fs::sync_directory(&directory)?;
    Ok(fs::sync_directory(&incoming)?)
}

/// Copies the good file, because the file system cannot link it once more.
fn copy(from: &fs::File, row: &Row, staged: &Path, run: &Run) -> Result<()> {
    let file = fs::create_new(staged, FILE_MODE)?;

    let place = from.path().display().to_string();
    let segment = Segment {
        source: from,
        place: &place,
        end: row.size,
        live: false,
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
