//! Fills a backup in the making with what the target has already: files of the parent, and what an
//! interrupted run has brought.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Kind, Result};
use crate::event::Event;
use crate::format::{Md5Hash, ReadAt};
use crate::manifest::{Blake3Hash, Cost, Manifest, RelativePath, Row};
use crate::parallel;
use crate::repository::{Incoming, Ingest, ProvenCopy, Repository, Stored, remember_damage};
use crate::run::Run;

/// What fills a backup in the making.
#[derive(Clone, Copy)]
pub struct Filling<'a> {
    /// The target.
    pub to: &'a dyn Repository,
    /// The backup of the target that files may be reused from.
    pub parent: Option<&'a Manifest>,
    /// The backup in the making.
    pub incoming: &'a dyn Incoming,
    /// The run.
    pub run: &'a Run,
}

impl Filling<'_> {
    /// Reuses files of the parent. Returns those that turned out damaged there.
    ///
    /// # Errors
    /// What the storage reports; an interruption.
    pub fn reuse<'b>(&self, rows: &[&'b Row]) -> Result<Vec<&'b Row>> {
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

    /// Remembers that a file of the parent is damaged. This run reads it from the source.
    pub(super) fn mark_parent(&self, path: &RelativePath, error: &Error) {
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
    ///
    /// # Errors
    /// What the storage reports.
    pub fn left(&self) -> Result<HashSet<RelativePath>> {
        let left = self.incoming.left()?;
        Ok(left.into_iter().map(|(path, _)| path).collect())
    }

    /// Resumes what an interrupted run has brought, if it is this file.
    ///
    /// # Errors
    /// What the storage reports; an interruption.
    pub fn resume(&self, row: &Row) -> Result<Option<Stored>> {
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

    /// Keeps the proof of a stored file, so that a later run need not read it again.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn keep_proof(&self, row: &Row, stored: Stored) -> Result<()> {
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

/// What was brought of a backup.
#[derive(Debug, Default)]
pub struct Brought {
    /// The hashes of all files that were not reused.
    pub hashes: HashMap<RelativePath, Blake3Hash>,
    /// The cost, without the bytes that were stored.
    pub cost: Cost,
}

impl Brought {
    /// Adds a file that was read from the source.
    pub fn add_copied(&mut self, row: &Row, stored: Stored, bytes_read: u64) {
        self.hashes.insert(row.path.clone(), stored.blake3);
        self.cost.files_copied += 1;
        self.cost.bytes_read = self.cost.bytes_read.saturating_add(bytes_read);
    }

    /// Adds a file that an interrupted run had brought.
    pub fn add_resumed(&mut self, row: &Row, stored: Stored) {
        self.hashes.insert(row.path.clone(), stored.blake3);
        self.cost.files_resumed += 1;
        self.cost.bytes_resumed = self.cost.bytes_resumed.saturating_add(row.size);
    }
}

/// The MD5 that the server wrote into the file.
fn servers_md5(row: &Row) -> Option<Md5Hash> {
    row.table_md5.or(row.chunk.and_then(|chunk| chunk.md5))
}

/// Whether a stored file has the bytes of its row.
#[must_use]
pub fn is_as_described(row: &Row, stored: Stored) -> bool {
    stored.blake3 == row.blake3 && stored.size == row.size
}

/// A whole file, with what its row gives it.
#[must_use]
pub fn ingest<'a>(row: &Row, source: &'a dyn ReadAt, place: &str) -> Ingest<'a> {
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
