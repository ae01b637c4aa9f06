//! The files of a backup as the disk holds them, and not as the page cache remembers them.

use super::known_files::KnownFiles;
use crate::error::Result;
use crate::format::ReadAt;
use crate::manifest::{FileEntry, FileSet, RelativePath};

/// The same files, each read from the disk.
pub(super) struct FromDisk<'a> {
    files: &'a dyn FileSet,
    known: &'a KnownFiles,
}

impl<'a> FromDisk<'a> {
    pub(super) fn new(files: &'a dyn FileSet, known: &'a KnownFiles) -> Self {
        Self { files, known }
    }
}

impl FileSet for FromDisk<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        self.files.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        let opened = self.files.open(path)?;
        if let Some(file) = &opened {
            self.known.read_from_disk(&**file);
        }
        Ok(opened)
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.files.place_of(path)
    }
}
