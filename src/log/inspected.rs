//! Remembers headers and footers of chunk files that were read already, so that nothing is read
//! twice in a run.

use std::sync::Arc;
use std::time::SystemTime;

use super::log_file::LogFile;
use crate::format::chunk::ChunkFile;
use crate::fs::Stamp;
use crate::manifest::RelativePath;

/// Headers and footers that were read already, by path. One counts as long as the state of its file
/// is the same: inode, length and times.
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
    file: Arc<ChunkFile>,
}

impl Inspected {
    /// Remembers files that others may write to. Only those count that had not changed since before
    /// `since`.
    pub(super) fn of(used: Vec<LogFile>, since: SystemTime) -> Self {
        let mut files = Vec::new();
        for found in used {
            let LogFile {
                path, file, stamp, ..
            } = found;
            if let Some(stamp) = stamp {
                files.push(InspectedFile { path, stamp, file });
            }
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));

        Self {
            files,
            since: Some(since),
        }
    }

    /// Adds a file that was read in this state. It replaces an earlier reading of the same path.
    pub fn add(&mut self, path: &RelativePath, stamp: Stamp, file: Arc<ChunkFile>) {
        let added = InspectedFile {
            path: path.clone(),
            stamp,
            file,
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

    /// The state in which a file was read; `None` if it was not read.
    #[must_use]
    pub fn stamp(&self, path: &RelativePath) -> Option<Stamp> {
        let known = self.get(path)?;
        Some(known.stamp)
    }

    /// What was read of a file that is in this state now; `None` if it has to be read again.
    pub(super) fn find(&self, path: &RelativePath, stamp: Stamp) -> Option<&Arc<ChunkFile>> {
        let known = self.get(path)?;
        if known.stamp != stamp {
            return None;
        }

        match self.since {
            Some(since) if !stamp.is_before(since) => None,
            _ => Some(&known.file),
        }
    }

    fn get(&self, path: &RelativePath) -> Option<&InspectedFile> {
        let index = self.index_of(path).ok()?;
        self.files.get(index)
    }

    /// The index of a path, or else the index where it belongs.
    fn index_of(&self, path: &RelativePath) -> Result<usize, usize> {
        self.files.binary_search_by(|known| known.path.cmp(path))
    }
}
