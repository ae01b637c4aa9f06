//! Where the backups of one node are kept.
//!
//! [`Location`] is the way in: it opens what the operator named. The [`Repository`] trait says what
//! a caller wants, and not how: it fits plain directories and stores of blobs alike, because
//! nothing in it assumes inodes, renames or cheap appends. Reading needs no session. A run that
//! changes backups takes the place of the only writer, a [`Writer`] (`writer`). `condition`
//! remembers which backups are damaged, and `numbers` which numbers were given.

mod condition;
mod directory;
mod location;
mod lock;
#[cfg(feature = "faults")]
mod memory;
mod numbers;
mod object;
mod unneeded;
mod writer;

pub use condition::{Remembered, is_good, remember, remember_damage, remembered};
pub use directory::DirectoryRepository;
pub use location::{Location, absolute_place};
#[cfg(feature = "faults")]
pub use memory::MemoryRepository;
pub use numbers::{GivenNumbers, given_numbers, keep_given, same_number, same_number_in_words};
pub use object::{Compression, ObjectRepository, Requests};
#[cfg(feature = "faults")]
pub use object::{StoreFault, StoreFaults, StoreRequest};
pub use unneeded::{Prunable, Pruned};
pub use writer::{
    Attributes, Begun, Incoming, Ingest, LookAtReused, ProvenCopy, Removal, Resumed, Stored, Writer,
};

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::error::{Error, Kind, Result};
use crate::format::{Lineage, ReadAt};
use crate::manifest::{FileSet, Head, Label, Manifest, Row};
use crate::run::Run;

/// A place that holds the backups of one node.
pub trait Repository: Send + Sync {
    /// The repository's own id, made when it was created.
    fn id(&self) -> Uuid;

    /// The repository's name for an operator: a path or a URL.
    fn place(&self) -> String;

    /// Every committed backup, oldest first by sequence. A backup with an unreadable manifest is
    /// listed with its error. Only the heads of the manifests are read; [`Self::manifest`] finds
    /// damage behind them.
    fn list(&self) -> Result<Vec<Listed>>;

    /// The manifest of one backup.
    ///
    /// # Errors
    /// `NotFound` if no such backup is listed, `StoredCorrupt` if its manifest is damaged.
    fn manifest(&self, label: &Label) -> Result<Manifest>;

    /// The files of a backup, as they are stored now.
    ///
    /// # Errors
    /// `NotFound` if no such backup is listed.
    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>>;

    /// Opens one stored file for reading. Files that share one stored copy have the same
    /// [`ReadAt::copy_id`].
    ///
    /// # Errors
    /// `StoredCorrupt` if the file is gone, or has another length than its row says.
    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>>;

