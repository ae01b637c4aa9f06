//! The repository in an object store: Amazon S3 and whatever speaks like it, Azure Blob Storage,
//! Google Cloud Storage, or a directory that is used like one. `docs/object-format.md` describes
//! each object.
//!
//! `location` and `url_options` read what an operator typed. `store` is the only door to the store itself: it reads, creates, replaces, lists and deletes
//! single objects, and counts the requests.
//!
//! A file is cut into cells (`cells`), which `upload` stores and `file` reads; `encoding` and
//! `compression` say in which form, `naming` under which name, `layout` under which key, and
//! `objects` does it. `tree_hash` computes the hash of a file from its cells.
//!
//! A backup is a head (`heads`) that names sections of rows and cells (`sections`, divided by
//! `grouping`), in the form that `sealed` gives them. `listing` reads all heads with few requests,
//! and `stored` the files of one. `incoming` is a backup in the making, `commit` its last step,
//! `journal` what a later run can resume of it. `writer` repairs and removes, `freed` says what
//! that frees, and `pruning` deletes what no head names (`marks`, `sweep`). `lease` and `readers` tell runs of each other (`holder`).

mod cells;
mod commit;
mod compression;
mod description;
mod encoding;
mod file;
mod freed;
mod grouping;
#[cfg(feature = "faults")]
mod harm;
mod heads;
mod holder;
mod incoming;
mod journal;
mod layout;
mod lease;
mod listing;
mod location;
mod marks;
mod naming;
mod objects;
mod pruning;
#[cfg(feature = "faults")]
mod raw_objects;
mod readers;
mod sealed;
mod sections;
mod store;
mod stored;
mod sweep;
mod tree_hash;
mod upload;
mod url_options;
mod writer;

pub use self::compression::Compression;
pub(super) use self::location::ObjectLocation;
pub use self::store::Requests;
#[cfg(feature = "faults")]
pub use self::store::{StoreFault, StoreFaults, StoreRequest};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use self::description::Description;
use self::freed::bytes_freed;
use self::heads::{BackupHead, HeadObject};
use self::incoming::not_as_stored;
use self::journal::Leftovers;
use self::lease::Lease;
use self::listing::FoundHead;
use self::objects::Objects;
use self::pruning::Unneeded;
use self::readers::Reader;
use self::store::{Created, Store, probe};
use self::stored::StoredFiles;
use self::writer::ObjectWriter;
use super::{
    Held, Interrupted, Listed, Prunable, Repository, SharedEpochs, Writer, check_key, condition,
    no_such_backup, numbers,
};
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs;
use crate::manifest::{FileSet, Label, Manifest, Row};
use crate::run::Run;

/// The longest small value that is read.
const MAX_STATE_BYTES: u64 = 16 << 20;

/// A repository in an object store.
pub struct ObjectRepository {
    objects: Arc<Objects>,
    description: Description,
    /// The directory that is used like an object store.
    directory: Option<PathBuf>,
    /// The backups that were listed last, so that not every call lists them again. A head never
    /// changes until its backup is removed.
    known: Mutex<BTreeMap<Label, (u64, Arc<BackupHead>)>>,
}

impl ObjectRepository {
    /// Makes a repository.
    ///
    /// # Errors
    /// `Refused` if there is one already.
    fn create(store: Store, compression: Compression) -> Result<Self> {
        let preconditions = probe(&store)?;
        Self::create_described(store, Description::new(preconditions), compression)
    }

    fn create_described(
        store: Store,
        description: Description,
        compression: Compression,
    ) -> Result<Self> {
        let text = description.to_text()?;
        let created = store.create(layout::DESCRIPTION, text.clone().into())?;
        // An answer may have been lost, so the object can be this call's own.
        if created == Created::Exists
            && store.get(layout::DESCRIPTION, description::MAX_BYTES)? != Some(text)
        {
            return Err(Error::new(Kind::Refused, "there is a repository already")
                .on(store.place())
                .hint("use it as it is, or name another prefix"));
        }
        Ok(Self::with(store, description, compression))
    }

    /// Opens the repository. Returns `None` if there is none.
    ///
    /// # Errors
    /// `Refused` if a newer kbackup made it, `StoredCorrupt` if its description is damaged.
    fn open_if_there(store: Store, compression: Compression) -> Result<Option<Self>> {
        let description = Description::read(&store)?;
        Ok(description.map(|description| Self::with(store, description, compression)))
    }

