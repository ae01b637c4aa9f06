//! An open chunk file of the source.

use super::source_files::{changed, open};
use crate::error::{Error, Kind, Result};
use crate::format::chunk::{self, ChunkFile};
use crate::format::{ChunkSize, ChunkVersion, InContext, LogPosition};
use crate::fs;
use crate::log::LogFile;
use crate::manifest::{ChunkRow, Directories, RelativePath};

/// Header and footer: what is read of each chunk to identify it.
pub(super) const IDENTITY_BYTES: u64 = 256;

/// An open chunk file of the source.
pub(super) struct SourceChunk<'a> {
    pub(super) path: &'a RelativePath,
    pub(super) file: fs::File,
    pub(super) state: ChunkFile,
    /// What identifies the chunk.
    pub(super) row: ChunkRow,
}

impl<'a> SourceChunk<'a> {
    /// Opens a chunk, and checks that it is still the one that the listing has shown.
    ///
    /// # Errors
    /// `Unstable` if the chunk was replaced; `Refused` if it is encrypted.
    pub(super) fn open(source: &Directories, found: &'a LogFile) -> Result<Self> {
        let chunk = Self::at(source, &found.path, found.name.version)?;
        if chunk.state.header.end != found.end() {
            return Err(changed("a chunk was replaced by another one").at(chunk.file.path()));
        }
        Ok(chunk)
    }

    /// Opens the chunk that has this path now.
    ///
    /// # Errors
    /// `Unstable` if there is none; `Refused` if it is encrypted.
    pub(super) fn at(
        source: &Directories,
        path: &'a RelativePath,
        version: ChunkVersion,
    ) -> Result<Self> {
        let file = open(source, path)?;
        let state = chunk::inspect(&file).in_source(file.path())?;
        if state.header.transform != chunk::Transform::Identity {
            let what = "the chunk is encrypted, and kbackup cannot prove encrypted chunks yet";
            return Err(Error::new(Kind::Refused, what)
                .at(file.path())
                .hint("take volume snapshots of this node"));
        }

        let row = ChunkRow::of(&state, version);
        Ok(Self {
            path,
            file,
            state,
            row,
        })
    }

    pub(super) fn size(&self) -> ChunkSize {
        self.state.header.chunk_size
    }

    /// The position of its first record in the log.
    pub(super) fn start(&self) -> LogPosition {
        self.state.header.start_position()
    }

    /// Bytes of the file before a position of the log in it. The chunk must not be scavenged.
    pub(super) fn length_before(&self, position: LogPosition) -> u64 {
        chunk::HEADER_LENGTH + self.size().local(position)
    }

    /// Length of the file while the server appends to it.
    pub(super) fn active_length(&self) -> Result<u64> {
        match chunk::full_length(self.size(), chunk::Transform::Identity) {
            Some(length) => Ok(length),
            None => {
                let what = "no server has chunks as large as these";
                Err(Error::new(Kind::SourceCorrupt, what))
            }
        }
    }
}
