//! A backup in the making: files whose bytes are in the store already, and that no head names yet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ObjectRepository;
use super::file::ObjectFile;
use super::journal::{Journal, JournalEntry, Leftovers};
use super::lease::Lease;
use super::objects::{Known, Objects};
use super::stored::StoredFiles;
use super::sweep::Sweep;
use super::upload::{FilePlan, Source, StoredBytes, StoredFile, Upload};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::format::{Md5Hash, ReadAt};
use crate::manifest::{Blake3Hash, FileEntry, FileSet, Manifest, RelativePath, Row};
use crate::proof::Proven;
use crate::repository::{Attributes, Incoming, Ingest, LookAtReused, ProvenCopy, Resumed, Stored};
use crate::run::Run;
use crate::transfer::{Follower, hash_followed, paced};

/// The incoming backup of an object repository. It holds the writer's place.
pub(super) struct ObjectIncoming<'a> {
    pub(super) repository: &'a ObjectRepository,
    pub(super) objects: Arc<Objects>,
    pub(super) run: &'a Run,
    pub(super) parent: Option<StoredFiles>,
    /// A verification found damage in the parent.
    is_parent_damaged: bool,
    /// The newest backup of the repository. A full reuses none of its files, but uploads no bytes
    /// that it holds.
    newest: Option<StoredFiles>,
    /// A verification found damage in a backup that may share blobs with `newest`.
    is_newest_suspect: bool,
    files: Mutex<BTreeMap<RelativePath, IncomingFile>>,
    leftovers: Mutex<Leftovers>,
    /// The last run that deleted objects when this one began.
    pub(super) sweep: Sweep,
    journal: Mutex<Journal>,
    bytes_stored: AtomicU64,
    is_committed: bool,
    pub(super) lease: Lease<'a>,
}

/// A file of the backup.
#[derive(Clone)]
pub(super) enum IncomingFile {
    /// The parent's, unchanged.
    Reused(ReusedFile),
    /// One that this run has stored.
    Own(Arc<StoredFile>, u32),
}

/// What is known of a reused file without its row.
#[derive(Clone)]
pub(super) struct ReusedFile {
    size: u64,
    mode: u32,
    blake3: Blake3Hash,
}

impl IncomingFile {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Reused(reused) => reused.size,
            Self::Own(file, _) => file.size,
        }
    }

    fn entry(&self, path: &RelativePath) -> FileEntry {
        let (mode, blake3) = match self {
            Self::Reused(reused) => (reused.mode, &reused.blake3),
            Self::Own(file, mode) => (*mode, &file.blake3),
        };
        FileEntry {
            path: path.clone(),
            size: self.size(),
            mode,
            stamp: Some(ObjectFile::stamp_of(blake3)),
        }
    }
}

impl<'a> ObjectIncoming<'a> {
    pub(super) fn new(
        repository: &'a ObjectRepository,
        lease: Lease<'a>,
        parent: Option<&Manifest>,
        run: &'a Run,
    ) -> Result<Self> {
        let objects = repository.objects.clone();
        // Before anything is found that a sweep may delete.
        let sweep = Sweep::last(&objects.store)?;
        let files_of = |backup| StoredFiles::new(&objects, backup);
        let parent = match parent {
            Some(parent) => Some(files_of(repository.listed_now(&parent.label)?.1)),
            None => None,
        };
        let newest = match parent {
            Some(_) => None,
            None => repository.newest_sound()?,
        };
        let is_newest_suspect = newest.as_ref().is_some_and(|(_, is_suspect)| *is_suspect);
        let newest = newest.map(|(backup, _)| files_of(backup));
        let is_parent_damaged = match &parent {
            Some(parent) => repository.is_damaged(&parent.backup.head.label)?,
            None => false,
        };

        Ok(Self {
            run,
            parent,
            is_parent_damaged,
            newest,
            is_newest_suspect,
            files: Mutex::default(),
            leftovers: Mutex::new(Leftovers::read(&objects.store)?),
            sweep,
            journal: Mutex::new(Journal::new()),
            bytes_stored: AtomicU64::new(0),
            is_committed: false,
            lease,
            repository,
            objects,
        })
    }

