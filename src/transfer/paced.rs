//! Files that are read at a run's pace: every byte is taken from its budget.

use std::io;

use crate::error::Result;
use crate::fs::{CopyId, File, ReadAt, Stamp};
use crate::manifest::{FileEntry, FileSet, RelativePath};
use crate::pace::Pace;
use crate::run::Run;

/// A set of files that is read at a run's pace.
pub struct Paced<'a> {
    files: &'a dyn FileSet,
    pace: &'a Pace,
}

impl<'a> Paced<'a> {
    /// The same files, at the run's pace.
    #[must_use]
    pub fn new(files: &'a dyn FileSet, run: &'a Run) -> Self {
        Self {
            files,
            pace: run.pace(),
        }
    }
}

impl FileSet for Paced<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        self.files.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        Ok(self.files.open(path)?.map(|file| at_pace(file, self.pace)))
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.files.place_of(path)
    }
}

/// The same file, at the run's pace.
#[must_use]
pub fn paced(file: Box<dyn ReadAt>, run: &Run) -> Box<dyn ReadAt> {
    at_pace(file, run.pace())
}

fn at_pace(file: Box<dyn ReadAt>, pace: &Pace) -> Box<dyn ReadAt> {
    if !pace.is_limited() {
        return file;
    }

    Box::new(PacedFile {
        file,
        pace: pace.clone(),
    })
}

/// An interruption ends the wait, not the read: the reader checks its run itself.
struct PacedFile {
    file: Box<dyn ReadAt>,
    pace: Pace,
}

impl PacedFile {
    fn read_at_pace(
        &self,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let piece = usize::try_from(self.pace.piece(buffer.len() as u64)).unwrap_or(buffer.len());
        let count = read(buffer.get_mut(..piece).unwrap_or_default())?;
        self.pace.spend(count as u64);
        Ok(count)
    }
}

impl ReadAt for PacedFile {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at_pace(buffer, |piece| self.file.read_at(offset, piece))
    }

    fn read_once_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_at_pace(buffer, |piece| self.file.read_once_at(offset, piece))
    }

    fn file(&self) -> Option<&File> {
        self.file.file()
    }

    fn stamp(&self) -> Option<Stamp> {
        self.file.stamp()
    }

    fn copy_id(&self) -> Option<CopyId> {
        self.file.copy_id()
    }
}
