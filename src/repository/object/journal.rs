//! What a run in progress has stored, so that a later run can resume it: files that carry the
//! server's MD5, with the cells that hold them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::cells::{Cell, are_continuous};
use super::layout::{self, JOURNALS};
use super::sealed::{self, MAX_STORED_BYTES};
use super::sections::MAX_HOLE;
use super::store::Store;
use super::upload::{StoredBytes, StoredFile};
use crate::clock;
use crate::error::Result;
use crate::format::Md5Hash;
use crate::log::ChunkRecords;
use crate::manifest::{Blake3Hash, RelativePath};

/// After so many files the journal is written.
const MOST_PENDING: usize = 32;
/// After so long the journal is written.
const LONGEST: Duration = Duration::from_secs(30);

/// A file in a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    pub(super) path: RelativePath,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) blake3: Blake3Hash,
    /// The MD5 of all but the last 16 bytes.
    pub(super) md5: Md5Hash,
    /// What the records of a chunk told, once somebody has read all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) records: Option<ChunkRecords>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Vec<u8>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    first: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    last: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) cells: Vec<Cell>,
}

impl JournalEntry {
    /// The entry of a stored file; `None` if it has no MD5.
    pub(super) fn of(path: &RelativePath, mode: u32, file: &StoredFile) -> Option<Self> {
        let mut entry = Self {
            path: path.clone(),
            size: file.size,
            mode,
            blake3: file.blake3,
            md5: file.md5?,
            records: None,
            data: None,
            first: Vec::new(),
            last: Vec::new(),
            cells: Vec::new(),
        };
        match &file.bytes {
            StoredBytes::InRow(data) => entry.data = Some(data.clone()),
            StoredBytes::InCells {
                first, last, cells, ..
            } => {
                entry.first.clone_from(first);
                entry.last.clone_from(last);
                entry.cells = cells.to_vec();
            }
        }
        Some(entry)
    }

    /// The stored file.
    pub(super) fn file(&self) -> StoredFile {
        let bytes = match &self.data {
            Some(data) => StoredBytes::InRow(data.clone()),
            None => StoredBytes::InCells {
                first: self.first.clone(),
                last: self.last.clone(),
                cells: self.cells.as_slice().into(),
                tree: None,
            },
        };
        StoredFile {
            size: self.size,
            blake3: self.blake3,
            md5: Some(self.md5),
            bytes,
        }
    }

    /// Whether there can be such a file. Somebody else may have written the journal.
    fn is_possible(&self) -> bool {
        match &self.data {
            Some(data) => data.len() as u64 == self.size && self.cells.is_empty(),
            None => {
                let end = self.cells.last().map_or(0, Cell::end);
                are_continuous(&self.cells, self.size) && self.size - end <= MAX_HOLE
            }
        }
    }

    /// Bytes in the store that hold the file.
    pub(super) fn stored_bytes(&self) -> u64 {
        let mut bytes = self.data.as_ref().map_or(0, Vec::len) as u64;
        for cell in &self.cells {
            bytes = bytes.saturating_add(cell.stored);
        }
        bytes
    }
}

/// The journal of a run in progress.
pub(super) struct Journal {
    run: Uuid,
    parts: u32,
    pending: Vec<JournalEntry>,
    written: Instant,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            run: clock::identifier(),
            parts: 0,
            pending: Vec::new(),
            written: Instant::now(),
        }
    }

    /// The keys of what was written.
    pub(super) fn keys(&self) -> Vec<String> {
        let parts = 0..self.parts;
        parts.map(|part| layout::journal(self.run, part)).collect()
    }

    /// Adds a file. A later entry of a path counts in place of an earlier one.
    pub(super) fn add(&mut self, entry: JournalEntry) {
        self.pending.retain(|pending| pending.path != entry.path);
        self.pending.push(entry);
    }

    /// Forgets a file that is not written yet.
    pub(super) fn forget(&mut self, path: &RelativePath) {
        self.pending.retain(|pending| pending.path != *path);
    }

    /// Writes what was added, if it is time.
    pub(super) fn write_if_due(&mut self, store: &Store) -> Result<()> {
        if self.pending.len() < MOST_PENDING && self.written.elapsed() < LONGEST {
            return Ok(());
        }
        self.write(store)
    }

    /// Writes what was added.
    pub(super) fn write(&mut self, store: &Store) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let object = sealed::seal(&self.pending)?;
        store.put(&layout::journal(self.run, self.parts), object.into())?;

        self.parts = self.parts.saturating_add(1);
        self.pending.clear();
        self.written = Instant::now();
        Ok(())
    }
}

/// Shows every cell that a journal names, one journal after the other.
pub(super) fn each_cell(store: &Store, mut see: impl FnMut(&Cell)) -> Result<()> {
    for info in store.list(JOURNALS)? {
        for entry in entries(store, &info.key)? {
            entry.cells.iter().for_each(&mut see);
        }
    }
    Ok(())
}

/// The files in a journal. What cannot be read is left over for nobody.
fn entries(store: &Store, key: &str) -> Result<Vec<JournalEntry>> {
    let object = store.get(key, MAX_STORED_BYTES)?.unwrap_or_default();
    Ok(sealed::unseal(&object).unwrap_or_default())
}

/// The journals of runs that ended before their commit.
#[derive(Default)]
pub(super) struct Leftovers {
    /// The keys of the journals.
    pub(super) keys: Vec<String>,
    /// The files by their paths, those of the newest run last.
    files: BTreeMap<RelativePath, Vec<JournalEntry>>,
}

impl Leftovers {
    /// Reads all journals.
    pub(super) fn read(store: &Store) -> Result<Self> {
        let mut left = Self::default();
        for info in store.list(JOURNALS)? {
            let entries = entries(store, &info.key)?;
            left.keys.push(info.key);

            for entry in entries {
                if !entry.is_possible() {
                    continue;
                }
                let same_path = left.files.entry(entry.path.clone()).or_default();
                same_path.retain(|known| known.blake3 != entry.blake3);
                same_path.push(entry);
            }
        }
        Ok(left)
    }

    /// Takes the newest file of this path and size.
    pub(super) fn take(&mut self, path: &RelativePath, size: u64) -> Option<JournalEntry> {
        let same_path = self.files.get_mut(path)?;
        let newest = same_path.iter().rposition(|entry| entry.size == size)?;
        let entry = same_path.remove(newest);
        if same_path.is_empty() {
            self.files.remove(path);
        }
        Some(entry)
    }

    /// Puts a file back that [`Self::take`] took.
    pub(super) fn put_back(&mut self, entry: JournalEntry) {
        self.files
            .entry(entry.path.clone())
            .or_default()
            .push(entry);
    }

    /// The paths and lengths, each path once.
    pub(super) fn list(&self) -> Vec<(RelativePath, u64)> {
        let mut list = Vec::with_capacity(self.files.len());
        for (path, entries) in &self.files {
            if let Some(newest) = entries.last() {
                list.push((path.clone(), newest.size));
            }
        }
        list
    }

    /// All files.
    pub(super) fn entries(&self) -> impl Iterator<Item = &JournalEntry> {
        self.files.values().flatten()
    }
}
