//! Brings files into the working copy: copies them from the source, resumes what an interrupted run
//! has copied, and stores bytes that kbackup makes itself.

use std::sync::Arc;

use super::super::source_files::{changed, timestamp};
use super::captured_file::{CapturedFile, CapturedRow, FileOrigin, ReadRecords};
use super::working_copy::Capture;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::chunk::ChunkFile;
use crate::format::{Md5Hash, ReadAt};
use crate::fs::{self, Stamp};
use crate::log::ChunkRecords;
use crate::manifest::{ChunkRow, RelativePath, Role, Row};
use crate::proof::CheckedTable;
use crate::repository::{Attributes, Ingest, ProvenCopy, Resumed, Stored};
use crate::transfer::Follower;

/// What to copy of an open source file, and what is known of it.
pub(in crate::backup) struct CopyRequest<'a> {
    pub(in crate::backup) role: Role,
    pub(in crate::backup) file: &'a fs::File,
    /// Bytes to copy from the start.
    pub(in crate::backup) length: u64,
    /// Length of the stored file. What lies beyond `length` is a hole.
    pub(in crate::backup) full_length: u64,
    /// The last 16 bytes, if they are the server's MD5 of all others.
    pub(in crate::backup) md5: Option<Md5Hash>,
    /// Read every byte. A file without an MD5 is always read like this: nothing else would show that
    /// the file system reported data as a hole.
    pub(in crate::backup) reads_every_byte: bool,
    pub(in crate::backup) mode: StoredMode,
    pub(in crate::backup) chunk: Option<ChunkRow>,
}

/// Which permission bits the stored file gets.
#[derive(Debug, Clone, Copy)]
pub(in crate::backup) enum StoredMode {
    /// Those of the node's file.
    AsFound,
    /// Those of the node's file, and the owner may write: the server writes to the restored file.
    Writable,
}

/// A source file that was stored. [`Capture::add`] makes it part of the backup.
pub(in crate::backup) struct StoredFile {
    pub(in crate::backup) row: Row,
    /// What the stored bytes hash to, if the server has an MD5 of them.
    pub(in crate::backup) md5: Option<Md5Hash>,
    /// Bytes read from the source.
    pub(in crate::backup) bytes_read: u64,
    /// Bytes at the beginning that an interrupted run had copied.
    begun: u64,
    pub(in crate::backup) records: Option<Box<ReadRecords>>,
    /// A table, with its entries for the latest events.
    pub(in crate::backup) table: Option<Box<CheckedTable>>,
    pub(in crate::backup) is_damaged: bool,
    /// What header and footer of a chunk said as it was stored.
    pub(in crate::backup) header_and_footer: Option<Arc<ChunkFile>>,
    /// The state of the file at that moment.
    stamp: Option<Stamp>,
    origin: FileOrigin,
}

impl<'a> CopyRequest<'a> {
    /// The whole file as it is now.
    pub(in crate::backup) fn whole(role: Role, file: &'a fs::File) -> Self {
        Self {
            role,
            file,
            length: file.size(),
            full_length: file.size(),
            md5: None,
            reads_every_byte: false,
            mode: StoredMode::AsFound,
            chunk: None,
        }
    }

    fn ingest(&'a self, attributes: Attributes, follow: Follower<'a>) -> Ingest<'a> {
        Ingest {
            source: self.file,
            place: self.file.path().display().to_string(),
            length: self.length,
            full_length: self.full_length,
            md5: self.md5,
            reads_every_byte: self.reads_every_byte || self.md5.is_none(),
            attributes,
            follow,
        }
    }

    /// Mode and time, as they are before the file is read.
    fn attributes(&self) -> Result<Attributes> {
        let status = self.file.status()?;
        let found = status.mode & 0o777;
        let mode = match self.mode {
            StoredMode::AsFound => found,
            StoredMode::Writable => found | 0o200,
        };
        Ok(Attributes {
            mode,
            modified: timestamp(status.modified),
        })
    }

    fn stored_file(
        &self,
        path: &RelativePath,
        stored: Stored,
        attributes: Attributes,
        origin: FileOrigin,
    ) -> StoredFile {
        let table_md5 = match self.role {
            Role::Table => stored.md5,
            _ => None,
        };
        let row = Row {
            chunk: self.chunk,
            table_md5,
            ..row(path, self.role, stored, attributes)
        };
        StoredFile {
            row,
            md5: stored.md5,
            bytes_read: 0,
            begun: stored.begun,
            records: None,
            table: None,
            is_damaged: false,
            header_and_footer: None,
            stamp: stored.stamp,
            origin,
        }
    }
}

