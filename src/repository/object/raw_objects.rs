//! The objects of a repository as somebody sees and changes them who has only the store's own tools,
//! and repositories in stores with faults. For tests.

use std::collections::BTreeMap;

use super::ObjectRepository;
use super::compression::Compression;
use super::listing;
use super::store::{Store, StoreFaults, probe};
use crate::error::{Error, Kind, Result};

impl ObjectRepository {
    /// A new repository in memory that holds these objects. The catalog is written anew, because the
    /// versions of the objects are others.
    ///
    /// # Errors
    /// As for opening a repository.
    pub fn of_objects(objects: &BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let store = Store::in_memory();
        for (key, bytes) in objects {
            store.put(key, bytes.clone().into())?;
        }
        let repository = Self::open_if_there(store, Compression::None)?
            .ok_or_else(|| Error::new(Kind::NotFound, "there is no repository"))?;
        listing::write(&repository.objects.store, &repository.read_heads()?)?;
        Ok(repository)
    }

    /// Makes a repository in memory as `kbackup init` does, through faults.
    ///
    /// # Errors
    /// As for making a repository.
    pub fn create_through(faults: StoreFaults) -> Result<Self> {
        let store = Store::in_memory().with_faults(faults)?;
        let preconditions = probe(&store)?;
        Self::create_with_short_cells(store, preconditions)
    }

    /// The same repository, seen by another run whose requests have faults.
    ///
    /// # Errors
    /// `Failed` if the system gives no threads.
    pub fn with_faults(&self, faults: StoreFaults) -> Result<Self> {
        let store = self.objects.store.with_faults(faults)?;
        Ok(Self::with(
            store,
            self.description.clone(),
            self.objects.compression,
        ))
    }

    /// The same repository, seen by another run that compresses in another way.
    #[must_use]
    pub fn compressing(&self, compression: Compression) -> Self {
        let store = self.objects.store.clone();
        Self::with(store, self.description.clone(), compression)
    }

    /// Every object, by its key.
    ///
    /// # Errors
    /// What the store reports.
    pub fn raw_objects(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut objects = BTreeMap::new();
        for info in self.objects.store.list("")? {
            if let Some(bytes) = self.objects.store.get(&info.key, u64::MAX)? {
                objects.insert(info.key, bytes);
            }
        }
        Ok(objects)
    }

    /// Writes an object, or deletes it.
    ///
    /// # Errors
    /// What the store reports.
    pub fn set_raw_object(&self, key: &str, bytes: Option<&[u8]>) -> Result<()> {
        self.known().clear();
        match bytes {
            Some(bytes) => self.objects.store.put(key, bytes.to_vec().into()),
            None => self.objects.store.delete(key),
        }
    }
}
