//! The kinds of repository that a suite runs over. What a test says of backups must hold wherever
//! they are kept.
//!
//! A test that says nothing of files and directories is named in [`in_every_store`] and becomes one
//! test for each kind. [`TestRepository::create`] makes the kind that the test runs over.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::cell::Cell;
use std::path::Path;

use kbackup::error::Result;
use kbackup::format::ReadAt;
use kbackup::manifest::{FileSet, Label, Manifest, RelativePath, Row};
use kbackup::repository::{
    DirectoryRepository, Held, Interrupted, Listed, MemoryRepository, Repository, Writer,
};
use kbackup::run::Run;
use uuid::Uuid;

/// A kind of repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Directory,
    Memory,
}

thread_local! {
    /// The kind that the test of this thread runs over.
    static STORE: Cell<Store> = const { Cell::new(Store::Directory) };
}

/// Runs a test over one kind of repository.
pub(crate) fn with(store: Store, test: fn()) {
    STORE.set(store);
    test();
}

/// The kind of repository that this test runs over.
pub(crate) fn current() -> Store {
    STORE.get()
}

/// Makes one test for each kind of repository of functions that take nothing.
macro_rules! in_every_store {
    ($($test:ident,)*) => {$(
        mod $test {
            #[test]
            fn in_a_directory() {
                crate::stores::with(crate::stores::Store::Directory, super::$test);
            }

            #[test]
            fn in_memory() {
                crate::stores::with(crate::stores::Store::Memory, super::$test);
            }
        }
    )*};
}
pub(crate) use in_every_store;

/// A repository of the kind that the test runs over.
pub(crate) enum TestRepository {
    Directory(DirectoryRepository),
    Memory(MemoryRepository),
}

impl TestRepository {
    /// Makes a repository, at `path` if it is a directory.
    pub(crate) fn create(path: &Path) -> Self {
        match current() {
            Store::Directory => Self::Directory(DirectoryRepository::open_or_create(path).unwrap()),
            Store::Memory => Self::Memory(MemoryRepository::create()),
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

    fn change(
        &self,
        label: &Label,
        path: &RelativePath,
        change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
    ) {
        let repository = match self {
            Self::Memory(repository) => return repository.damage(label, path, change).unwrap(),
            Self::Directory(repository) => repository,
        };
        let backups = Path::new(&repository.place()).join("backups");
        let place = path.under(&backups.join(label.as_str()));
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
        }
    }
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

    fn shares_device_with(&self, path: &Path) -> Result<bool> {
        self.inner().shares_device_with(path)
    }
}
