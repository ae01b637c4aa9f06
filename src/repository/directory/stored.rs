use std::path::{Path, PathBuf};

use super::layout::{has_directories, is_directory};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs::{self, FileKind};
use crate::manifest::{Directories, FileEntry, FileSet, RelativePath, Row};

/// The files below one directory of the repository: a backup's, or those of a backup in the making.
#[derive(Debug)]
pub(super) struct Files {
    top: PathBuf,
}

impl Files {
    pub(super) fn new(top: PathBuf) -> Self {
        Self { top }
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
            Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
                .at(&place)
                .because(why)
                .hint("`kbackup verify` tells what else is damaged; a `kbackup full` reads everything from the node again")
        };
        if !has_directories(&self.top, &row.path).map_err(planted)? {
            return Err(corrupt("it is gone".to_owned()));
        }
        match fs::status(&place)? {
            None => Err(corrupt("it is gone".to_owned())),
            Some(status) if status.kind != FileKind::File => Err(corrupt("it is no plain file".to_owned())),
            Some(status) if status.size != row.size => Err(corrupt(format!("it has {} bytes, not {}", status.size, row.size))),
            Some(_) => Ok(fs::open(&place)?),
        }
    }
}

/// What stands in a backup where it had a directory is damage to this backup, and to no other.
fn planted(error: Error) -> Error {
    if error.kind() == Kind::Refused { error.with_kind(Kind::StoredCorrupt) } else { error }
}

impl FileSet for Files {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let directories = self.directories();
        is_directory(&directories.db).map_err(planted)?;
        is_directory(&directories.index).map_err(planted)?;
        directories.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        if !has_directories(&self.top, path).map_err(planted)? {
            return Ok(None);
        }
        let place = self.path_of(path);
        match fs::status(&place)? {
            Some(status) if status.kind != FileKind::File => {
                Err(Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored").at(&place).because("it is no plain file"))
            }
            Some(_) | None => self.directories().open(path),
        }
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.path_of(path).display().to_string()
    }
}
