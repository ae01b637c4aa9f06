//! Harm to stored objects, for tests: what a failing store or somebody with the store's own tools
//! may do.

use super::cells::Cell;
use super::compression::Compression;
use super::description::Description;
use super::encoding::{self, Encoding};
use super::heads::HeadObject;
use super::journal::Leftovers;
use super::layout;
use super::store::{Preconditions, Store};
use super::stored::StoredFiles;
use super::{ObjectLocation, ObjectRepository, no_such_backup};
use crate::error::{Error, Kind, Result};
use crate::manifest::{Label, RelativePath};

/// Cells of a repository in memory, so that a small file has several.
const CELL_BYTES: u64 = 64 << 10;
/// What a good store honours.
const HONOURED: Preconditions = Preconditions {
    create: true,
    update: true,
};

impl ObjectRepository {
    /// Makes a repository in memory, with short cells, all files in cells, and blobs as they are.
    ///
    /// # Errors
    /// None in practice.
    pub fn create_in_memory() -> Result<Self> {
        Self::create_with_short_cells(Store::in_memory(), HONOURED)
    }

    /// Makes such a repository in a real store. `environment` holds the credentials.
    ///
    /// # Errors
    /// What the store reports.
    pub fn create_on_server(url: &str, environment: Vec<(String, String)>) -> Result<Self> {
        let mut location = ObjectLocation::parse(url)?;
        location.options.store.environment = environment.into_iter().collect();
        Self::create_with_short_cells(location.store()?, HONOURED)
    }

    pub(super) fn create_with_short_cells(
        store: Store,
        preconditions: Preconditions,
    ) -> Result<Self> {
        let mut description = Description::new(preconditions);
        description.cell_bytes = CELL_BYTES;
        description.row_bytes = 0;
        Self::create_described(store, description, Compression::None)
    }

    /// The same repository, as another process would open it.
    ///
    /// # Errors
    /// As for opening it.
    pub fn reopen(&self) -> Result<Self> {
        let store = self.objects.store.clone();
        Self::open_if_there(store, self.objects.compression)?
            .ok_or_else(|| Error::new(Kind::NotFound, "there is no repository"))
    }

    /// Changes the stored bytes of a file, as a failing store does. Every backup that shares them
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
        let (_, backup) = self.listed(label)?;
        let files = StoredFiles::new(&self.objects, backup);
        let Some(found) = files.row(path)? else {
            return Err(Error::new(Kind::NotFound, "no such file").on(path));
        };
        let cells = found.cells(&self.objects)?;

        let mut bytes = vec![0; usize::try_from(found.stored.row.size).unwrap_or_default()];
        for cell in cells.iter() {
            self.read_unproven(cell, &mut bytes)?;
        }
        let changed = change(bytes);
        for cell in cells.iter() {
            self.damage_cell(cell, changed.as_deref())?;
        }
        Ok(())
    }

    /// Reads a blob as it is stored now, so that damage can be undone.
    fn read_unproven(&self, cell: &Cell, bytes: &mut [u8]) -> Result<()> {
        let stored = self
            .objects
            .store
            .get(&layout::blob(&cell.name), u64::MAX)?;
        let length = usize::try_from(cell.length).unwrap_or_default();
        let plain = stored.and_then(|stored| encoding::decode(cell.encoding, stored, length).ok());
        let plain = plain.unwrap_or_default();

        let offset = usize::try_from(cell.offset).unwrap_or(usize::MAX);
        if let Some(into) = bytes.get_mut(offset..offset.saturating_add(plain.len())) {
            into.copy_from_slice(&plain);
        }
        Ok(())
    }

    fn damage_cell(&self, cell: &Cell, changed: Option<&[u8]>) -> Result<()> {
        let key = layout::blob(&cell.name);
        let Some(changed) = changed else {
            return self.objects.store.delete(&key);
        };

        let offset = usize::try_from(cell.offset).unwrap_or(usize::MAX);
        let length = usize::try_from(cell.length).unwrap_or(usize::MAX);
        let rest = changed.get(offset..).unwrap_or_default();
        let plain = rest.get(..length.min(rest.len())).unwrap_or_default();
        let stored = match cell.encoding {
            Encoding::Plain => plain.to_vec(),
            Encoding::Zstd => zstd::bulk::compress(plain, 1)
                .map_err(|error| Error::new(Kind::Failed, "cannot compress").because(error))?,
        };
        self.objects.store.put(&key, stored.into())
    }

    /// Changes the bytes of the object that is a backup's head.
    ///
    /// # Errors
    /// `NotFound` if there is no such backup.
    pub fn damage_manifest(
        &self,
        label: &Label,
        change: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Result<()> {
        let (sequence, _) = self.listed(label)?;
        let key = layout::head(sequence);
        let bytes = self.objects.store.get(&key, u64::MAX)?.unwrap_or_default();
        self.known().clear();
        self.objects.store.put(&key, change(bytes).into())
    }

    /// Deletes the head of a backup as somebody would who knows nothing of kbackup.
    ///
    /// # Errors
    /// `NotFound` if there is no such backup.
    pub fn delete(&self, label: &Label) -> Result<()> {
        for head in self.read_heads()? {
            let is_backup = matches!(head.object, Ok(HeadObject::Backup(_)));
            if is_backup && head.label == *label {
                self.known().clear();
                return self.objects.store.delete(&layout::head(head.sequence));
            }
        }
        Err(no_such_backup(label))
    }

    /// The keys of all objects below a prefix.
    ///
    /// # Errors
    /// What the store reports.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let listed = self.objects.store.list(prefix)?;
        Ok(listed.into_iter().map(|info| info.key).collect())
    }

    /// Writes an object as somebody else may do who uses the same bucket.
    ///
    /// # Errors
    /// What the store reports.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.objects.store.put(key, bytes.to_vec().into())
    }

    /// Deletes the lease, as if its time were over and another run had taken and left the place.
    ///
    /// # Errors
    /// What the store reports.
    pub fn forget_lease(&self) -> Result<()> {
        self.objects.store.delete(layout::LEASE)
    }

    /// Lets deletions below a prefix fail, after so many that go well. `None` ends that.
    pub fn fail_deletions(&self, kind: Option<Kind>, after: usize, prefix: &'static str) {
        self.objects.store.fail_deletions(kind, after, prefix);
    }

    /// The files that interrupted runs left, and their lengths.
    ///
    /// # Errors
    /// What the store reports.
    pub fn leftovers(&self) -> Result<Vec<(RelativePath, u64)>> {
        Ok(Leftovers::read(&self.objects.store)?.list())
    }
}
