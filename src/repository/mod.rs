//! Where backups are kept. The trait speaks of intent, so that plain directories and object stores
//! can both fit it.

mod condition;
mod directory;
mod location;
mod lock;

pub use condition::{Remembered, is_good, remember, remember_damage, remembered};
pub use directory::DirectoryRepository;
pub use location::Location;

use serde::Serialize;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::format::{Md5Hash, ReadAt};
use crate::fs;
use crate::manifest::{Blake3Hash, FileSet, Head, Label, Manifest, RelativePath, Row};
use crate::run::Run;
use crate::transfer::Follower;

/// A place that holds backups of one node.
pub trait Repository: Send + Sync {
    /// The repository's own id, made when it was created.
    fn id(&self) -> Uuid;

    /// How to name it to an operator.
    fn place(&self) -> String;

    /// Every committed backup, oldest first by sequence. One whose manifest cannot be read is
    /// listed with its error. Only the heads of the manifests are read: damage behind them is found
    /// by [`Self::manifest`].
    ///
    /// # Errors
    /// What the storage reports for the repository as a whole.
    fn list(&self) -> Result<Vec<Listed>>;

    /// One manifest.
    ///
    /// # Errors
    /// `NotFound` where no such backup is listed, `StoredCorrupt` where its manifest is damaged.
    fn manifest(&self, label: &Label) -> Result<Manifest>;

    /// The files of a backup, as they are stored now.
    ///
    /// # Errors
    /// What the storage reports.
    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>>;

    /// Opens one stored file for reading.
    ///
    /// # Errors
    /// `StoredCorrupt` where the file is gone, or has another length than its row says.
    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>>;

    /// Takes the repository's only writer's place and begins a backup, which may take over files of
    /// `parent`. What an interrupted run left is kept for [`Incoming::take_up`] until a backup is
    /// committed.
    ///
    /// # Errors
    /// `Locked` where another run writes.
    fn begin<'a>(
        &'a self,
        parent: Option<&'a Manifest>,
        run: &'a Run,
    ) -> Result<Box<dyn Incoming + 'a>>;

    /// Takes the repository's only writer's place to mend stored backups. What an interrupted
    /// backup left stays for the next one.
    ///
    /// # Errors
    /// `Locked` where another run writes.
    fn mend<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Mending + 'a>>;

    /// Keeps a backup from being removed while it is read: until what is returned is dropped.
    ///
    /// # Errors
    /// `NotFound` where no such backup is listed, also where it is just being removed;
    /// `StoredCorrupt` where its manifest cannot be opened.
    fn hold(&self, label: &Label) -> Result<Box<dyn Held>>;

    /// Whether somebody holds a backup now.
    ///
    /// # Errors
    /// As for [`Self::hold`].
    fn is_held(&self, label: &Label) -> Result<bool>;

    /// Bytes of disk space that come free with each of these backups when they are removed in this
    /// order. What others share comes free with the last of them. Blocks that the file system
    /// shares below its files count as if they were each file's own.
    ///
    /// # Errors
    /// `NotFound` where one is not listed; what the storage reports.
    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>>;

    /// Takes the repository's only writer's place to remove backups. What an interrupted backup
    /// left stays for the next one.
    ///
    /// # Errors
    /// `Locked` where another run writes.
    fn expire<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Expiring + 'a>>;

    /// A small value that is kept beside the backups and may be lost with no harm to them: the
    /// result of a verification, a copy of a debt. Keys are 1 to 100 ASCII letters, digits, `-`,
    /// `_` and `.`, and do not begin with `.`; `lock` and `readers` are taken.
    ///
    /// # Errors
    /// What the storage reports; also where the key is none.
    fn state(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Keeps a value under `key`, or drops it. The change is atomic and durable.
    ///
    /// # Errors
    /// As for [`Self::state`].
    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()>;

    /// Bytes that may still be stored; none where there is no known limit.
    ///
    /// # Errors
    /// What the storage reports.
    fn free_space(&self) -> Result<Option<u64>>;

    /// What interrupted runs left; none while a run is at work, as what lies there is then its own,
    /// and where a store keeps nothing of them.
    ///
    /// # Errors
    /// What the storage reports.
    fn interrupted(&self) -> Result<Option<Interrupted>> {
        Ok(None)
    }

    /// The device of this machine that holds the backups, to compare with [`fs::FileStatus::device`];
    /// none where they are kept elsewhere.
    ///
    /// # Errors
    /// What the storage reports.
    fn device(&self) -> Result<Option<u64>>;
}

/// A backup that is listed.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub label: Label,
    /// The head of its manifest, or why it cannot be read.
    pub head: Result<Head>,
}

/// Which copy of its bytes a name of the repository leads to: names of several backups may share
/// one, and equal bytes may be stored in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Copy {
    device: u64,
    inode: u64,
}

impl Copy {
    /// The copy behind an open stored file; none where the storage does not tell.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn of(stored: &dyn ReadAt) -> Result<Option<Self>> {
        let Some(file) = stored.file() else {
            return Ok(None);
        };
        let status = file.status()?;
        Ok(Some(Self {
            device: status.device,
            inode: status.inode,
        }))
    }
}

/// The only writer's place, taken to mend stored backups. Dropping it gives the place back.
pub trait Mending {
    /// Puts the bytes of `good`, a file of a listed backup, in the place of a file of another one
    /// that should have the same bytes, whatever stands there. One step: the name leads to what it
    /// led to before, or to the good bytes. The copy that it led to is never written to, as other
    /// names may lead there.
    ///
    /// # Errors
    /// `StoredCorrupt` where the good file is gone, or turns out not to hold the row's bytes while
    /// they are copied; else the storage's.
    fn replace(&self, label: &Label, row: &Row, good: (&Label, &Row)) -> Result<()>;
}