    pub(super) fn files(&self) -> MutexGuard<'_, BTreeMap<RelativePath, IncomingFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leftovers(&self) -> MutexGuard<'_, Leftovers> {
        self.leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, bytes: u64) {
        self.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The file of the parent with this row.
    fn parents(&self, row: &Row) -> Result<ObjectFile> {
        let Some(parent) = &self.parent else {
            return Err(Error::new(
                Kind::Failed,
                "there is no earlier backup to reuse a file of",
            )
            .on(&row.path));
        };
        let Some(found) = parent.row(&row.path)? else {
            return Err(not_as_stored(
                parent.place_of(&row.path),
                "its backup does not name it",
            ));
        };
        if found.stored.row.size != row.size {
            let why = format!("it has {} bytes, not {}", found.stored.row.size, row.size);
            return Err(not_as_stored(parent.place_of(&row.path), why));
        }
        Ok(found.open(&self.objects))
    }

    /// Stores a file of the source.
    fn store(
        &self,
        path: &RelativePath,
        ingest: Ingest<'_>,
        prefix: Option<(&ObjectFile, u64)>,
    ) -> Result<Stored> {
        let captured = clock::now();
        self.lease.renew()?;

        let parents = self.cells_in(&self.parent, path)?;
        let others = self.cells_in(&self.newest, path)?;
        let mut known = Vec::with_capacity(parents.len() + others.len());
        // A file that is read again although the parent has it is damaged there, or has changed.
        let is_trusted = prefix.is_some() && !self.is_parent_damaged;
        for cell in parents.iter() {
            known.push(match is_trusted {
                true => Known::OfParent(cell),
                false => Known::Suspect(cell),
            });
        }
        for cell in others.iter() {
            known.push(match self.is_newest_suspect {
                true => Known::Suspect(cell),
                false => Known::OfAnother(cell),
            });
        }

        let plan = FilePlan {
            length: ingest.length,
            full_length: ingest.full_length.max(ingest.length),
            md5: ingest.md5.is_some(),
            known,
        };
        let source = Source {
            file: ingest.source,
            place: ingest.place,
            prefix,
        };
        let upload = Upload::new(&self.objects, self.run, plan);
        let (file, written) = upload.run(&source, ingest.follow)?;
        self.count(written);
        self.keep(path, file, ingest.attributes.mode, captured)
    }

    /// The cells that a file of this path has in another backup.
    fn cells_in(
        &self,
        backup: &Option<StoredFiles>,
        path: &RelativePath,
    ) -> Result<Arc<[super::cells::Cell]>> {
        let Some(backup) = backup else {
            return Ok(Arc::from(Vec::new()));
        };
        match backup.row(path)? {
            Some(found) => found.cells(&self.objects),
            None => Ok(Arc::from(Vec::new())),
        }
    }

    /// Makes a stored file a file of this set.
    fn keep(
        &self,
        path: &RelativePath,
        file: StoredFile,
        mode: u32,
        captured: Timestamp,
    ) -> Result<Stored> {
        let stored = Stored {
            size: file.size,
            blake3: file.blake3,
            md5: file.md5,
            captured,
            stamp: Some(ObjectFile::stamp_of(&file.blake3)),
            begun: 0,
        };

        // A later run can prove this file only by the server's MD5 in it.
        let entry = JournalEntry::of(path, mode, &file);
        self.files()
            .insert(path.clone(), IncomingFile::Own(Arc::new(file), mode));
        let mut journal = self.journal();
        match entry {
            Some(entry) => journal.add(entry),
            None => journal.forget(path),
        }
        journal.write_if_due(&self.objects.store)?;
        Ok(stored)
    }

    fn reuse_one(&self, row: &Row) -> Result<ObjectFile> {
        let file = self.parents(row)?;
        let reused = ReusedFile {
            size: row.size,
            mode: row.mode,
            blake3: row.blake3,
        };
        self.files()
            .insert(row.path.clone(), IncomingFile::Reused(reused));
        self.journal().forget(&row.path);
        Ok(file)
    }

    fn opened(&self, path: &RelativePath, file: &IncomingFile) -> Result<Option<ObjectFile>> {
        match (file, &self.parent) {
            (IncomingFile::Own(file, _), _) => Ok(Some(file.open(&self.objects))),
            (IncomingFile::Reused(_), Some(parent)) => {
                Ok(parent.row(path)?.map(|found| found.open(&self.objects)))
            }
            (IncomingFile::Reused(_), None) => Ok(None),
        }
    }

    /// Whether the file of a journal ends with its own MD5, and the records of a chunk if somebody
    /// follows and nobody has read them.
    fn prove(&self, entry: &JournalEntry, follow: Follower<'_>) -> Result<bool> {
        let file = entry.file().open(&self.objects);
        let mut last = [0; 16];
        let Some(offset) = entry.size.checked_sub(16) else {
            return Ok(false);
        };
        file.read_exact_at(offset, &mut last)
            .map_err(super::file::error_of)?;
        if Md5Hash(last) != entry.md5 {
            return Ok(false);
        }

        if follow.is_some() && entry.records.is_none() {
            let paced = paced(Box::new(file), self.run);
            let digest = hash_followed(&*paced, false, follow, self.run)?;
            return Ok(digest.blake3 == entry.blake3);
        }
        Ok(true)
    }
}

/// The error for a stored file that is damaged.
pub(super) fn not_as_stored(place: String, why: impl Into<String>) -> Error {
    Error::new(Kind::StoredCorrupt, "a stored file is not as it was stored")
        .on(place)
        .because(why.into())
}

impl FileSet for ObjectIncoming<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let files = self.files();
        let mut entries = Vec::with_capacity(files.len());
        for (path, file) in &*files {
            entries.push(file.entry(path));
        }
        Ok(entries)
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        let file = self.files().get(path).cloned();
        let Some(file) = file else {
            return Ok(None);
        };
        let opened = self.opened(path, &file)?;
        Ok(opened.map(|file| Box::new(file) as Box<dyn ReadAt>))
    }

    fn place_of(&self, path: &RelativePath) -> String {
        self.objects.place_of(&format!("incoming/{path}"))
    }
}

