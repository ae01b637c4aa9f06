//! The session of the repository's only writer.
//!
//! A [`Writer`] either becomes one backup ([`Writer::begin`] consumes it and returns an
//! [`Incoming`]), or repairs and removes backups. So nothing can be removed or replaced while a
//! backup is in the making, and no session makes two backups at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Pruned;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::format::{Md5Hash, ReadAt};
use crate::fs::Stamp;
use crate::log::ChunkRecords;
use crate::manifest::{Blake3Hash, FileSet, Label, Manifest, RelativePath, Row};
use crate::proof::Proven;
use crate::transfer::Follower;

/// The place of the repository's only writer.
pub trait Writer<'a> {
    /// Begins a backup that may reuse files of `parent`. What an interrupted run left is kept for
    /// [`Incoming::resume`] until a backup is committed.
    ///
    /// # Errors
    /// `NotFound` if the parent is not listed any more.
    fn begin(self: Box<Self>, parent: Option<&'a Manifest>) -> Result<Box<dyn Incoming + 'a>>;

    /// Replaces a damaged or missing file of a listed backup by `good`, a file that has the bytes it
    /// should have. This is one step: afterwards the name leads to what it led to before, or to the
    /// good bytes. The damaged copy is never written to, because other names may lead there. The
    /// good copy is shared only if it has the same path in another backup.
    ///
    /// # Errors
    /// `StoredCorrupt` if the good file is gone, or does not have its row's bytes.
    fn replace(&self, label: &Label, row: &Row, good: (&Label, &Row)) -> Result<()>;

    /// Gives a file of a listed backup a copy of its own: see [`Repository::twins`].
    ///
    /// # Errors
    /// `StoredCorrupt` if the file is gone, or does not have its row's bytes.
    ///
    /// [`Repository::twins`]: super::Repository::twins
    fn separate(&self, label: &Label, row: &Row) -> Result<()>;

    /// Removes a backup and its remembered condition. One durable step takes it out of the list,
    /// then its space is given back. A run that dies in between leaves nothing that is listed, and
    /// the next writer removes the rest.
    ///
    /// # Errors
    /// `NotFound` if it is not listed. After an error the backup is still listed. A failure after
    /// it has left the list is only a note of the run.
    fn remove(&self, label: &Label) -> Result<Removal>;

    /// Deletes what [`Repository::prunable`] finds, and marks what has to wait. A run that ends early
    /// leaves the rest to the next one.
    ///
    /// # Errors
    /// As for [`Repository::prunable`]; `Locked` if this run has lost its place.
    ///
    /// [`Repository::prunable`]: super::Repository::prunable
    fn prune(&self, grace: Duration) -> Result<Pruned> {
        let _ = grace;
        Ok(Pruned::default())
    }
}

/// The result of removing a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone. This many bytes of storage came free.
    Freed(u64),
    /// It is gone. Its space comes free later, with [`Writer::prune`].
    LeftToPrune,
    /// Somebody reads it, so it stays.
    InUse,
    /// The store removes it later, such as when a retention lock ends. Until then it may still be
    /// listed, and nothing has come free.
    Later,
}

/// Called with each reused file, from several threads.
pub type LookAtReused<'a> = &'a (dyn Fn(&Row, &dyn ReadAt) + Sync);

/// A backup in the making: a set of files that nobody lists.
///
/// Dropping it keeps what a later run can resume. If the storage itself has failed, nothing that
/// was written is trusted, and all of it is removed.
///
/// Several threads may store files at once, each under a path of its own.
pub trait Incoming: FileSet + Sync {
    /// Checks that `sequence` is still the next sequence number. Another run may have committed
    /// after it was chosen and before this run became the writer. [`Self::commit`] would find that
    /// out too, but only after everything was copied.
    ///
    /// # Errors
    /// `Locked` if another run has committed.
    fn check_next(&self, sequence: u64) -> Result<()>;