/// A backup that somebody reads. Dropping it lets the backup go.
pub trait Held: Send + Sync {}

/// The only writer's place, taken to remove backups. Dropping it gives it back.
pub trait Expiring {
    /// Removes a backup, and what is remembered of it. In one durable step it is listed no more;
    /// then its space is given back. Whoever dies in between leaves nothing that is listed, and the
    /// next run of a writer removes the rest.
    ///
    /// # Errors
    /// `NotFound` where it is not listed; what the storage reports while it still is. What fails
    /// after that is a note of the run.
    fn remove(&self, label: &Label) -> Result<Removal>;
}

/// What became of a backup that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It has gone, and so many bytes of disk space came free.
    Freed(u64),
    /// Somebody holds it, and it stays.
    InUse,
}

/// What interrupted runs left. The next run takes up what of it proves right, and its commit
/// removes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// Files, without those that belong to a backup as well.
    pub files: u64,
    /// Bytes that they take of the storage; holes take none.
    pub bytes: u64,
}

/// A stored file, as far as storing it tells: the caller makes a row of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Length in bytes, holes included.
    pub size: u64,
    /// Hash of all bytes that are stored, holes read as zeros.
    pub blake3: Blake3Hash,
    /// MD5 of all but the last 16 bytes, where the [`Ingest`] asked for it.
    pub md5: Option<Md5Hash>,
    /// When the reading began; for a file that was taken up, the reading that proved it.
    pub captured: Timestamp,
}

/// What a stored file has besides its bytes, where the storage can keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// When the node wrote to it last, as far as is known when it is read.
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

/// What to take from an open file of the source.
pub struct Ingest<'a> {
    /// The file.
    pub source: &'a fs::File,
    /// How many bytes from its start to take.
    pub length: u64,
    /// Length of the stored file; beyond `length` it is a hole. Never smaller than `length`.
    pub full_length: u64,
    /// The server has an MD5 over all but the last 16 bytes: compute it too.
    pub md5: bool,
    /// The file still grows: never share its blocks, not even where the kernel could.
    pub live: bool,
    /// What to give it besides its bytes.
    pub attributes: Attributes,
    /// Looks at what is stored while the file is copied.
    pub follow: Follower<'a>,
}

/// A backup in the making: a set of files that nobody lists.
///
/// Dropping it keeps what a later run can take up, unless the storage itself has failed: then
/// nothing that was written is trusted, and all of it goes.
///
/// Several threads may put files in at once, each under a path of its own: a chunk is the unit of
/// parallel work.
pub trait Incoming: FileSet + Sync {
    /// Whether `sequence` is still the next one: another run may have committed since it was
    /// chosen, and before this one had the writer's place. A commit finds that out, too, but only
    /// after everything was copied.
    ///
    /// # Errors
    /// `Locked` where it is not; what the storage reports.
    fn check_next(&self, sequence: u64) -> Result<()>;

    /// Takes a file of the parent as it is, and returns it, open, as it now stands in this set.
    ///
    /// # Errors
    /// `StoredCorrupt` where the parent's file is gone or has another length.
    fn adopt(&self, row: &Row) -> Result<Box<dyn ReadAt>>;

    /// Takes a file that an interrupted run has stored under this path, if its last 16 bytes are
    /// `md5` and this is the MD5 of all bytes before them: nothing but the server's own checksum,
    /// read from the source by the caller, proves it. None where there is no such file; one that
    /// turned out wrong is gone. A file that belongs to a backup as well is never taken, so that a
    /// full shares nothing.
    ///
    /// # Errors
    /// The storage's, and an interruption.
    fn take_up(&self, path: &RelativePath, size: u64, md5: Md5Hash) -> Result<Option<Stored>>;

    /// Copies a file of the source in. Replaces an earlier file of this path.
    ///
    /// # Errors
    /// `Unstable` where the source ends before `length` or vanished: the procedure goes back and
    /// tries again. Else what the source and the storage report.
    fn ingest(&self, path: &RelativePath, ingest: Ingest<'_>) -> Result<Stored>;

    /// Copies a file in whose first `prefix` bytes the parent holds already (as `held`): those come
    /// from there, and only the rest is read from the source.
    ///
    /// # Errors
    /// As for [`Incoming::ingest`] and [`Incoming::adopt`].
    fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        ingest: Ingest<'_>,
    ) -> Result<Stored>;

    /// Stores bytes at hand.
    ///
    /// # Errors
    /// The storage's.
    fn write(&self, path: &RelativePath, bytes: &[u8], attributes: Attributes) -> Result<Stored>;

    /// Cuts a file of this set after `length` bytes and makes the rest, up to `full_length`, a
    /// hole. The file it was adopted from stays whole.
    ///
    /// # Errors
    /// The storage's.
    fn cut(
        &self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
        attributes: Attributes,
    ) -> Result<Stored>;

    /// Drops a file again; that there is none is no error.
    ///
    /// # Errors
    /// The storage's.
    fn remove(&self, path: &RelativePath) -> Result<()>;

    /// Makes everything durable, then visible under the manifest's label, in one step. After an
    /// error nothing is listed.
    ///
    /// # Errors
    /// The storage's; also where the files are not those of the manifest's rows, and where another
    /// run committed since the manifest's sequence number was chosen.
    fn commit(self: Box<Self>, manifest: &crate::proof::Proven<Manifest>) -> Result<()>;

    /// Bytes written so far.
    fn bytes_stored(&self) -> u64;
}
