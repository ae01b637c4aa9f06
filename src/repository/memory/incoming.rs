//! A backup in the making: names for blobs, which a head makes visible.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::blobs::{Blob, Content};
use super::writer_place::WriterPlace;
use super::{Committed, MemoryFile, MemoryFiles, MemoryRepository, entries_of, not_as_stored};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::{Md5Hash, ReadAt};
use crate::fs::Stamp;
use crate::manifest::{FileEntry, FileSet, Manifest, RelativePath, Row};
use crate::proof::Proven;
use crate::repository::{
    Attributes, Begun, Incoming, Ingest, LookAtReused, ProvenCopy, Repository, Resumed, Stored,
    numbers,
};
use crate::run::Run;
use crate::transfer::{CopyFailure, Follower, hash_file, hash_followed, paced};

/// Bytes of a source that are read at once.
const PIECE: u64 = 1 << 20;

/// The incoming backup of a memory store. It holds the writer's place.
pub(super) struct MemoryIncoming<'a> {
    parent: Option<MemoryFiles>,
    run: &'a Run,
    names: Mutex<IncomingFiles>,
    bytes_stored: AtomicU64,
    is_committed: bool,
    place: WriterPlace<'a>,
}

/// The files of the backup, and which of them end with the server's MD5: a later run can resume
/// those.
#[derive(Default)]
struct IncomingFiles {
    all: MemoryFiles,
    resumable: MemoryFiles,
}

impl<'a> MemoryIncoming<'a> {
    pub(super) fn new(
        place: WriterPlace<'a>,
        parent: Option<&Manifest>,
        run: &'a Run,
    ) -> Result<Self> {
        let parent = match parent {
            Some(parent) => {
                let store = place.repository.reach()?;
                Some(store.committed(&parent.label)?.files.clone())
            }
            None => None,
        };
        Ok(Self {
            parent,
            run,
            names: Mutex::default(),
            bytes_stored: AtomicU64::new(0),
            is_committed: false,
            place,
        })
    }