impl Incoming for ObjectIncoming<'_> {
    fn check_next(&self, sequence: u64) -> Result<()> {
        self.repository.check_not_given(sequence)
    }

    fn reuse(&self, rows: &[&Row], look: LookAtReused<'_>) -> Vec<Result<()>> {
        let mut reused = Vec::with_capacity(rows.len());
        for row in rows {
            reused.push(self.reuse_one(row).map(|file| look(row, &file)));
        }
        reused
    }

    fn left(&self) -> Result<Vec<(RelativePath, u64)>> {
        Ok(self.leftovers().list())
    }

    fn resume(
        &self,
        path: &RelativePath,
        size: u64,
        md5: Md5Hash,
        mut follow: Follower<'_>,
    ) -> Result<Option<Resumed>> {
        let captured = clock::now();
        loop {
            let Some(entry) = self.leftovers().take(path, size) else {
                return Ok(None);
            };
            if entry.md5 != md5 {
                self.run.note(format!(
                    "{path}: what an interrupted run left of it is not resumed"
                ));
                continue;
            }
            match self.prove(&entry, follow.take()) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) if error.kind() == Kind::StoredCorrupt => continue,
                Err(error) => {
                    self.leftovers().put_back(entry);
                    return Err(error);
                }
            }

            let (file, mode) = (entry.file(), entry.mode);
            let records = entry.records.clone();
            let mut stored = self.keep(path, file, mode, captured)?;
            self.journal().add(entry);
            stored.stamp = None;
            return Ok(Some(Resumed { stored, records }));
        }
    }

    fn keep_proof(&self, path: &RelativePath, proof: ProvenCopy) -> Result<()> {
        let file = self.files().get(path).cloned();
        let Some(IncomingFile::Own(file, mode)) = file else {
            return Ok(());
        };
        let Some(mut entry) = JournalEntry::of(path, mode, &file) else {
            return Ok(());
        };
        entry.records = proof.records;

        let mut journal = self.journal();
        journal.add(entry);
        journal.write_if_due(&self.objects.store)
    }

    fn ingest(&self, path: &RelativePath, ingest: Ingest<'_>) -> Result<Stored> {
        self.store(path, ingest, None)
    }

    fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        ingest: Ingest<'_>,
    ) -> Result<Stored> {
        if prefix > held.size || prefix > ingest.length {
            return Err(Error::new(Kind::Failed, "cannot extend a file beyond its end").on(path));
        }
        let from = self.parents(held)?;
        self.store(path, ingest, Some((&from, prefix)))
    }

    fn write(&self, path: &RelativePath, bytes: &[u8], attributes: Attributes) -> Result<Stored> {
        let bytes = bytes.to_vec();
        let ingest = Ingest {
            source: &bytes,
            place: self.place_of(path),
            length: bytes.len() as u64,
            full_length: bytes.len() as u64,
            md5: None,
            reads_every_byte: true,
            attributes,
            follow: None,
        };
        self.store(path, ingest, None)
    }

    fn cut(
        &self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
        attributes: Attributes,
    ) -> Result<Stored> {
        let captured = clock::now();
        let file = self.files().get(path).cloned();
        let old = match &file {
            Some(file) => self.opened(path, file)?,
            None => None,
        };
        let Some(old) = old else {
            return Err(Error::new(Kind::Failed, "there is no such file to cut").on(path));
        };
        if length > old.size() || length > full_length {
            return Err(Error::new(Kind::Failed, "cannot cut a file beyond its end").on(path));
        }

        let cells = old.known_cells()?;
        let plan = FilePlan {
            length,
            full_length,
            md5: false,
            known: cells.iter().map(Known::OfParent).collect(),
        };
        let mut upload = Upload::new(&self.objects, self.run, plan);
        if let Some(IncomingFile::Own(own, _)) = &file
            && let StoredBytes::InCells {
                first,
                tree: Some(tree),
                ..
            } = &own.bytes
            && full_length > self.objects.row_bytes
        {
            upload = upload.behind(first, &cells, tree, length / self.objects.cell_bytes);
        }
        let source = Source {
            file: &old,
            place: self.place_of(path),
            prefix: None,
        };
        let (file, written) = upload.run(&source, None)?;
        self.count(written);
        self.keep(path, file, attributes.mode, captured)
    }

    fn remove(&self, path: &RelativePath) -> Result<()> {
        self.files().remove(path);
        self.journal().forget(path);
        Ok(())
    }

    fn commit(mut self: Box<Self>, manifest: &Proven<Manifest>) -> Result<()> {
        self.make_listed(manifest)?;
        self.is_committed = true;

        // The journals are of no use any more. What stays of them, the next commit removes.
        let mut keys = std::mem::take(&mut self.leftovers().keys);
        keys.extend(self.journal().keys());
        for key in keys {
            if let Err(error) = self.objects.store.delete(&key) {
                self.run.note(format!("{key} stays for now: {error}"));
            }
        }
        Ok(())
    }

    fn bytes_stored(&self) -> u64 {
        self.bytes_stored.load(Ordering::Relaxed)
    }
}

impl Drop for ObjectIncoming<'_> {
    /// Keeps what a later run can resume.
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        if let Err(error) = self.journal().write(&self.objects.store) {
            self.run.note(format!(
                "a later run cannot resume all of this one: {error}"
            ));
        }
    }
}
