//! The kinds of repository that a suite runs over. What a test says of backups must hold wherever
//! they are kept.
//!
//! A test that says nothing of files and directories is named in [`in_every_store`] and becomes one
//! test for each kind. [`TestRepository::create`] makes the kind that the test runs over.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kbackup::error::Result;
use kbackup::format::ReadAt;
use kbackup::fs::CopyId;
use kbackup::manifest::{FileSet, Label, Manifest, RelativePath, Row};
use kbackup::repository::{
    DirectoryRepository, Held, Interrupted, Listed, MemoryRepository, ObjectRepository, Prunable,
    Repository, Writer,
};
use kbackup::run::Run;
use uuid::Uuid;

use crate::backup::bench::flip;
use crate::object_servers::{self, ObjectServer};

/// A kind of repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Directory,
    Memory,
    Objects,
    /// Objects on the S3 server that `scripts/object-servers` starts.
    S3,
}

thread_local! {
    /// The kind that the test of this thread runs over.
    static STORE: Cell<Store> = const { Cell::new(Store::Directory) };
}

/// Runs a test over one kind of repository.
pub(crate) fn with(store: Store, test: fn()) {
    if store == Store::S3 && object_servers::s3().is_none() {
        return;
    }
    STORE.set(store);
    test();
}

/// The kind of repository that this test runs over.
pub(crate) fn current() -> Store {
    STORE.get()
}

/// Makes one test of a function that takes nothing for each of these kinds of repository.
macro_rules! in_stores {
    ($test:ident: $($name:ident = $store:ident),*) => {
        mod $test {
            $(
                #[test]
                fn $name() {
                    crate::stores::with(crate::stores::Store::$store, super::$test);
                }
            )*
        }
    };
}
pub(crate) use in_stores;

/// Makes one test for each kind of repository of functions that take nothing.
macro_rules! in_every_store {
    ($($test:ident,)*) => {$(
        crate::stores::in_stores! {
            $test: in_a_directory = Directory, in_memory = Memory, in_objects = Objects, on_s3 = S3
        }
    )*};
}
pub(crate) use in_every_store;

/// As [`in_every_store`], for tests of so many bytes that a server with short cells takes minutes.
macro_rules! in_stores_of_this_process {
    ($($test:ident,)*) => {$(
        crate::stores::in_stores! {
            $test: in_a_directory = Directory, in_memory = Memory, in_objects = Objects
        }
    )*};
}
pub(crate) use in_stores_of_this_process;

/// As [`in_every_store`], for tests of damage to one of several copies of the same bytes. Objects
/// have one copy (`tests/torture/objects/damage.rs`).
macro_rules! in_stores_with_copies {
    ($($test:ident,)*) => {$(
        crate::stores::in_stores! {
            $test: in_a_directory = Directory, in_memory = Memory
        }
    )*};
}
pub(crate) use in_stores_with_copies;

/// The repository in a directory, and a new one if there is none.
pub(crate) fn opened_or_made(path: &Path) -> Result<DirectoryRepository> {
    match DirectoryRepository::open_if_there(path)? {
        Some(repository) => Ok(repository),
        None => DirectoryRepository::create(path),
    }
}

/// A new repository on a real object store.
pub(crate) fn on_server(server: &ObjectServer) -> ObjectRepository {
    let url = format!("{}?endpoint={}&allow-http", server.url, server.endpoint);
    ObjectRepository::create_on_server(&url, server.environment.clone()).unwrap()
}

/// A repository of the kind that the test runs over.
pub(crate) enum TestRepository {
    Directory(DirectoryRepository),
    Memory(MemoryRepository),
    Objects(Box<ObjectRepository>),
}

impl TestRepository {
    /// Makes a repository, at `path` if it is a directory.
    pub(crate) fn create(path: &Path) -> Self {
        match current() {
            Store::Directory => Self::Directory(opened_or_made(path).unwrap()),
            Store::Memory => Self::Memory(MemoryRepository::create()),
            Store::Objects => {
                Self::Objects(Box::new(ObjectRepository::create_in_memory().unwrap()))
            }
            Store::S3 => Self::Objects(Box::new(on_server(&object_servers::s3().unwrap()))),
        }
    }

    /// The same repository, as another process would open it.
    pub(crate) fn reopen(&self) -> Self {
        match self {
            Self::Directory(repository) => {
                let place = repository.place();
                Self::Directory(DirectoryRepository::open(Path::new(&place)).unwrap())
            }
            Self::Memory(repository) => Self::Memory(repository.clone()),
            Self::Objects(repository) => Self::Objects(Box::new(repository.reopen().unwrap())),
        }
    }

    /// Flips a bit in the middle of a stored file, in every backup that shares it.
    pub(crate) fn damage(&self, label: &Label, path: &RelativePath) {
        self.change(label, path, |mut bytes| {
            let middle = bytes.len() / 2;
            *bytes.get_mut(middle).unwrap() ^= 1;
            Some(bytes)
        });
    }

    /// Makes a stored file vanish.
    pub(crate) fn lose(&self, label: &Label, path: &RelativePath) {
        self.change(label, path, |_| None);
    }

