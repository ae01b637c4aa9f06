//! Brings the files of one backup into the target: reuses what the parent there has, resumes what an
//! interrupted run has copied, and reads the rest from the source repository.
//!
//! Every file that is not reused has to hash to its row before the backup is committed.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::chunk::{HEADER_LENGTH, Transform};
use crate::format::{Md5Hash, ReadAt};
use crate::log::LogEndingAt;
use crate::manifest::{Blake3Hash, Cost, FileSet, Manifest, RelativePath, Role, Row};
use crate::parallel;
use crate::repository::{Incoming, Ingest, ProvenCopy, Repository, Stored, remember_damage};
use crate::run::Run;
use crate::transfer::files_at_once;

/// The files of a backup, as a parent divides them.
pub(super) struct FilesToBring<'a> {
    /// Rows of the backup that the parent has, too.
    pub(super) reused: Vec<&'a Row>,
    /// The other rows. Those with a beginning that the parent's file may have, too, carry it.
    pub(super) copied: Vec<FileToCopy<'a>>,
}

/// A file that is not in the parent.
pub(super) struct FileToCopy<'a> {
    pub(super) row: &'a Row,
    /// The parent's file that may begin with the same bytes.
    beginning: Option<Beginning>,
}

/// The first bytes of a parent's file.
struct Beginning {
    held: Row,
    bytes: u64,
}

impl<'a> FilesToBring<'a> {
    pub(super) fn of(backup: &'a Manifest, parent: Option<&Manifest>) -> Self {
        let mut parent_rows: HashMap<&RelativePath, &Row> = HashMap::new();
        if let Some(parent) = parent {
            parent_rows.extend(parent.files.iter().map(|row| (&row.path, row)));
        }

        let mut files = Self {
            reused: Vec::new(),
            copied: Vec::new(),
        };
        for row in &backup.files {
            let held = parent_rows.get(&row.path).copied();
            if held.is_some_and(|held| is_same_file(held, row)) {
                files.reused.push(row);
                continue;
            }
            let beginning = match (parent, held) {
                (Some(parent), Some(held)) => Beginning::of(parent, held, row),
                _ => None,
            };
            files.copied.push(FileToCopy { row, beginning });
        }
        files
    }

    /// Bytes to read from the source repository.
    pub(super) fn bytes_to_read(&self, backup: &Manifest) -> u64 {
        let log = LogEndingAt::of(&backup.log);
        let mut bytes: u64 = 0;
        for file in &self.copied {
            bytes = bytes.saturating_add(file.bytes_to_read(&log));
        }
        bytes
    }

    /// Bytes to write to the target, at most: a beginning may be shared.
    pub(super) fn bytes_to_write(&self, backup: &Manifest) -> u64 {
        let log = LogEndingAt::of(&backup.log);
        let mut bytes: u64 = 0;
        for file in &self.copied {
            bytes = bytes.saturating_add(in_blocks(data_bytes(file.row, &log)));
        }
        bytes
    }
}

/// Bytes that a file of so many bytes takes on a disk.
fn in_blocks(bytes: u64) -> u64 {
    const BLOCK: u64 = 4096;
    bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

impl FileToCopy<'_> {
    fn bytes_to_read(&self, log: &LogEndingAt) -> u64 {
        let known = self.beginning.as_ref().map_or(0, |known| known.bytes);
        data_bytes(self.row, log).saturating_sub(known)
    }
}

impl Beginning {
    /// The log that the parent's active chunk holds, if the same chunk file was continued. Only the
    /// hash of the whole file proves that it begins the same way.
    fn of(parent: &Manifest, held: &Row, row: &Row) -> Option<Self> {
        let (old, new) = (held.chunk?, row.chunk?);
        let log = LogEndingAt::of(&parent.log);
        let is_continued = old.id == new.id && old.md5.is_none() && log.is_active(&old);
        if !is_continued || old.transform != Transform::Identity {
            return None;
        }

        let bytes = log.active_bytes();
        let is_worth_it = bytes > HEADER_LENGTH && bytes <= held.size && bytes <= row.size;
        is_worth_it.then(|| Self {
            held: held.clone(),
            bytes,
        })
    }
}

/// The bytes of a file that are not the hole at its end.
fn data_bytes(row: &Row, log: &LogEndingAt) -> u64 {
    match row.chunk {
        Some(chunk) if log.is_active(&chunk) && chunk.transform == Transform::Identity => {
            row.size.min(log.active_bytes())
        }
        _ => row.size,
    }
}

/// Whether a file of the parent is the file of a row: the bytes, and what a restore gives it. A
/// backup never reuses a checkpoint, which is a few bytes, so a copy does not do it either.
fn is_same_file(held: &Row, row: &Row) -> bool {
    row.role != Role::Checkpoint
        && held.size == row.size
        && held.blake3 == row.blake3
        && held.mode == row.mode
        && held.modified == row.modified
}