    fn with(store: Store, description: Description, compression: Compression) -> Self {
        let lengths = (description.cell_bytes, description.row_bytes);
        let naming = description.naming_key.clone();
        Self {
            objects: Arc::new(Objects::new(store, naming, lengths, compression)),
            description,
            directory: None,
            known: Mutex::default(),
        }
    }

    /// Says that the objects are kept in a directory of this machine.
    pub(super) fn kept_in(mut self, directory: Option<&Path>) -> Self {
        self.directory = directory.map(Path::to_owned);
        self
    }

    /// Whether the store makes no object whose name is taken. Otherwise only the lease keeps two
    /// writers apart.
    fn honours_create(&self) -> bool {
        self.description.preconditions.create
    }

    /// Every head, by sequence number. Removed backups are among them.
    fn read_heads(&self) -> Result<Vec<FoundHead>> {
        let heads = listing::read(&self.objects.store)?;

        let mut known = self.known();
        known.clear();
        for head in &heads {
            if let Ok(HeadObject::Backup(backup)) = &head.object {
                let backup = Arc::new(BackupHead::clone(backup));
                known.insert(head.label.clone(), (head.sequence, backup));
            }
        }
        Ok(heads)
    }

    /// A backup and its number.
    ///
    /// # Errors
    /// `NotFound` if no such backup is listed; the error of its head if that cannot be read.
    fn listed(&self, label: &Label) -> Result<(u64, Arc<BackupHead>)> {
        let known = self.known().get(label).cloned();
        if let Some(known) = known {
            return Ok(known);
        }

        for head in self.read_heads()? {
            if head.label != *label {
                continue;
            }
            // A backup that was removed may have been copied here again.
            if let HeadObject::Backup(backup) = head.object? {
                return Ok((head.sequence, Arc::new(*backup)));
            }
        }
        Err(no_such_backup(label))
    }

    /// As [`Self::listed`], and asks the store whether that is still so.
    fn listed_now(&self, label: &Label) -> Result<(u64, Arc<BackupHead>)> {
        let (sequence, _) = self.listed(label)?;
        let key = layout::head(sequence);
        let Some(bytes) = self.objects.store.get(&key, sealed::MAX_STORED_BYTES)? else {
            self.known().remove(label);
            return Err(no_such_backup(label));
        };
        match HeadObject::from_bytes(&bytes).map_err(|error| error.on(label))? {
            HeadObject::Backup(backup) if backup.head.label == *label => {
                Ok((sequence, Arc::new(*backup)))
            }
            _ => {
                self.known().remove(label);
                Err(no_such_backup(label))
            }
        }
    }

    /// The newest backup that can be read and is not known to be damaged, and whether a newer one
    /// is. Then that one's damaged blobs may be this one's, too.
    fn newest_sound(&self) -> Result<Option<(Arc<BackupHead>, bool)>> {
        let mut is_suspect = false;
        for head in self.read_heads()?.into_iter().rev() {
            match head.object {
                Ok(HeadObject::Removed(_)) => {}
                Ok(HeadObject::Backup(backup)) if !self.is_damaged(&backup.head.label)? => {
                    return Ok(Some((Arc::new(*backup), is_suspect)));
                }
                _ => is_suspect = true,
            }
        }
        Ok(None)
    }

    /// Whether a verification found damage in a backup.
    fn is_damaged(&self, label: &Label) -> Result<bool> {
        let known = condition::remembered(self, label)?;
        Ok(known.is_some_and(|known| known.is_damaged()))
    }

    /// Checks that no backup ever had this number or a higher one.
    fn check_not_given(&self, sequence: u64) -> Result<()> {
        let heads = self.read_heads()?;
        self.check_number(&heads, sequence)
    }

    fn check_number(&self, heads: &[FoundHead], sequence: u64) -> Result<()> {
        let is_taken = heads
            .last()
            .is_some_and(|newest| newest.sequence >= sequence);
        if is_taken || numbers::is_given(self, sequence)? {
            return Err(listing::committed_meanwhile(self.place()));
        }
        Ok(())
    }

