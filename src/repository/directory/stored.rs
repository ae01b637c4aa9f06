use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use super::layout::{has_directories, is_directory};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs;
use crate::manifest::{Directories, FileEntry, FileSet, RelativePath, Root, Row};

/// The files below one directory of the repository: a backup's, or those of a backup in the making.
#[derive(Debug)]
pub(super) struct Files {
    top: PathBuf,
    /// Directories that were looked at, and are real ones: once is enough for all that lies in
    /// them.
    real: RwLock<Vec<(Root, String)>>,
}

impl Files {
    pub(super) fn new(top: PathBuf) -> Self {
        Self {
            top,
            real: RwLock::default(),
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

    /// Opens a file that must be as its row says, as far as its length tells.
    ///
    /// # Errors
    /// `StoredCorrupt` where it is gone, has another length, or is no plain file.
    pub(super) fn open_row(&self, row: &Row) -> Result<fs::File> {
        let place = self.path_of(&row.path);
        let corrupt = |why: String| {
            not_as_stored(&place, why)
                .hint("`kbackup verify` tells what else is damaged; a `kbackup full` reads everything from the node again")
        };
        if !self.has_directories(&row.path)? {
            return Err(corrupt("it is gone".to_owned()));
        }
        match fs::open(&place) {
            Ok(file) if file.found().size != row.size => Err(corrupt(format!(
                "it has {} bytes, not {}",
                file.found().size,
                row.size
            ))),
            Ok(file) => Ok(file),
            Err(error) if error.is_not_found() => Err(corrupt("it is gone".to_owned())),
            Err(error) if error.is_no_plain_file() => {
                Err(corrupt("it is no plain file".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether all directories of a path are there and real.
    pub(super) fn has_directories(&self, path: &RelativePath) -> Result<bool> {
        let (root, directory) = (path.root(), directory_of(path));
        let is_known = |real: &[(Root, String)]| {
            real.iter()
                .any(|(other, known)| *other == root && known == directory)
        };
        if is_known(&self.real.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(true);
        }
        let there = has_directories(&self.top, path).map_err(planted)?;
        if there {
            self.real
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .push((root, directory.to_owned()));
        }
        Ok(there)
    }
}

/// A stored file is damaged.
pub(super) fn not_as_stored(place: &Path, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
        .at(place)
        .because(why.into())
}

/// The directory of a path, below its root.
fn directory_of(path: &RelativePath) -> &str {
    path.below_root()
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory)
}

/// What stands in a backup where it had a directory is damage to this backup, and to no other.
fn planted(error: Error) -> Error {
    if error.kind() == Kind::Refused {
        error.with_kind(Kind::StoredCorrupt)
    } else {
        error
    }
}

impl FileSet for Files {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let directories = self.directories();
        is_directory(&directories.db).map_err(planted)?;
        is_directory(&directories.index).map_err(planted)?;
        directories.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        if !self.has_directories(path)? {
            return Ok(None);
        }
        let place = self.path_of(path);
        match fs::open(&place) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.is_no_plain_file() => {
                Err(not_as_stored(&place, "it is no plain file"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.path_of(path).display().to_string()
    }
}