/// The MD5 that the server wrote into the file.
fn servers_md5(row: &Row) -> Option<Md5Hash> {
    row.table_md5.or(row.chunk.and_then(|chunk| chunk.md5))
}

/// What brings the files of one backup.
pub(super) struct Bringing<'a> {
    pub(super) from: &'a dyn Repository,
    pub(super) to: &'a dyn Repository,
    pub(super) original: &'a Manifest,
    /// The files of the original.
    pub(super) files: &'a dyn FileSet,
    pub(super) parent: Option<&'a Manifest>,
    pub(super) incoming: &'a dyn Incoming,
    pub(super) run: &'a Run,
}

/// What was brought.
#[derive(Default)]
pub(super) struct Brought {
    /// The hashes of all files that were not reused.
    pub(super) hashes: HashMap<RelativePath, Blake3Hash>,
    /// The cost, without the bytes that were stored.
    pub(super) cost: Cost,
}

/// One file that was brought, and not reused.
struct BroughtFile {
    stored: Stored,
    bytes_read: u64,
    is_resumed: bool,
}

impl Bringing<'_> {
    /// Brings all files.
    ///
    /// # Errors
    /// `StoredCorrupt` if a file of the source repository is damaged; what the storage reports; an
    /// interruption.
    pub(super) fn bring(&self) -> Result<Brought> {
        let FilesToBring { reused, mut copied } = FilesToBring::of(self.original, self.parent);
        let mut brought = Brought::default();
        brought.cost.retries = self.original.cost.retries;

        let lost = self.reuse(&reused)?;
        brought.cost.files_linked = (reused.len() - lost.len()) as u64;
        for row in lost {
            let beginning = None;
            copied.push(FileToCopy { row, beginning });
        }

        self.announce(&copied);
        let left = self.left()?;
        let result = parallel::for_each(
            files_at_once(self.run),
            &copied,
            |file| {
                self.run.check()?;
                self.bring_one(file, &left)
            },
            |file, done| brought.add(file.row, &done),
        );
        result?;
        Ok(brought)
    }

    fn announce(&self, copied: &[FileToCopy<'_>]) {
        let log = LogEndingAt::of(&self.original.log);
        let mut bytes: u64 = 0;
        for file in copied {
            bytes = bytes.saturating_add(data_bytes(file.row, &log));
        }
        self.run.emit(Event::Step(Step::Copy));
        self.run.emit(Event::Expected {
            files: copied.len() as u64,
            bytes,
        });
    }

    /// Reuses files of the parent. Returns those that turned out damaged there.
    fn reuse<'b>(&self, rows: &[&'b Row]) -> Result<Vec<&'b Row>> {
        let mut lost = Vec::new();
        for rows in rows.chunks(parallel::AT_ONCE) {
            self.run.check()?;
            let results = self.incoming.reuse(rows, &|_, _| ());
            for (row, result) in rows.iter().zip(results) {
                match result {
                    Ok(()) => self.run.emit(Event::Reused {
                        path: row.path.to_string(),
                    }),
                    Err(error) if error.kind() == Kind::StoredCorrupt => {
                        self.mark_parent(&row.path, &error);
                        lost.push(*row);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(lost)
    }

    /// Remembers that a file of the parent is damaged. This run reads it from the source repository.
    fn mark_parent(&self, path: &RelativePath, error: &Error) {
        let Some(parent) = self.parent else {
            return;
        };
        self.run.warn(format!(
            "{path} of {} is damaged in the target ({}): this copy reads it from the source",
            parent.label,
            error.in_words()
        ));
        if let Err(error) = remember_damage(self.to, &parent.label) {
            self.run.note(format!(
                "kbackup cannot remember that: {}",
                error.in_words()
            ));
        }
    }

    /// The paths that interrupted runs left.
    fn left(&self) -> Result<HashSet<RelativePath>> {
        let left = self.incoming.left()?;
        Ok(left.into_iter().map(|(path, _)| path).collect())
    }

    fn bring_one(
        &self,
        file: &FileToCopy<'_>,
        left: &HashSet<RelativePath>,
    ) -> Result<BroughtFile> {
        if left.contains(&file.row.path)
            && let Some(stored) = self.resume(file.row)?
        {
            return Ok(BroughtFile {
                stored,
                bytes_read: 0,
                is_resumed: true,
            });
        }

        let log = LogEndingAt::of(&self.original.log);
        let (stored, bytes_read) = match self.extend(file)? {
            Some(stored) => (stored, file.bytes_to_read(&log)),
            None => {
                let stored = self.read(file.row)?;
                let bytes_read = data_bytes(file.row, &log).saturating_sub(stored.begun);
                (stored, bytes_read)
            }
        };
        self.keep_proof(file.row, stored)?;
        self.run.emit(Event::Copied {
            path: file.row.path.to_string(),
            bytes: bytes_read,
        });
        Ok(BroughtFile {
            stored,
            bytes_read,
            is_resumed: false,
        })
    }

    /// Resumes what an interrupted run has copied, if it is this file.
    fn resume(&self, row: &Row) -> Result<Option<Stored>> {
        let Some(md5) = servers_md5(row) else {
            return Ok(None);
        };
        let Some(resumed) = self.incoming.resume(&row.path, row.size, md5, None)? else {
            return Ok(None);
        };
        if !is_as_described(row, resumed.stored) {
            return Ok(None);
        }

        self.keep_proof(row, resumed.stored)?;
        self.run.emit(Event::Resumed {
            path: row.path.to_string(),
            bytes: row.size,
        });
        Ok(Some(resumed.stored))
    }

    /// Makes a file of the parent's beginning and the rest of the source's. Returns `None` if the
    /// parent's file is no such beginning.
    fn extend(&self, file: &FileToCopy<'_>) -> Result<Option<Stored>> {
        let Some(Beginning { held, bytes }) = &file.beginning else {
            return Ok(None);
        };
        let row = file.row;
        let source = self.from.open(&self.original.label, row)?;
        let place = self.files.place_of(&row.path);
        let ingest = ingest(row, &*source, &place);

        match self.incoming.extend(&row.path, held, *bytes, ingest) {
            Ok(stored) if is_as_described(row, stored) => Ok(Some(stored)),
            // The whole file from the source repository decides who is right.
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                self.mark_parent(&row.path, &error);
                Ok(None)
            }
            Err(error) => Err(blame_source(error, &place)),
        }
    }

    /// Reads a file from the source repository, and proves it by its row.
    fn read(&self, row: &Row) -> Result<Stored> {
        let source = self.from.open(&self.original.label, row)?;
        let place = self.files.place_of(&row.path);

        let mut stored = self
            .incoming
            .ingest(&row.path, ingest(row, &*source, &place))
            .map_err(|error| blame_source(error, &place))?;
        if stored.begun > 0 && !is_as_described(row, stored) {
            // What an interrupted run has begun may be wrong, and the source right.
            let again = Ingest {
                reads_every_byte: true,
                ..ingest(row, &*source, &place)
            };
            stored = self
                .incoming
                .ingest(&row.path, again)
                .map_err(|error| blame_source(error, &place))?;
        }
        if is_as_described(row, stored) {
            return Ok(stored);
        }
        let why = format!(
            "its bytes hash to {}, its row says {}",
            stored.blake3, row.blake3
        );
        Err(damaged(&place).because(why))
    }

    /// Keeps the proof of a stored file, so that a later run need not read it again.
    fn keep_proof(&self, row: &Row, stored: Stored) -> Result<()> {
        let Some(md5) = servers_md5(row) else {
            return Ok(());
        };
        // The operator may have accepted a chunk that fails the server's MD5.
        if stored.md5 != Some(md5) {
            return Ok(());
        }
        let proof = ProvenCopy {
            size: stored.size,
            blake3: stored.blake3,
            md5,
            records: None,
        };
        self.incoming.keep_proof(&row.path, proof)
    }
}

impl Brought {
    fn add(&mut self, row: &Row, file: &BroughtFile) {
        self.hashes.insert(row.path.clone(), file.stored.blake3);
        if file.is_resumed {
            self.cost.files_resumed += 1;
            self.cost.bytes_resumed = self.cost.bytes_resumed.saturating_add(row.size);
        } else {
            self.cost.files_copied += 1;
            self.cost.bytes_read = self.cost.bytes_read.saturating_add(file.bytes_read);
        }
    }
}

fn ingest<'a>(row: &Row, source: &'a dyn ReadAt, place: &str) -> Ingest<'a> {
    Ingest {
        source,
        place: place.to_owned(),
        length: row.size,
        full_length: row.size,
        md5: servers_md5(row),
        // The row's hash shows whether the copy is right.
        reads_every_byte: false,
        attributes: row.into(),
        follow: None,
    }
}

fn is_as_described(row: &Row, stored: Stored) -> bool {
    stored.blake3 == row.blake3 && stored.size == row.size
}

/// A source that ends too early or changes is not a live file here, but a damaged one.
fn blame_source(error: Error, place: &str) -> Error {
    match error.kind() {
        Kind::Unstable => damaged(place).because(error.in_words()),
        Kind::StoredCorrupt => with_hints(error),
        _ => error,
    }
}

fn damaged(place: &str) -> Error {
    with_hints(Error::new(Kind::StoredCorrupt, "a stored file is damaged").on(place))
}

fn with_hints(error: Error) -> Error {
    error
        .hint("nothing of this backup is listed in the target")
        .hint("`kbackup verify --repair` on the source repository repairs it from another copy")
        .hint("to copy the other backups, name them")
}