    /// The files of a backup that are one stored copy with a file before them in the manifest. If
    /// somebody copies such a backup with its links, a server writes to both files at once. A store
    /// whose copies nobody can write to has none.
    fn twins<'a>(&self, manifest: &'a Manifest) -> Result<Vec<&'a Row>> {
        let _ = manifest;
        Ok(Vec::new())
    }

    /// Takes the place of the repository's only writer. Dropping the writer, or the [`Incoming`]
    /// that it became, gives the place back.
    ///
    /// # Errors
    /// `Locked` if another run writes.
    fn writer<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Writer<'a> + 'a>>;

    /// Keeps a backup from being removed until the returned value is dropped. Readers hold the
    /// backup that they read.
    ///
    /// # Errors
    /// `NotFound` if no such backup is listed, or if it is being removed; `StoredCorrupt` if its
    /// manifest cannot be opened.
    fn hold(&self, label: &Label) -> Result<Box<dyn Held>>;

    /// Whether somebody holds a backup now.
    ///
    /// # Errors
    /// As for [`Self::hold`].
    fn is_held(&self, label: &Label) -> Result<bool>;

    /// How many bytes of storage come free with each of these backups if they are removed in this
    /// order. Bytes that backups share come free with the last of them. If the file system shares
    /// blocks between files (reflinks), they count for each file.
    ///
    /// # Errors
    /// `NotFound` if one of them is not listed.
    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>>;

    /// Reads a small value that is kept beside the backups. Its loss harms no backup: the result of
    /// a verification, a copy of a release record, the highest numbers. A key has 1 to 100 ASCII
    /// letters, digits, `-`, `_` and `.`, and does not begin with `.`; `lock` and `readers` are
    /// reserved.
    ///
    /// # Errors
    /// `Failed` if the key breaks these rules; `Denied` if the value is somebody else's. A value that
    /// is damaged counts as lost.
    fn state(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Keeps a value under `key`; `None` removes it. The change is atomic and durable.
    ///
    /// # Errors
    /// As for [`Self::state`].
    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()>;

    /// How many bytes may still be stored; `None` if no limit is known.
    fn free_space(&self) -> Result<Option<u64>>;

    /// What interrupted runs left. Returns `None` while a run writes, because its files are among
    /// them, and for a store that keeps nothing of interrupted runs.
    fn interrupted(&self) -> Result<Option<Interrupted>> {
        Ok(None)
    }

    /// The requests that were sent to the store since it was opened. `None` for a store that is not
    /// reached by requests.
    fn requests(&self) -> Option<Requests> {
        None
    }

    /// What can be deleted of what no backup needs. Returns `None` for a store where nothing can
    /// stay behind when a backup is removed. `grace` is how long an object must have been unneeded.
    ///
    /// # Errors
    /// The error of a backup that cannot be read: nobody knows what it needs.
    fn prunable(&self, grace: Duration) -> Result<Option<Prunable>> {
        let _ = grace;
        Ok(None)
    }

    /// Whether the space of a removed backup comes free only with [`Writer::prune`].
    fn leaves_space_to_prune(&self) -> bool {
        false
    }

    /// Whether the backups are on the disk that holds `path`, and would be lost with it.
    fn shares_device_with(&self, path: &Path) -> Result<bool>;
}

/// A backup that is listed.
#[derive(Debug)]
pub struct Listed {
    /// The backup's name, known even if its manifest is damaged.
    pub label: Label,
    /// The head of its manifest, or why it cannot be read.
    pub head: Result<Head>,
}

/// The epochs of the backups of one list. Backups of one branch have nearly the same ones, and there
/// can be a thousand backups with a hundred thousand epochs each, so they share them in memory.
#[derive(Default)]
struct SharedEpochs(Vec<Lineage>);

impl SharedEpochs {
    /// Takes the heads of a list one after the other, those with most epochs first.
    fn share(&mut self, head: &mut Head) {
        let lineage = &mut head.log.lineage;
        for known in &mut self.0 {
            if known.share_with(lineage) {
                return;
            }
        }
        self.0.push(lineage.clone());
    }
}

/// A backup that somebody reads. Dropping the value lets the backup go.
pub trait Held: Send + Sync {}

/// What interrupted runs left. The next backup resumes what it can prove, and its commit removes
/// the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// Files that belong to no backup.
    pub files: u64,
    /// Bytes of storage that these files take; holes take none.
    pub bytes: u64,
}

/// Whether `key` may name a value ([`Repository::state`]).
fn is_key(key: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=100).contains(&key.len())
        && key.bytes().all(is_allowed)
        && !key.starts_with('.')
        && key != "lock"
        && key != "readers"
}

/// Refuses a key that may name no value.
fn check_key(key: &str) -> Result<()> {
    if is_key(key) {
        return Ok(());
    }
    Err(Error::new(Kind::Failed, "this is not a key of the repository's state").on(key))
}

/// The error for a backup that is not listed.
fn no_such_backup(label: &Label) -> Error {
    Error::new(Kind::NotFound, "there is no such backup")
        .on(label)
        .hint("`kbackup list` shows what there is")
}
