//! The files below one directory of the repository: those of a backup, or of one in the making.

use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use super::layout::{has_directories, is_directory};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs::{self, Beneath, IoError};
use crate::manifest::{Directories, FileEntry, FileSet, RelativePath, Root, Row};

/// The files of one data directory in the repository. No link below its top is followed.
#[derive(Debug)]
pub(super) struct Files {
    top: PathBuf,
    /// The top, opened with the first file.
    beneath: OnceLock<Beneath>,
    /// Directories that were checked and are real ones. One check is enough for all files in them.
    checked: RwLock<Vec<(Root, String)>>,
}

impl Files {
    pub(super) fn new(top: PathBuf) -> Self {
        Self {
            top,
            beneath: OnceLock::new(),
            checked: RwLock::default(),
        }
    }

    pub(super) fn top(&self) -> &Path {
        &self.top
    }

    pub(super) fn path_of(&self, path: &RelativePath) -> PathBuf {
        path.under(&self.top)
    }

    fn directories(&self) -> Directories {
        Directories::new(self.top.join("db"), Some(self.top.join("index")))
    }

    /// Opens a file below the top.
    pub(super) fn open_below(&self, below: &Path) -> Result<fs::File, IoError> {
        if let Some(beneath) = self.beneath.get() {
            return beneath.open(below);
        }
        let beneath = Beneath::new(&self.top)?;
        self.beneath.get_or_init(|| beneath).open(below)
    }

    /// Opens a file, and checks that it has the length of its row.
    ///
    /// # Errors
    /// `StoredCorrupt` if it is gone, has another length, or is not a plain file.
    pub(super) fn open_row(&self, row: &Row) -> Result<fs::File> {
        let place = self.path_of(&row.path);
        let why = match self.open_below(&below_top(&row.path)) {
            Ok(file) if file.found().size == row.size => return Ok(file),
            Ok(file) => format!("it has {} bytes, not {}", file.found().size, row.size),
            Err(error) if error.is_not_found() => "it is gone".to_owned(),
            Err(error) if error.is_no_plain_file() => {
                self.check_directories(&row.path)?;
                "it is no plain file".to_owned()
            }
            Err(error) => return Err(error.into()),
        };

        Err(not_as_stored(&place, why)
            .hint("`kbackup verify` tells what else is damaged")
            .hint("`kbackup full` reads everything from the node again"))
    }

    /// Fails if something on the way to a file is not a directory.
    fn check_directories(&self, path: &RelativePath) -> Result<()> {
        self.has_directories(path).map(drop)
    }

    /// Whether all directories of a path exist and are real ones.
    ///
    /// # Errors
    /// `StoredCorrupt` if one of them is something else.
    pub(super) fn has_directories(&self, path: &RelativePath) -> Result<bool> {
        let directory = (path.root(), directory_of(path));
        let is_known = self
            .checked
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|(root, known)| (*root, known.as_str()) == directory);
        if is_known {
            return Ok(true);
        }

        let are_there = has_directories(&self.top, path).map_err(damage_of_backup)?;
        if are_there {
            self.checked
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .push((path.root(), directory.1.to_owned()));
        }
        Ok(are_there)
    }
}

/// The error for a stored file that is damaged.
pub(super) fn not_as_stored(place: &Path, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is damaged")
        .at(place)
        .because(why.into())
}

/// A path below the top of a backup.
pub(super) fn below_top(path: &RelativePath) -> PathBuf {
    path.under(Path::new(""))
}

/// The directory of a path, below its root.
fn directory_of(path: &RelativePath) -> &str {
    match path.below_root().rsplit_once('/') {
        Some((directory, _)) => directory,
        None => "",
    }
}

/// If something else is in the place of a backup's directory, this backup is damaged, and no other.
fn damage_of_backup(error: Error) -> Error {
    if error.kind() == Kind::Refused {
        return error.with_kind(Kind::StoredCorrupt);
    }
    error
}

impl FileSet for Files {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let directories = self.directories();
        is_directory(&directories.db).map_err(damage_of_backup)?;
        is_directory(&directories.index).map_err(damage_of_backup)?;
        directories.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        match self.open_below(&below_top(path)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.is_no_plain_file() => {
                self.check_directories(path)?;
                Err(not_as_stored(&self.path_of(path), "it is no plain file"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.path_of(path).display().to_string()
    }
}
