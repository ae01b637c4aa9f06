//! A chunk file of a set, with what its header and footer said when it was read.

use std::sync::Arc;

use super::access::open_listed;
use super::selection::ListedChunk;
use crate::error::Result;
use crate::format::chunk::{ChunkFile, ChunkHeader};
use crate::format::names::ChunkName;
use crate::format::{ChunkNumber, ReadAt};
use crate::fs::Stamp;
use crate::manifest::{FileSet, RelativePath};

/// One chunk file of a set, known from its name, header and footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its place in the set.
    pub path: RelativePath,
    /// Number and version, as the file's name says them.
    pub name: ChunkName,
    /// Permission bits.
    pub mode: u32,
    /// Header, length and state of the chunk.
    pub chunk: Arc<ChunkFile>,
    /// The state of the file when it was listed. `None` if the storage does not tell it.
    pub(crate) stamp: Option<Stamp>,
}

impl LogFile {
    /// The header of the file.
    #[must_use]
    pub fn header(&self) -> &ChunkHeader {
        &self.chunk.header
    }

    /// The first chunk number in the file.
    #[must_use]
    pub fn start(&self) -> ChunkNumber {
        self.header().start
    }

    /// The last chunk number in the file.
    #[must_use]
    pub fn end(&self) -> ChunkNumber {
        self.header().end
    }

    /// Opens the file in the set that it was listed in.
    ///
    /// # Errors
    /// [`Kind::Unstable`](crate::error::Kind::Unstable) if it vanished since the set was read.
    pub fn open(&self, files: &dyn FileSet) -> Result<Box<dyn ReadAt>> {
        open_listed(files, &self.path)
    }

    /// What was listed of the file, before its header was read.
    pub(super) fn listed(&self) -> ListedChunk {
        ListedChunk {
            path: self.path.clone(),
            name: self.name,
            mode: self.mode,
            stamp: self.stamp,
        }
    }
}
