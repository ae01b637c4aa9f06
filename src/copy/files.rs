//! Brings the files of one backup into the target: reuses what the parent there has, resumes what an
//! interrupted run has copied, and reads the rest from the source repository.
//!
//! Every file that is not reused has to hash to its row before the backup is committed.

use std::collections::{HashMap, HashSet};

use super::filling::{Brought, Filling, ingest, is_as_described};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::chunk::{HEADER_LENGTH, Transform};
use crate::log::LogEndingAt;
use crate::manifest::{FileSet, Manifest, RelativePath, Role, Row};
use crate::parallel;
use crate::repository::{Ingest, Repository, Stored};
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

/// What brings the files of one backup.
pub(super) struct Bringing<'a> {
    pub(super) from: &'a dyn Repository,
    pub(super) original: &'a Manifest,
    /// The files of the original.
    pub(super) files: &'a dyn FileSet,
    pub(super) filling: Filling<'a>,
}

/// One file that was brought, and not reused.
enum BroughtFile {
    Resumed(Stored),
    /// Also says how many bytes were read from the source repository.
    Copied(Stored, u64),
}

impl Bringing<'_> {
    /// Brings all files.
    ///
    /// # Errors
    /// `StoredCorrupt` if a file of the source repository is damaged; what the storage reports; an
    /// interruption.
    pub(super) fn bring(&self) -> Result<Brought> {
        let FilesToBring { reused, mut copied } =
            FilesToBring::of(self.original, self.filling.parent);
        let mut brought = Brought::default();

        let lost = self.filling.reuse(&reused)?;
        brought.cost.files_linked = (reused.len() - lost.len()) as u64;
        for row in lost {
            let beginning = None;
            copied.push(FileToCopy { row, beginning });
        }

        self.announce(&copied);
        let left = self.filling.left()?;
        let result = parallel::for_each(
            files_at_once(self.filling.run),
            &copied,
            |file| {
                self.filling.run.check()?;
                self.bring_one(file, &left)
            },
            |file, done| match done {
                BroughtFile::Resumed(stored) => brought.add_resumed(file.row, stored),
                BroughtFile::Copied(stored, bytes_read) => {
                    brought.add_copied(file.row, stored, bytes_read);
                }
            },
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
        self.filling.run.emit(Event::Step(Step::Copy));
        self.filling.run.emit(Event::Expected {
            files: copied.len() as u64,
            bytes,
        });
    }

    fn bring_one(
        &self,
        file: &FileToCopy<'_>,
        left: &HashSet<RelativePath>,
    ) -> Result<BroughtFile> {
        if left.contains(&file.row.path)
            && let Some(stored) = self.filling.resume(file.row)?
        {
            return Ok(BroughtFile::Resumed(stored));
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
        self.filling.keep_proof(file.row, stored)?;
        self.filling.run.emit(Event::Copied {
            path: file.row.path.to_string(),
            bytes: bytes_read,
        });
        Ok(BroughtFile::Copied(stored, bytes_read))
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

        match self
            .filling
            .incoming
            .extend(&row.path, held, *bytes, ingest)
        {
            Ok(stored) if is_as_described(row, stored) => Ok(Some(stored)),
            // The whole file from the source repository decides who is right.
            Ok(_) => Ok(None),
            Err(error) if error.kind() == Kind::StoredCorrupt => {
                self.filling.mark_parent(&row.path, &error);
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
            .filling
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
                .filling
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