    fn repository(&self) -> &'a MemoryRepository {
        self.place.repository
    }

    /// Checks that no backup ever had this number or a higher one.
    fn check_not_given(&self, sequence: u64) -> Result<()> {
        if !numbers::is_given(self.repository(), sequence)? {
            return Ok(());
        }
        Err(
            Error::new(Kind::Locked, "another run has committed a backup meanwhile")
                .on(self.repository().place())
                .hint("run it again"),
        )
    }

    fn names(&self) -> MutexGuard<'_, IncomingFiles> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parent's blob of a row.
    fn blob_of_parent(&self, row: &Row) -> Result<(MemoryFile, Blob)> {
        let place = || self.place_of(&row.path);
        let Some(parent) = &self.parent else {
            return Err(Error::new(
                Kind::Failed,
                "there is no earlier backup to reuse a file of",
            )
            .on(&row.path));
        };

        let store = self.repository().reach()?;
        let file = parent.get(&row.path).copied();
        let Some((file, blob)) = file.and_then(|file| Some((file, store.blob(&file)?))) else {
            return Err(not_as_stored(place(), "it is gone"));
        };
        if blob.size() != row.size {
            let why = format!("it has {} bytes, not {}", blob.size(), row.size);
            return Err(not_as_stored(place(), why));
        }
        Ok((file, blob))
    }

    fn reuse_one(&self, row: &Row) -> Result<Box<dyn ReadAt>> {
        let (file, blob) = self.blob_of_parent(row)?;
        let mut files = self.names();
        files.all.insert(row.path.clone(), file);
        files.resumable.remove(&row.path);
        Ok(Box::new(blob))
    }

    /// Reads a source from `bytes.len()` on, and shows what has been read to the follower.
    fn read(
        &self,
        path: &RelativePath,
        ingest: &mut Ingest<'_>,
        mut bytes: Vec<u8>,
    ) -> Result<Content> {
        let size = ingest.full_length.max(ingest.length);
        let mut content = Content::default();
        while (bytes.len() as u64) < ingest.length {
            if let Err(error) = self.run.check() {
                self.keep_begun(path, ingest.md5, bytes);
                return Err(error);
            }
            let offset = bytes.len() as u64;
            let piece = (ingest.length - offset).min(self.run.pace().piece(PIECE));
            let mut buffer = vec![0; usize::try_from(piece).unwrap_or_default()];
            let count = match ingest.source.read_at(offset, &mut buffer) {
                Ok(0) => return Err(short(ingest, offset)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let place = ingest.place.clone();
                    return Err(CopyFailure::Source { place, source }.into());
                }
            };

            bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            self.run.pace().spend(count as u64);
            self.run.emit(Event::Progress {
                bytes: count as u64,
            });
            if let Some(follow) = &mut ingest.follow {
                content = Content {
                    bytes: Arc::new(bytes),
                    size,
                };
                follow.follow(&content, offset + count as u64);
                bytes = Arc::unwrap_or_clone(std::mem::take(&mut content.bytes));
            }
        }

        content.bytes = Arc::new(bytes);
        content.size = size;
        if let Some(follow) = &mut ingest.follow {
            // The blob's bytes never change, so the follower may look before the blob is named.
            follow.finish(&content);
        }
        Ok(content)
    }

    /// Keeps the beginning of a file whose copy was interrupted, if the server's MD5 can prove the
    /// file when a later run has finished it.
    fn keep_begun(&self, path: &RelativePath, md5: Option<Md5Hash>, bytes: Vec<u8>) {
        if let Some(md5) = md5
            && !bytes.is_empty()
        {
            let key = (path.clone(), md5.0);
            self.repository().locked().begun.insert(key, bytes);
        }
    }

    /// Takes what an interrupted run has copied of a file of the source.
    fn take_begun(&self, path: &RelativePath, ingest: &Ingest<'_>) -> Result<Vec<u8>> {
        let Some(md5) = ingest.md5.filter(|_| !ingest.reads_every_byte) else {
            return Ok(Vec::new());
        };
        let mut store = self.repository().reach()?;
        let begun = store.begun.remove(&(path.clone(), md5.0));
        drop(store);

        let fitting = begun.filter(|begun| begun.len() as u64 <= ingest.length);
        let bytes = fitting.unwrap_or_default();
        self.run.pace().spend(bytes.len() as u64);
        self.run.emit(Event::Progress {
            bytes: bytes.len() as u64,
        });
        Ok(bytes)
    }

    /// Stores a file's content as a blob, and names it. `md5`: whether the file ends with the
    /// server's MD5.
    fn put(
        &self,
        path: &RelativePath,
        mut content: Content,
        mode: u32,
        md5: bool,
        captured: Timestamp,
    ) -> Result<Stored> {
        self.run.check()?;

        // Zeros at the end take no storage, as a hole of a file would not. `content.size` counts
        // them.
        let mut bytes = Arc::unwrap_or_clone(content.bytes);
        let last_data = bytes.iter().rposition(|byte| *byte != 0);
        bytes.truncate(last_data.map_or(0, |last| last + 1));
        content.bytes = Arc::new(bytes);

        let digest = hash_file(&content, md5, self.run)?;

        let mut store = self.repository().reach()?;
        let size = content.size;
        let (blob, written) = store.blobs.put(content);
        drop(store);
        self.bytes_stored.fetch_add(written, Ordering::Relaxed);

        let file = MemoryFile { blob, size, mode };
        let mut files = self.names();
        files.all.insert(path.clone(), file);
        // A later run can prove this file only by the server's MD5 in it.
        if md5 {
            files.resumable.insert(path.clone(), file);
        } else {
            files.resumable.remove(path);
        }

        Ok(Stored {
            size,
            blake3: digest.blake3,
            md5: digest.md5,
            begun: 0,
            captured,
            stamp: Some(Stamp::of_content(blob.hash())),
        })
    }

    /// The newest file of this path that an interrupted run left.
    fn leftover(&self, path: &RelativePath, size: u64) -> Result<Option<(MemoryFile, Blob)>> {
        let store = self.repository().reach()?;
        for files in store.leftovers.iter().rev() {
            let Some(file) = files.get(path) else {
                continue;
            };
            if file.size == size
                && let Some(blob) = store.blob(file)
            {
                return Ok(Some((*file, blob)));
            }
        }
        Ok(None)
    }

    /// Reads a blob, and proves it by its last 16 bytes. Returns `None` if they are not its MD5.
    fn prove(&self, blob: &Blob, follow: Follower<'_>) -> Result<Option<ProvenCopy>> {
        let paced = paced(Box::new(blob.clone()), self.run);
        let digest = hash_followed(&*paced, true, follow, self.run)?;

        let mut last = [0; 16];
        let has_end = match blob.size().checked_sub(16) {
            Some(offset) => blob.read_exact_at(offset, &mut last).is_ok(),
            None => false,
        };
        let md5 = Md5Hash(last);
        if !has_end || digest.md5 != Some(md5) {
            return Ok(None);
        }
        Ok(Some(ProvenCopy {
            size: digest.size,
            blake3: digest.blake3,
            md5,
            records: None,
        }))
    }

    fn forget_leftover(&self, path: &RelativePath, file: MemoryFile) {
        for files in &mut self.repository().locked().leftovers {
            if files.get(path) == Some(&file) {
                files.remove(path);
            }
        }
    }
}