    /// Notes a head that was just written, in memory and in the catalog. `heads` are those that were
    /// there before.
    fn note_written(
        &self,
        mut heads: Vec<FoundHead>,
        sequence: u64,
        bytes: &[u8],
        object: HeadObject,
        run: &Run,
    ) {
        self.known().clear();
        let store = &self.objects.store;
        let version = match store.head(&layout::head(sequence)) {
            Ok(Some(info)) => info.version.to_text(),
            Ok(None) => return,
            Err(error) => return run.note(format!("the catalog is not written: {error}")),
        };

        heads.retain(|head| head.sequence != sequence);
        heads.push(listing::written(sequence, version, bytes, object));
        heads.sort_by_key(|head| head.sequence);
        if let Err(error) = listing::write(store, &heads) {
            run.note(format!("the catalog is not written: {error}"));
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Label, (u64, Arc<BackupHead>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository for ObjectRepository {
    fn id(&self) -> Uuid {
        self.description.id
    }

    fn place(&self) -> String {
        self.objects.store.place()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut epochs = SharedEpochs::default();
        for found in self.read_heads()?.into_iter().rev() {
            let head = match found.object {
                Ok(HeadObject::Removed(_)) => continue,
                Ok(HeadObject::Backup(backup)) => {
                    let mut head = backup.head;
                    epochs.share(&mut head);
                    Ok(head)
                }
                Err(error) => Err(error),
            };
            let label = found.label;
            listed.push(Listed { label, head });
        }
        listed.reverse();
        Ok(listed)
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        let (_, backup) = self.listed(label)?;
        StoredFiles::new(&self.objects, backup).manifest()
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        let (_, backup) = self.listed(label)?;
        Ok(Box::new(StoredFiles::new(&self.objects, backup)))
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        let (_, backup) = self.listed(label)?;
        let files = StoredFiles::new(&self.objects, backup);
        let Some(found) = files.row(&row.path)? else {
            let place = files.place_of(&row.path);
            return Err(not_as_stored(place, "its backup does not name it"));
        };
        if found.stored.row.size != row.size {
            let why = format!("it has {} bytes, not {}", found.stored.row.size, row.size);
            return Err(not_as_stored(files.place_of(&row.path), why));
        }
        Ok(Box::new(found.open(&self.objects)))
    }

    fn writer<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Writer<'a> + 'a>> {
        Ok(Box::new(ObjectWriter::take(self, run)?))
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        let (sequence, _) = self.listed(label)?;
        let reader = Reader::begin(&self.objects.store, sequence)?;
        // A removal that began before this reader was seen has removed the head by now.
        self.listed_now(label)?;
        Ok(Box::new(reader))
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        let (sequence, _) = self.listed_now(label)?;
        readers::is_read(&self.objects.store, sequence)
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        let mut backups = BTreeMap::new();
        for head in self.read_heads()? {
            if let Ok(HeadObject::Backup(backup)) = head.object {
                backups.insert(head.label, backup);
            }
        }

        let mut removed = Vec::with_capacity(labels.len());
        for label in labels {
            removed.push(backups.remove(label).ok_or_else(|| no_such_backup(label))?);
        }
        let removed: Vec<&BackupHead> = removed.iter().map(|backup| &**backup).collect();
        let kept: Vec<&BackupHead> = backups.values().map(|backup| &**backup).collect();
        bytes_freed(&self.objects, &removed, &kept)
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        check_key(key)?;
        self.objects.store.get(&layout::state(key), MAX_STATE_BYTES)
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        check_key(key)?;
        let key = layout::state(key);
        match value {
            Some(value) => self.objects.store.put(&key, value.to_vec().into()),
            None => self.objects.store.delete(&key),
        }
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn interrupted(&self) -> Result<Option<Interrupted>> {
        let store = &self.objects.store;
        if Lease::is_taken(store)? {
            return Ok(None);
        }
        let mut left = Interrupted::default();
        for entry in Leftovers::read(store)?.entries() {
            left.files += 1;
            left.bytes = left.bytes.saturating_add(entry.stored_bytes());
        }
        Ok((left.files > 0).then_some(left))
    }

    fn requests(&self) -> Option<Requests> {
        Some(self.objects.store.requests())
    }

    fn prunable(&self, grace: Duration) -> Result<Option<Prunable>> {
        Ok(Some(Unneeded::find(self)?.plan(grace)))
    }

    fn leaves_space_to_prune(&self) -> bool {
        true
    }

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        match &self.directory {
            Some(directory) => Ok(fs::on_same_disk(directory, path)?),
            None => Ok(false),
        }
    }
}