    /// Reuses files of the parent unchanged, several at once, and shows each to `look` as this set
    /// now has it. Returns the results in the order of `rows`. A file is open only while `look`
    /// sees it, so that no number of rows needs many descriptors.
    ///
    /// # Errors
    /// Each file has its own: `StoredCorrupt` if the parent's file is gone, or has another length.
    fn reuse(&self, rows: &[&Row], look: LookAtReused<'_>) -> Vec<Result<()>>;

    /// The files that interrupted runs left, and their lengths. Each path stands there once.
    ///
    /// # Errors
    /// What the storage reports.
    fn left(&self) -> Result<Vec<(RelativePath, u64)>>;

    /// Resumes a file that an interrupted run has stored under this path. Only the server's own
    /// checksum proves it: its last 16 bytes must be `md5`, which the caller has read from the
    /// source, and that must be the MD5 of all bytes before them. Returns `None` if there is no
    /// such file; a file that turns out wrong is removed. A file that also belongs to a backup is
    /// never resumed, so that a full shares nothing.
    ///
    /// If [`Self::keep_proof`] was called for the file, and it has not changed since, it is not
    /// read. Otherwise it is read at the run's pace, and `follow` sees its bytes. A proof without
    /// records is not enough for a caller that follows.
    ///
    /// # Errors
    /// An interruption ends the proof, and the file stays for the next run.
    fn resume(
        &self,
        path: &RelativePath,
        size: u64,
        md5: Md5Hash,
        follow: Follower<'_>,
    ) -> Result<Option<Resumed>>;

    /// Keeps the proof of a file of this set, so that a later run can resume the file without
    /// reading it. The file must be durable, as it is when a method of this trait has returned it,
    /// and its MD5 must be the server's.
    ///
    /// # Errors
    /// What the storage reports.
    fn keep_proof(&self, path: &RelativePath, proof: ProvenCopy) -> Result<()>;

    /// The files that interrupted runs have begun to copy, and have not finished. [`Self::ingest`]
    /// continues each, if the source still has that file. A store may keep none.
    ///
    /// # Errors
    /// What the storage reports.
    fn begun(&self) -> Result<Vec<Begun>> {
        Ok(Vec::new())
    }

    /// Copies a file of the source. It replaces an earlier file of this path.
    ///
    /// If an interrupted run has begun a file of this path that ends with the same MD5, this
    /// continues behind the bytes that are there. It reads those back from the storage, and shows
    /// them to the follower. Nothing proves them before the end: if the MD5 is wrong then, the
    /// caller copies the file again with [`Ingest::reads_every_byte`], which takes nothing from an
    /// interrupted run.
    ///
    /// # Errors
    /// `Unstable` if the source ends before `length`, or vanished: the procedure goes back and
    /// retries.
    fn ingest(&self, path: &RelativePath, ingest: Ingest<'_>) -> Result<Stored>;

    /// Copies a file whose first `prefix` bytes are those of the parent's file `held`. They are
    /// taken from the parent and proven by its hash. Only the rest is read from the source.
    ///
    /// # Errors
    /// As for [`Self::ingest`]; `StoredCorrupt` if the parent's file is damaged.
    fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        ingest: Ingest<'_>,
    ) -> Result<Stored>;

    /// Stores bytes that are in memory.
    fn write(&self, path: &RelativePath, bytes: &[u8], attributes: Attributes) -> Result<Stored>;

    /// Cuts a file of this set after `length` bytes, and makes the rest up to `full_length` a hole.
    /// A file that was reused stays whole in the parent.
    fn cut(
        &self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
        attributes: Attributes,
    ) -> Result<Stored>;

    /// Removes a file from the set; it need not exist.
    fn remove(&self, path: &RelativePath) -> Result<()>;

    /// Makes everything durable, and then visible under the manifest's label in one step. After an
    /// error nothing is listed.
    ///
    /// # Errors
    /// `Failed` if the files are not those of the manifest's rows; `Locked` if another run has
    /// committed since the manifest's sequence number was chosen.
    fn commit(self: Box<Self>, manifest: &Proven<Manifest>) -> Result<()>;

    /// How many bytes were written so far.
    fn bytes_stored(&self) -> u64;
}

/// What to copy from an open file of the source.
pub struct Ingest<'a> {
    /// The file: of a node, or of another repository. A plain file behind it ([`ReadAt::file`]) may
    /// be cloned, or copied by the kernel.
    pub source: &'a dyn ReadAt,
    /// The source's name for an operator.
    pub place: String,
    /// How many bytes to copy from its start.
    pub length: u64,
    /// Length of the stored file, at least `length`; what lies beyond `length` is a hole.
    pub full_length: u64,
    /// The file ends with this MD5 of all other bytes, which the server has computed: compute that
    /// as well.
    pub md5: Option<Md5Hash>,
    /// Read every byte, as [`Segment::reads_every_byte`](crate::transfer::Segment) says.
    pub reads_every_byte: bool,
    /// What the stored file gets besides its bytes.
    pub attributes: Attributes,
    /// Reads the stored bytes while the file is copied.
    pub follow: Follower<'a>,
}

/// What the storage knows of a file that it has stored. The caller makes a row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Hash of all stored bytes; holes read as zeros.
    pub blake3: Blake3Hash,
    /// MD5 of all but the last 16 bytes, if the [`Ingest`] asked for it.
    pub md5: Option<Md5Hash>,
    /// How many bytes at its beginning an interrupted run had copied. They were not read from the
    /// source.
    pub begun: u64,
    /// When reading the source began; for a resumed file, when it was resumed.
    pub captured: Timestamp,
    /// The state in which [`crate::transfer::Follow::finish`] saw the file. `None` if nobody followed
    /// the copy, or if the store cannot tell.
    pub stamp: Option<Stamp>,
}

/// What a run has proven of a stored file that ends with the server's MD5.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenCopy {
    /// Length in bytes.
    pub size: u64,
    /// Hash of all bytes.
    pub blake3: Blake3Hash,
    /// The last 16 bytes, and the MD5 of all bytes before them.
    pub md5: Md5Hash,
    /// What the records of a chunk told. `None` if nobody has read all of them.
    pub records: Option<ChunkRecords>,
}

/// A file of the source that an interrupted run has begun to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Its path.
    pub path: RelativePath,
    /// The server's MD5 at its end, as the source had it.
    pub md5: Md5Hash,
    /// How many bytes are there.
    pub bytes: u64,
}

/// A file of an interrupted run that became part of this backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// As for a file that was copied. `captured` is when it was resumed.
    pub stored: Stored,
    /// The records, if the proof was kept. `None` if the file was read, and the follower knows
    /// them.
    pub records: Option<ChunkRecords>,
}

/// What a stored file has besides its bytes, as far as the storage can keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// When the node last wrote to the file, as far as that is known when it is read.
    pub modified: Timestamp,
}

impl From<&Row> for Attributes {
    fn from(row: &Row) -> Self {
        Self {
            mode: row.mode,
            modified: row.modified,
        }
    }
}
