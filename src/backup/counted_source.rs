//! The source's files, with a count of the bytes that kbackup reads of them. The cost of a backup
//! includes what it reads only to look.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::format::ReadAt;
use crate::fs;
use crate::log::of_source;
use crate::manifest::{Directories, FileEntry, FileSet, RelativePath};

/// The source's files, with a count of the bytes that are read through it.
pub(super) struct CountedSource<'a> {
    source: &'a Directories,
    read: Arc<AtomicU64>,
}

impl<'a> CountedSource<'a> {
    pub(super) fn new(source: &'a Directories) -> Self {
        Self {
            source,
            read: Arc::default(),
        }
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

impl FileSet for CountedSource<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        self.source.files()
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        let file = match fs::open_source(&self.source.path_of(path)) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(of_source(error)),
        };
        Ok(Some(Box::new(CountedFile {
            file,
            read: Arc::clone(&self.read),
        })))
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.source.place_of(path)
    }
}

struct CountedFile {
    file: fs::File,
    read: Arc<AtomicU64>,
}

impl ReadAt for CountedFile {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let count = ReadAt::read_at(&self.file, offset, buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