impl Capture<'_> {
    /// Resumes what an interrupted run has copied of a source file whose MD5 is `md5`. Returns
    /// `None` if there is no such file. Also returns what that run learnt from the records. If it
    /// has kept nothing, `follow` has seen the bytes.
    pub(in crate::backup) fn resume(
        &self,
        path: &RelativePath,
        request: &CopyRequest<'_>,
        md5: Md5Hash,
        follow: Follower<'_>,
    ) -> Result<Option<(StoredFile, Option<ChunkRecords>)>> {
        let attributes = request.attributes()?;
        let size = request.full_length;
        let Some(resumed) = self.incoming.resume(path, size, md5, follow)? else {
            return Ok(None);
        };
        let Resumed { stored, records } = resumed;

        self.run.emit(Event::Resumed {
            path: path.to_string(),
            bytes: stored.size,
        });
        let file = request.stored_file(path, stored, attributes, FileOrigin::Resumed);
        Ok(Some((file, records)))
    }

    /// Keeps the proof of a stored file whose MD5 is the server's, for the next run if this one is
    /// interrupted.
    pub(in crate::backup) fn keep_proof(&self, stored: &StoredFile) -> Result<()> {
        let Some(md5) = stored.md5 else {
            return Ok(());
        };
        let records = match &stored.records {
            Some(records) => records.told.clone(),
            None => None,
        };

        let path = &stored.row.path;
        let proof = ProvenCopy {
            size: stored.row.size,
            blake3: stored.row.blake3,
            md5,
            records,
        };
        let Err(error) = self.incoming.keep_proof(path, proof) else {
            return Ok(());
        };
        // The file will not count as captured, so it must not stay.
        self.incoming.remove(path)?;
        Err(error)
    }

    /// Copies a source file.
    pub(in crate::backup) fn copy(
        &self,
        path: &RelativePath,
        request: &CopyRequest<'_>,
        follow: Follower<'_>,
    ) -> Result<StoredFile> {
        let attributes = request.attributes()?;
        let ingest = request.ingest(attributes, follow);

        let stored = self.incoming.ingest(path, ingest);
        self.finish_copy(path, request, stored, attributes, request.length)
    }

    /// Copies a source file whose first `prefix` bytes the parent's file has already.
    pub(in crate::backup) fn extend(
        &self,
        path: &RelativePath,
        parent_row: &Row,
        prefix: u64,
        request: &CopyRequest<'_>,
        follow: Follower<'_>,
    ) -> Result<StoredFile> {
        let attributes = request.attributes()?;
        let ingest = request.ingest(attributes, follow);

        let stored = self.incoming.extend(path, parent_row, prefix, ingest);
        let bytes_read = request.length.saturating_sub(prefix);
        self.finish_copy(path, request, stored, attributes, bytes_read)
    }

    fn finish_copy(
        &self,
        path: &RelativePath,
        request: &CopyRequest<'_>,
        stored: Result<Stored>,
        attributes: Attributes,
        bytes_read: u64,
    ) -> Result<StoredFile> {
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                // The next attempt may not copy this path again, so half a file must not stay.
                self.incoming.remove(path)?;
                return Err(error);
            }
        };

        let bytes_read = bytes_read.saturating_sub(stored.begun);
        self.run.emit(Event::Copied {
            path: path.to_string(),
            bytes: bytes_read,
        });
        Ok(StoredFile {
            bytes_read,
            ..request.stored_file(path, stored, attributes, FileOrigin::Copied)
        })
    }

    /// Makes a stored file part of the backup.
    pub(in crate::backup) fn add(&mut self, stored: StoredFile) {
        self.cost.bytes_read += stored.bytes_read;
        self.cost.bytes_resumed += stored.begun;

        let path = stored.row.path.clone();
        let file = CapturedFile {
            row: CapturedRow::Own(Box::new(stored.row)),
            origin: stored.origin,
            is_wanted: true,
            records: stored.records,
            table: stored.table,
            is_damaged: stored.is_damaged,
        };
        self.insert_file(file);
        if let (Some(stamp), Some(chunk)) = (stored.stamp, stored.header_and_footer) {
            self.inspected.add(&path, stamp, chunk);
        }
    }

    /// Makes a file that was resumed or finished before the attempts part of the backup, if an
    /// attempt finds it at the source.
    pub(in crate::backup) fn add_resumed(&mut self, stored: StoredFile) {
        let path = stored.row.path.clone();
        self.add(stored);
        if let Some(file) = self.captured.get_mut(&path) {
            file.is_wanted = false;
        }
    }

    /// Copies a source file that has no checksum of the server's, and makes it part of the backup.
    pub(in crate::backup) fn copy_and_add(
        &mut self,
        path: &RelativePath,
        request: &CopyRequest<'_>,
    ) -> Result<()> {
        self.captured.remove(path);
        let stored = self.copy(path, request, None)?;
        self.add(stored);
        Ok(())
    }

    /// Stores bytes that kbackup has read or made, and makes them part of the backup.
    pub(in crate::backup) fn write(
        &mut self,
        path: &RelativePath,
        role: Role,
        bytes: &[u8],
        modified: Timestamp,
    ) -> Result<()> {
        let attributes = Attributes {
            mode: 0o644,
            modified,
        };
        let stored = self.incoming.write(path, bytes, attributes)?;
        self.insert_own(row(path, role, stored, attributes));
        Ok(())
    }

    /// Cuts a captured chunk after `length` bytes, and makes the rest up to `full_length` a hole.
    pub(in crate::backup) fn cut(
        &mut self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
    ) -> Result<()> {
        let Some(file) = self.captured.get(path) else {
            return Err(Error::new(Kind::Failed, "there is no captured file to cut").on(path));
        };
        let mut row = (*file.row).clone();
        if file.origin == FileOrigin::Reused {
            self.prove_before_cut(&row)?;
        }

        let attributes = Attributes {
            mode: row.mode | 0o200,
            modified: row.modified,
        };
        let stored = self.incoming.cut(path, length, full_length, attributes)?;

        row.size = stored.size;
        row.blake3 = stored.blake3;
        row.mode = attributes.mode;
        if let Some(chunk) = &mut row.chunk {
            chunk.md5 = None;
        }
        self.insert_own(row);
        Ok(())
    }

    /// Proves a reused file before it is cut: it then gets a new hash, which would hide damage.
    fn prove_before_cut(&mut self, row: &Row) -> Result<()> {
        if let Some(stored) = self.incoming.open(&row.path)?
            && self.has_bytes_of(row, stored)?
        {
            return Ok(());
        }

        let error = changed("a stored file is damaged")
            .on(self.incoming.place_of(&row.path))
            .because("the BLAKE3 differs");
        self.discard_reused(&row.path, &error)?;
        Err(error)
    }

    fn insert_own(&mut self, row: Row) {
        self.insert(CapturedRow::Own(Box::new(row)), FileOrigin::Copied);
    }
}

fn row(path: &RelativePath, role: Role, stored: Stored, attributes: Attributes) -> Row {
    Row {
        path: path.clone(),
        role,
        size: stored.size,
        mode: attributes.mode,
        modified: attributes.modified,
        captured: stored.captured,
        blake3: stored.blake3,
        chunk: None,
        table_md5: None,
    }
}
