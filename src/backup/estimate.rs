//! Estimates from names and lengths what a backup will copy, and checks that it fits. The files may
//! still change until the node is quiesced.

use std::collections::HashMap;

use serde::Serialize;

use super::preflight::Preflight;
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::format::names::{DbFile, IndexFile, ScavengingFile};
use crate::manifest::{FileEntry, Manifest, RelativePath, Root, Row};
use crate::repository::Repository;

/// An estimate of what a backup would copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CopyEstimate {
    /// Files to copy.
    pub files: u64,
    /// Bytes to copy.
    pub bytes: u64,
    /// Files that the parent holds already.
    pub held: u64,
}

impl CopyEstimate {
    /// What is left without `other`. The source may have grown since this was estimated.
    pub(super) fn without(self, other: Self) -> Self {
        Self {
            files: self.files.saturating_sub(other.files),
            bytes: self.bytes.saturating_sub(other.bytes),
            held: self.held,
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.held += other.held;
    }
}

/// The estimates for all files, and for the chunks alone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CopyEstimates {
    pub(super) all: CopyEstimate,
    pub(super) chunks: CopyEstimate,
}

impl CopyEstimates {
    pub(super) fn new(preflight: &Preflight, parent: Option<&Manifest>) -> Self {
        let parent_rows = rows_by_path(parent);
        let parent_end = match parent {
            Some(parent) => parent.log.position.position(),
            None => LogPosition::ZERO,
        };
        let appended = preflight.end.get().saturating_sub(parent_end.get());

        let mut estimates = Self::default();
        for entry in &preflight.entries {
            let Some(kind) = copied_kind(entry) else {
                continue;
            };
            let parent_row = parent_rows.get(&entry.path).copied();
            let estimate = estimate_file(entry, parent_row, appended);

            estimates.all.add(estimate);
            if kind == CopiedKind::Chunk {
                estimates.chunks.add(estimate);
            }
        }
        estimates
    }
}

fn rows_by_path(parent: Option<&Manifest>) -> HashMap<&RelativePath, &Row> {
    let Some(parent) = parent else {
        return HashMap::new();
    };
    parent.files.iter().map(|row| (&row.path, row)).collect()
}

/// `appended` is how much the log has grown since the parent.
fn estimate_file(entry: &FileEntry, parent_row: Option<&Row>, appended: u64) -> CopyEstimate {
    let mut bytes = entry.size;

    if let Some(row) = parent_row {
        let is_final = match row.chunk {
            Some(chunk) => chunk.md5.is_some(),
            None => true,
        };
        if is_final && row.size == entry.size {
            return CopyEstimate {
                held: 1,
                ..CopyEstimate::default()
            };
        }
        if row.chunk.is_some() {
            bytes = bytes.min(appended);
        }
    }

    CopyEstimate {
        files: 1,
        bytes,
        held: 0,
    }
}

/// The kinds of files that the estimates tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopiedKind {
    Chunk,
    Index,
}

/// The kind of a file, by its name. Returns `None` for files that a backup does not copy.
fn copied_kind(entry: &FileEntry) -> Option<CopiedKind> {
    let name = entry.path.below_root();
    match entry.path.root() {
        Root::Db => match DbFile::of(name) {
            DbFile::Chunk(_) => Some(CopiedKind::Chunk),
            _ => None,
        },
        Root::Index => match IndexFile::of(name) {
            IndexFile::Table(_)
            | IndexFile::BloomFilter(_)
            | IndexFile::StreamFilterData
            | IndexFile::StreamFilterCheckpoint
            | IndexFile::Scavenging(ScavengingFile::Database) => Some(CopiedKind::Index),
            _ => None,
        },
    }
}

/// Refuses a backup that cannot fit.
///
/// # Errors
/// `Failed` if the repository has too little free space.
pub(super) fn check_space(
    estimate: CopyEstimate,
    preflight: &Preflight,
    repository: &dyn Repository,
) -> Result<()> {
    // If the active chunk cannot be cloned, it is stored anew.
    let needed = estimate.bytes.saturating_add(preflight.chunk_size.get());

    if let Some(free) = repository.free_space()? {
        // What an interrupted run left is resumed, or makes room.
        let left = repository.interrupted()?;
        let free = free.saturating_add(left.map_or(0, |left| left.bytes));
        if free < needed {
            return Err(not_enough_space(repository, free, needed));
        }
    }
    Ok(())
}

fn not_enough_space(repository: &dyn Repository, free: u64, needed: u64) -> Error {
    let what =
        format!("the repository has {free} bytes of free space, this backup needs about {needed}");
    Error::new(Kind::Failed, what)
        .on(repository.place())
        .hint("free space there, or choose another `--repo`")
}
