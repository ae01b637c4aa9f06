//! Remembers the headers and footers of chunk files, so that one run does not read them twice.

use std::sync::Arc;
use std::time::SystemTime;

use super::log_file::LogFile;
use crate::format::chunk::ChunkFile;
use crate::fs::Stamp;
use crate::manifest::RelativePath;

/// Headers and footers that were read already, by path. A reading counts as long as the file has
/// the same inode, length and times.
#[derive(Debug, Default)]
pub struct Inspected {
    /// Sorted by path. Files nearly always come in this order.
    files: Vec<InspectedFile>,
    /// A file that changed at this time or later is read again, because it may have changed twice
    /// within one tick of the clock.
    since: Option<SystemTime>,
}

/// A file that was read, and its state at that moment.
#[derive(Debug)]
struct InspectedFile {
    path: RelativePath,
    stamp: Stamp,
    chunk: Arc<ChunkFile>,
}

impl Inspected {
    /// Remembers files that a server may be writing to. Only files that last changed before `since`
    /// count.
    pub(super) fn of(used: Vec<LogFile>, since: SystemTime) -> Self {
        let mut files = Vec::new();
        for found in used {
            if let Some(stamp) = found.stamp {
                files.push(InspectedFile {
                    path: found.path,
                    stamp,
                    chunk: found.chunk,
                });
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));

        Self {
            files,
            since: Some(since),
        }
    }

    /// Adds a file that was read in this state. It replaces an earlier reading of the same path.
    pub fn add(&mut self, path: &RelativePath, stamp: Stamp, chunk: Arc<ChunkFile>) {
        let added = InspectedFile {
            path: path.clone(),
            stamp,
            chunk,
        };

        // The usual case: paths come in their order.
        if self.files.last().is_none_or(|last| last.path < *path) {
            self.files.push(added);
            return;
        }

        match self.index_of(path) {
            Ok(index) => self.files.splice(index..=index, [added]),
            Err(index) => self.files.splice(index..index, [added]),
        };
    }

    /// Forgets what was read of a path, because another file is there now.
    pub fn forget(&mut self, path: &RelativePath) {
        if let Ok(index) = self.index_of(path) {
            self.files.remove(index);
        }
    }

    /// The state in which a file was read. Returns `None` if it was not read.
    #[must_use]
    pub fn stamp(&self, path: &RelativePath) -> Option<Stamp> {
        let known = self.get(path)?;
        Some(known.stamp)
    }

    /// What was read of a file that now has this stamp. Returns `None` if the file has to be read
    /// again.
    pub(super) fn find(&self, path: &RelativePath, stamp: Stamp) -> Option<&Arc<ChunkFile>> {
        let known = self.get(path)?;
        if known.stamp != stamp {
            return None;
        }

        match self.since {
            Some(since) if !stamp.is_before(since) => None,
            _ => Some(&known.chunk),
        }
    }

    fn get(&self, path: &RelativePath) -> Option<&InspectedFile> {
        let index = self.index_of(path).ok()?;
        self.files.get(index)
    }

    /// The index of a path. As an error, the index at which the path has to be inserted.
    fn index_of(&self, path: &RelativePath) -> Result<usize, usize> {
        self.files.binary_search_by(|known| known.path.cmp(path))
    }
}
