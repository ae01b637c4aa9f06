//! A repository in memory, for tests: it proves that the [`Repository`] trait does not lean on
//! files.
//!
//! It is a store of blobs, as an object store is. A blob is named by its content and written once.
//! A head is created under its sequence number, and makes a backup visible. There are no files, no
//! inodes, no renames and no links: reusing a file means to name its blob once more, and extending
//! a file means to read its blob and to write a new one. Equal bytes are stored once, so that two
//! fulls share what did not change.
//!
//! Tests can damage what is stored, let the store fail for a while, and retain a backup.

mod blobs;
mod incoming;
mod writer;
mod writer_place;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use self::blobs::{Blob, BlobId, Blobs};
use self::writer::MemoryWriter;
use super::{
    Held, Interrupted, Listed, ProvenCopy, Repository, SharedEpochs, Writer, check_key,
    no_such_backup,
};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::format::ReadAt;
use crate::fs::Stamp;
use crate::manifest::{FileEntry, FileSet, Head, Label, Manifest, RelativePath, Row};
use crate::run::Run;

/// A repository in the memory of this process. Its clones are the same repository, as another
/// process would open it.
#[derive(Debug, Clone)]
pub struct MemoryRepository {
    id: Uuid,
    store: Arc<Mutex<Store>>,
}

/// Everything that is stored.
#[derive(Debug, Default)]
struct Store {
    blobs: Blobs,
    /// The committed backups by sequence number.
    heads: BTreeMap<u64, Committed>,
    values: BTreeMap<String, Vec<u8>>,
    /// What interrupted runs left, the oldest first.
    leftovers: Vec<MemoryFiles>,
    /// What runs have proven of the blobs that a later run can resume.
    proofs: HashMap<BlobId, ProvenCopy>,
    /// The beginnings of files whose copies were interrupted, by path and the MD5 at their end.
    begun: BTreeMap<(RelativePath, [u8; 16]), Vec<u8>>,
    has_writer: bool,
    readers: HashMap<Label, usize>,
    /// Backups that the store does not let go yet.
    retained: HashSet<Label>,
    /// How many calls still fail because the store is out of reach.
    failures: u32,
}

/// A backup that was committed.
#[derive(Debug, Clone)]
struct Committed {
    label: Label,
    manifest: Vec<u8>,
    files: MemoryFiles,
}

/// The files of a backup, or of one in the making.
type MemoryFiles = BTreeMap<RelativePath, MemoryFile>;

/// A file: the blob that has its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemoryFile {
    blob: BlobId,
    size: u64,
    mode: u32,
}

impl MemoryRepository {
    /// Makes an empty repository.
    #[must_use]
    pub fn create() -> Self {
        Self {
            id: clock::identifier(),
            store: Arc::default(),
        }
    }

    /// Changes the stored bytes of a file, as a failing disk does. Every backup that shares them
    /// has the damage. `None` makes them vanish.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn damage(
        &self,
        label: &Label,
        path: &RelativePath,
        change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
    ) -> Result<()> {
        let mut store = self.locked();
        let file = store.committed(label)?.files.get(path).copied();
        let Some(file) = file else {
            return Err(Error::new(Kind::NotFound, "no such file").on(path));
        };
        store.blobs.damage(file.blob, change);
        Ok(())
    }

    /// Changes the bytes of a stored manifest.
    pub fn damage_manifest(&self, label: &Label, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
        let mut store = self.locked();
        for committed in store.heads.values_mut() {
            if committed.label == *label {
                committed.manifest = change(std::mem::take(&mut committed.manifest));
                return;
            }
        }
    }

    /// Removes a backup as somebody would who knows nothing of kbackup.
    pub fn delete(&self, label: &Label) {
        let mut store = self.locked();
        store.heads.retain(|_, committed| committed.label != *label);
        store.collect_garbage();
    }

    /// The files that interrupted runs left, and their lengths.
    #[must_use]
    pub fn leftovers(&self) -> Vec<(RelativePath, u64)> {
        let mut files = Vec::new();
        for left in &self.locked().leftovers {
            files.extend(left.iter().map(|(path, file)| (path.clone(), file.size)));
        }
        files
    }

    /// Lets the next calls fail as if the store were out of reach for a moment.
    pub fn fail(&self, calls: u32) {
        self.locked().failures = calls;
    }

    /// Keeps a backup from being removed now, as a retention lock of an object store does.
    pub fn retain(&self, label: &Label) {
        self.locked().retained.insert(label.clone());
    }

    fn locked(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store, if it can be reached.
    fn reach(&self) -> Result<MutexGuard<'_, Store>> {
        let mut store = self.locked();
        if store.failures == 0 {
            return Ok(store);
        }
        store.failures -= 1;
        drop(store);
        Err(Error::new(Kind::Transient, "the store is out of reach for a moment").on(self.place()))
    }

    fn place_of(&self, label: &Label, path: &RelativePath) -> String {
        format!("{}/{label}/{path}", self.place())
    }
}

impl Store {
    fn committed(&self, label: &Label) -> Result<&Committed> {
        for committed in self.heads.values() {
            if committed.label == *label {
                return Ok(committed);
            }
        }
        Err(no_such_backup(label))
    }

    fn blob(&self, file: &MemoryFile) -> Option<Blob> {
        self.blobs.get(file.blob)
    }