    /// Turns one byte of a stored file over, in every backup that shares it.
    pub(crate) fn flip(&self, label: &Label, path: &str, offset: u64) {
        let path: RelativePath = path.parse().unwrap();
        let flipped = |mut bytes: Vec<u8>| {
            let byte = bytes.get_mut(usize::try_from(offset).unwrap()).unwrap();
            *byte = !*byte;
            Some(bytes)
        };
        match self {
            Self::Directory(repository) => flip(&stored(repository, label, &path), offset),
            Self::Memory(repository) => repository.damage(label, &path, flipped).unwrap(),
            Self::Objects(repository) => repository.damage(label, &path, flipped).unwrap(),
        }
    }

    /// Cuts a stored manifest short.
    pub(crate) fn damage_manifest(&self, label: &Label) {
        match self {
            Self::Directory(repository) => {
                let backup = Path::new(&repository.place()).join("backups");
                let manifest = backup.join(label.as_str()).join("manifest.json");
                std::fs::write(manifest, "{").unwrap();
            }
            Self::Memory(repository) => repository.damage_manifest(label, |_| b"{".to_vec()),
            Self::Objects(repository) => {
                repository
                    .damage_manifest(label, |_| b"{".to_vec())
                    .unwrap();
            }
        }
    }

    /// All bytes of a stored file.
    pub(crate) fn read(&self, label: &Label, path: &str) -> Vec<u8> {
        let stored = self.open_file(label, path);
        let mut bytes = vec![0; usize::try_from(stored.size()).unwrap()];
        stored.read_exact_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Which stored copy a file of a backup has.
    pub(crate) fn copy_id(&self, label: &Label, path: &str) -> CopyId {
        self.open_file(label, path).copy_id().unwrap()
    }

    fn open_file(&self, label: &Label, path: &str) -> Box<dyn ReadAt> {
        let manifest = self.manifest(label).unwrap();
        let mut rows = manifest.files.iter();
        let row = rows.find(|row| row.path.to_string() == path).unwrap();
        self.open(label, row).unwrap()
    }

    fn change(
        &self,
        label: &Label,
        path: &RelativePath,
        change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
    ) {
        let repository = match self {
            Self::Memory(repository) => return repository.damage(label, path, change).unwrap(),
            Self::Objects(repository) => return repository.damage(label, path, change).unwrap(),
            Self::Directory(repository) => repository,
        };
        let place = stored(repository, label, path);
        match change(std::fs::read(&place).unwrap()) {
            Some(bytes) => {
                drop(crate::conformance::writable(&place));
                std::fs::write(&place, bytes).unwrap();
            }
            None => std::fs::remove_file(&place).unwrap(),
        }
    }

    fn inner(&self) -> &dyn Repository {
        match self {
            Self::Directory(repository) => repository,
            Self::Memory(repository) => repository,
            Self::Objects(repository) => &**repository,
        }
    }
}

fn stored(repository: &DirectoryRepository, label: &Label, path: &RelativePath) -> PathBuf {
    let backups = Path::new(&repository.place()).join("backups");
    path.under(&backups.join(label.as_str()))
}

impl Repository for TestRepository {
    fn id(&self) -> Uuid {
        self.inner().id()
    }

    fn place(&self) -> String {
        self.inner().place()
    }

    fn list(&self) -> Result<Vec<Listed>> {
        self.inner().list()
    }

    fn manifest(&self, label: &Label) -> Result<Manifest> {
        self.inner().manifest(label)
    }

    fn files(&self, label: &Label) -> Result<Box<dyn FileSet + '_>> {
        self.inner().files(label)
    }

    fn open(&self, label: &Label, row: &Row) -> Result<Box<dyn ReadAt>> {
        self.inner().open(label, row)
    }

    fn twins<'a>(&self, manifest: &'a Manifest) -> Result<Vec<&'a Row>> {
        self.inner().twins(manifest)
    }

    fn writer<'a>(&'a self, run: &'a Run) -> Result<Box<dyn Writer<'a> + 'a>> {
        self.inner().writer(run)
    }

    fn hold(&self, label: &Label) -> Result<Box<dyn Held>> {
        self.inner().hold(label)
    }

    fn is_held(&self, label: &Label) -> Result<bool> {
        self.inner().is_held(label)
    }

    fn would_free(&self, labels: &[&Label]) -> Result<Vec<u64>> {
        self.inner().would_free(labels)
    }

    fn state(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.inner().state(key)
    }

    fn set_state(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        self.inner().set_state(key, value)
    }

    fn free_space(&self) -> Result<Option<u64>> {
        self.inner().free_space()
    }

    fn interrupted(&self) -> Result<Option<Interrupted>> {
        self.inner().interrupted()
    }

    fn prunable(&self, grace: Duration) -> Result<Option<Prunable>> {
        self.inner().prunable(grace)
    }

    fn leaves_space_to_prune(&self) -> bool {
        self.inner().leaves_space_to_prune()
    }

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        self.inner().shares_device_with(path)
    }
}