fn short(ingest: &Ingest<'_>, found: u64) -> Error {
    CopyFailure::Short {
        place: ingest.place.clone(),
        wanted: ingest.length,
        found,
    }
    .into()
}

/// The first bytes of a blob.
fn prefix_of(blob: &Blob, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    blob.read_exact_at(0, &mut bytes)
        .map_err(|error| Error::new(Kind::StoredCorrupt, "a blob ends too early").because(error))?;
    Ok(bytes)
}

impl FileSet for MemoryIncoming<'_> {
    fn files(&self) -> Result<Vec<FileEntry>> {
        let files = self.names().all.clone();
        let store = self.repository().reach()?;
        Ok(entries_of(&files, &store))
    }

    fn open(&self, path: &RelativePath) -> Result<Option<Box<dyn ReadAt>>> {
        let file = self.names().all.get(path).copied();
        let store = self.repository().reach()?;
        let blob = file.and_then(|file| store.blob(&file));
        Ok(blob.map(|blob| Box::new(blob) as Box<dyn ReadAt>))
    }

    fn place_of(&self, path: &RelativePath) -> String {
        format!("{}/incoming/{path}", self.repository().place())
    }
}

impl Incoming for MemoryIncoming<'_> {
    fn check_next(&self, sequence: u64) -> Result<()> {
        let store = self.repository().reach()?;
        match store.heads.last_key_value() {
            Some((newest, committed)) if *newest >= sequence => Err(Error::new(
                Kind::Locked,
                "another run has committed a backup meanwhile",
            )
            .on(&committed.label)
            .hint("run it again")),
            _ => {
                drop(store);
                self.check_not_given(sequence)
            }
        }
    }

    fn reuse(&self, rows: &[&Row], look: LookAtReused<'_>) -> Vec<Result<()>> {
        let mut reused = Vec::with_capacity(rows.len());
        for row in rows {
            reused.push(self.reuse_one(row).map(|stored| look(row, &*stored)));
        }
        reused
    }

    fn left(&self) -> Result<Vec<(RelativePath, u64)>> {
        let store = self.repository().reach()?;
        let mut left = BTreeMap::new();
        for files in &store.leftovers {
            left.extend(files.iter().map(|(path, file)| (path.clone(), file.size)));
        }
        Ok(left.into_iter().collect())
    }

    fn begun(&self) -> Result<Vec<Begun>> {
        let store = self.repository().reach()?;
        let mut all = Vec::new();
        for ((path, md5), bytes) in &store.begun {
            all.push(Begun {
                path: path.clone(),
                md5: Md5Hash(*md5),
                bytes: bytes.len() as u64,
            });
        }
        Ok(all)
    }

    fn resume(
        &self,
        path: &RelativePath,
        size: u64,
        md5: Md5Hash,
        mut follow: Follower<'_>,
    ) -> Result<Option<Resumed>> {
        let captured = clock::now();
        while let Some((file, blob)) = self.leftover(path, size)? {
            let kept = self.repository().reach()?.proofs.get(&file.blob).cloned();
            let kept = kept.filter(|proof| follow.is_none() || proof.records.is_some());
            let proof = match kept {
                Some(proof) => Some(proof),
                None => self.prove(&blob, follow.take())?,
            };
            self.forget_leftover(path, file);

            let Some(proof) = proof.filter(|proof| proof.md5 == md5) else {
                self.run.note(format!(
                    "{path}: what an interrupted run left of it is not resumed"
                ));
                continue;
            };

            let mut files = self.names();
            files.all.insert(path.clone(), file);
            files.resumable.insert(path.clone(), file);
            return Ok(Some(Resumed {
                stored: Stored {
                    size,
                    blake3: proof.blake3,
                    md5: Some(md5),
                    begun: 0,
                    captured,
                    stamp: None,
                },
                records: proof.records,
            }));
        }
        Ok(None)
    }

    fn keep_proof(&self, path: &RelativePath, proof: ProvenCopy) -> Result<()> {
        let file = self.names().all.get(path).copied();
        if let Some(file) = file {
            self.repository().reach()?.proofs.insert(file.blob, proof);
        }
        Ok(())
    }

    fn ingest(&self, path: &RelativePath, mut ingest: Ingest<'_>) -> Result<Stored> {
        let captured = clock::now();
        let bytes = self.take_begun(path, &ingest)?;
        let begun = bytes.len() as u64;
        let content = self.read(path, &mut ingest, bytes)?;

        let (mode, has_md5) = (ingest.attributes.mode, ingest.md5.is_some());
        let stored = self.put(path, content, mode, has_md5, captured)?;
        Ok(Stored { begun, ..stored })
    }

    fn extend(
        &self,
        path: &RelativePath,
        held: &Row,
        prefix: u64,
        mut ingest: Ingest<'_>,
    ) -> Result<Stored> {
        let captured = clock::now();
        let (_, blob) = self.blob_of_parent(held)?;
        if prefix > held.size || prefix > ingest.length {
            return Err(Error::new(Kind::Failed, "cannot extend a file beyond its end").on(path));
        }
        if hash_file(&blob, false, self.run)?.blake3 != held.blake3 {
            return Err(not_as_stored(
                self.place_of(&held.path),
                "the BLAKE3 differs",
            ));
        }

        let content = self.read(path, &mut ingest, prefix_of(&blob, prefix)?)?;
        let (mode, has_md5) = (ingest.attributes.mode, ingest.md5.is_some());
        self.put(path, content, mode, has_md5, captured)
    }

    fn write(&self, path: &RelativePath, bytes: &[u8], attributes: Attributes) -> Result<Stored> {
        let content = Content {
            bytes: Arc::new(bytes.to_vec()),
            size: bytes.len() as u64,
        };
        self.put(path, content, attributes.mode, false, clock::now())
    }

    fn cut(
        &self,
        path: &RelativePath,
        length: u64,
        full_length: u64,
        attributes: Attributes,
    ) -> Result<Stored> {
        let captured = clock::now();
        let file = self.names().all.get(path).copied();
        let blob = file.and_then(|file| self.repository().locked().blob(&file));
        let Some(blob) = blob else {
            return Err(Error::new(Kind::Failed, "there is no such file to cut").on(path));
        };
        if length > blob.size() || length > full_length {
            return Err(Error::new(Kind::Failed, "cannot cut a file beyond its end").on(path));
        }

        let content = Content {
            bytes: Arc::new(prefix_of(&blob, length)?),
            size: full_length,
        };
        self.put(path, content, attributes.mode, false, captured)
    }

    fn remove(&self, path: &RelativePath) -> Result<()> {
        let mut files = self.names();
        files.all.remove(path);
        files.resumable.remove(path);
        Ok(())
    }

    fn commit(mut self: Box<Self>, manifest: &Proven<Manifest>) -> Result<()> {
        self.check_next(manifest.sequence)?;
        let files = self.names().all.clone();
        check_rows(&files, manifest)?;
        self.run.check()?;

        let mut text = Vec::new();
        manifest.write(&mut text).map_err(|error| {
            Error::new(Kind::Failed, "cannot write the manifest").because(error)
        })?;
        manifest.check_written(&text)?;

        if self
            .repository()
            .reach()?
            .committed(&manifest.label)
            .is_ok()
        {
            return Err(Error::new(
                Kind::Locked,
                "another run has committed a backup with this label meanwhile",
            )
            .on(&manifest.label)
            .hint("run it again"));
        }

        numbers::give(self.repository(), manifest)?;
        let mut store = self.repository().reach()?;
        let committed = Committed {
            label: manifest.label.clone(),
            manifest: text,
            files,
        };
        store.heads.insert(manifest.sequence, committed);
        store.leftovers.clear();
        store.begun.clear();
        store.collect_garbage();
        drop(store);

        self.is_committed = true;
        Ok(())
    }

    fn bytes_stored(&self) -> u64 {
        self.bytes_stored.load(Ordering::Relaxed)
    }
}

/// The files of the set are those of the manifest's rows.
fn check_rows(files: &MemoryFiles, manifest: &Manifest) -> Result<()> {
    let mut rows: Vec<(&RelativePath, u64)> = Vec::with_capacity(manifest.files.len());
    for row in &manifest.files {
        rows.push((&row.path, row.size));
    }
    rows.sort();

    let stored = files.iter().map(|(path, file)| (path, file.size));
    if stored.eq(rows) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Failed,
        "the files are not those of the manifest",
    ))
}

impl Drop for MemoryIncoming<'_> {
    /// Keeps what a later run can resume.
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        let resumable = std::mem::take(&mut self.names().resumable);
        let mut store = self.repository().locked();
        if !resumable.is_empty() {
            store.leftovers.push(resumable);
        }
        store.collect_garbage();
    }
}