    /// Removes the blobs that nothing names any more. Returns how many bytes came free.
    fn collect_garbage(&mut self) -> u64 {
        let mut named: HashSet<BlobId> = HashSet::new();
        for committed in self.heads.values() {
            named.extend(committed.files.values().map(|file| file.blob));
        }
        for files in &self.leftovers {
            named.extend(files.values().map(|file| file.blob));
        }
        self.proofs.retain(|blob, _| named.contains(blob));
        self.blobs.keep_only(&named)
    }
}

/// The error for a stored file that is damaged.
fn not_as_stored(place: String, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
        .on(place)
        .because(why.into())
}

fn damaged_manifest(label: &Label, head: &Head) -> Error {
    Error::new(Kind::StoredCorrupt, "the manifest is damaged")
        .on(label)
        .because(format!("it is the manifest of {}", head.label))
}

impl Repository for MemoryRepository {
    fn id(&self) -> Uuid {
        self.id
    }

    fn place(&self) -> String {
        format!("memory:{}", self.id)
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let mut epochs = SharedEpochs::default();
        for committed in self.reach()?.heads.values().rev() {
            let label = committed.label.clone();
            let mut head = Head::read(&committed.manifest).map_err(|error| error.on(&label));
            if let Ok(head) = &mut head {
                epochs.share(head);
            }
            listed.push(Listed { label, head });
        }
        listed.reverse();
        Ok(listed)
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        let bytes = self.reach()?.committed(label)?.manifest.clone();
        let manifest = Manifest::read(&bytes).map_err(|error| error.on(label))?;
        if manifest.label != *label {
            return Err(damaged_manifest(label, &manifest));
        }
        Ok(manifest)
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        let files = self.reach()?.committed(label)?.files.clone();
        Ok(Box::new(StoredSet {
            repository: self.clone(),
            name: label.to_string(),
            files,
        }))
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        let place = self.place_of(label, &row.path);
        let store = self.reach()?;
        let file = store.committed(label)?.files.get(&row.path);
        let Some(blob) = file.and_then(|file| store.blob(file)) else {
            return Err(not_as_stored(place, "it is gone"));
        };
        if blob.size() != row.size {
            let why = format!("it has {} bytes, not {}", blob.size(), row.size);
            return Err(not_as_stored(place, why));
        }
        Ok(Box::new(blob))
    }

    fn writer<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Writer<'a> + 'a>> {
        Ok(Box::new(MemoryWriter::take(self, run)?))
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        let mut store = self.reach()?;
        store.committed(label)?;
        *store.readers.entry(label.clone()).or_default() += 1;
        Ok(Box::new(Reader {
            repository: self.clone(),
            label: label.clone(),
        }))
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        let store = self.reach()?;
        store.committed(label)?;
        Ok(store.readers.contains_key(label))
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        let mut names: HashMap<BlobId, usize> = HashMap::new();
        let store = self.reach()?;
        for committed in store.heads.values() {
            for file in committed.files.values() {
                *names.entry(file.blob).or_default() += 1;
            }
        }

        let mut freed = Vec::with_capacity(labels.len());
        for label in labels {
            let mut bytes = 0;
            for file in store.committed(label)?.files.values() {
                let left = names.entry(file.blob).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    bytes += store.blobs.length(file.blob);
                }
            }
            freed.push(bytes);
        }
        Ok(freed)
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        check_key(key)?;
        Ok(self.reach()?.values.get(key).cloned())
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        check_key(key)?;
        let mut store = self.reach()?;
        match value {
            Some(value) => store.values.insert(key.to_owned(), value.to_owned()),
            None => store.values.remove(key),
        };
        Ok(())
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn interrupted(&self) -> Result<Option<Interrupted>> {
        let store = self.reach()?;
        if store.has_writer {
            return Ok(None);
        }
        let mut left = Interrupted::default();
        for file in store.leftovers.iter().flat_map(MemoryFiles::values) {
            left.files += 1;
            left.bytes += store.blobs.length(file.blob);
        }
        for bytes in store.begun.values() {
            left.files += 1;
            left.bytes += bytes.len() as u64;
        }
        Ok((left.files > 0).then_some(left))
    }

    fn shares_device_with(&self, _: &Path) -> Result<bool> {
        Ok(false)
    }
}

/// Somebody reads a backup.
struct Reader {
    repository: MemoryRepository,
    label: Label,
}

impl Held for Reader {}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut store = self.repository.locked();
        let Some(readers) = store.readers.get_mut(&self.label) else {
            return;
        };
        *readers -= 1;
        if *readers == 0 {
            store.readers.remove(&self.label);
        }
    }
}

/// The files of a backup.
struct StoredSet {
    repository: MemoryRepository,
    name: String,
    files: MemoryFiles,
}

impl FileSet for StoredSet {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let store = self.repository.reach()?;
        Ok(entries_of(&self.files, &store))
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        let store = self.repository.reach()?;
        let blob = self.files.get(path).and_then(|file| store.blob(file));
        Ok(blob.map(|blob| Box::new(blob) as Box<dyn ReadAt>))
    }

    fn place_of(&self, path: &RelativePath) -> String {
        format!("{}/{}/{path}", self.repository.place(), self.name)
    }
}

/// The files whose blobs are there, in the order of their paths.
fn entries_of(files: &MemoryFiles, store: &Store) -> Vec<FileEntry> {
    let mut entries = Vec::with_capacity(files.len());
    for (path, file) in files {
        let Some(blob) = store.blob(file) else {
            continue;
        };
        entries.push(FileEntry {
            path: path.clone(),
            size: blob.size(),
            mode: file.mode,
            stamp: Some(Stamp::of_content(file.blob.hash())),
        });
    }
    entries
}
