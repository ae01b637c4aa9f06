//! `kbackup list`: what a repository holds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::repository;
use crate::clock::Timestamp;
use crate::error::{Kind, Result};
use crate::manifest::{BackupKind, Fork, Head, Label, forks};
use crate::repository::{Interrupted, Listed, Remembered, Repository, remembered};
use crate::run::Run;
use crate::settings::options::GeneralOptions;

/// Everything that a repository holds; `kbackup.list/1` of `docs/json.md`.
#[derive(Serialize)]
pub(crate) struct Listing {
    /// Where the repository is.
    pub(crate) repository: String,
    /// The backups, oldest first.
    pub(crate) backups: Vec<ListedBackup>,
    /// What an interrupted backup left, which the next one can resume.
    pub(crate) interrupted: Option<Interrupted>,
}

/// One backup of a listing.
#[derive(Serialize)]
pub(crate) struct ListedBackup {
    /// The backup's label.
    pub(crate) label: Label,
    /// What its manifest says.
    #[serde(flatten)]
    pub(crate) contents: ListedContents,
    /// The result of the last verification.
    pub(crate) verified: Option<Remembered>,
}

/// What the manifest of a listed backup says.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ListedContents {
    /// The manifest can be read.
    Readable(Box<ListedFacts>),
    /// The manifest cannot be read.
    Unreadable {
        /// Why it cannot be read.
        error: String,
        /// The kind of that error.
        #[serde(skip)]
        kind: Kind,
        /// What the operator can do.
        #[serde(skip)]
        hints: Vec<String>,
    },
}

/// The facts of a manifest that a listing shows.
#[derive(Serialize)]
pub(crate) struct ListedFacts {
    /// Full or diff.
    pub(crate) kind: BackupKind,
    /// The sequence number.
    pub(crate) sequence: u64,
    /// The number of its branch.
    pub(crate) branch: u32,
    /// Where its branch parts from another one.
    pub(crate) forked_from: Option<Fork>,
    /// The backup whose files it reused.
    pub(crate) parent: Option<Label>,
    /// When the backup was finished.
    pub(crate) finished: Timestamp,
    /// The last consistent position, in bytes of log.
    pub(crate) position: u64,
    /// Bytes that a restore writes.
    pub(crate) bytes: u64,
    /// Bytes that the backup added to the repository.
    pub(crate) bytes_stored: u64,
    /// The backup holds chunks that were damaged at the source.
    pub(crate) damaged: bool,
    /// The backup holds the index.
    pub(crate) index: bool,
}

/// Lists the backups of the repository at `path`.
///
/// # Errors
/// If the repository cannot be opened or listed. A manifest that cannot be read is part of the
/// listing.
pub(crate) fn list(path: &Path, general: &GeneralOptions, run: &Run) -> Result<Listing> {
    let repository = repository::open(path, general, run)?;
    let listed = repository.list()?;

    let readable: Vec<&Head> = listed
        .iter()
        .filter_map(|backup| backup.head.as_ref().ok())
        .collect();
    let forks = forks(&readable);

    let mut backups = Vec::with_capacity(listed.len());
    for backup in listed {
        backups.push(describe(&*repository, backup, &forks)?);
    }
    Ok(Listing {
        repository: repository.place(),
        backups,
        interrupted: repository.interrupted()?,
    })
}

impl Listing {
    /// Why a manifest cannot be read, if one cannot. Damage is worse than everything else.
    #[must_use]
    pub(crate) fn worst(&self) -> Option<Kind> {
        let mut worst = None;
        for backup in &self.backups {
            match backup.contents {
                ListedContents::Unreadable { kind, .. } if kind == Kind::StoredCorrupt => {
                    return Some(kind);
                }
                ListedContents::Unreadable { kind, .. } => worst = worst.or(Some(kind)),
                ListedContents::Readable(_) => {}
            }
        }
        worst
    }
}

fn describe(
    repository: &dyn Repository,
    backup: Listed,
    forks: &BTreeMap<u32, Fork>,
) -> Result<ListedBackup> {
    let verified = remembered(repository, &backup.label)?;
    let contents = match backup.head {
        Ok(head) => ListedContents::Readable(Box::new(facts(&head, forks.get(&head.branch)))),
        Err(error) => ListedContents::Unreadable {
            kind: error.kind(),
            hints: error.hints().to_vec(),
            error: error.to_string(),
        },
    };
    Ok(ListedBackup {
        label: backup.label,
        contents,
        verified,
    })
}

fn facts(head: &Head, fork: Option<&Fork>) -> ListedFacts {
    ListedFacts {
        kind: head.kind,
        sequence: head.sequence,
        branch: head.branch,
        forked_from: fork.cloned(),
        parent: head.parent.clone(),
        finished: head.finished,
        position: head.log.position.position().get(),
        bytes: head.totals.bytes,
        bytes_stored: head.cost.bytes_new(),
        damaged: !head.is_sound(),
        index: head.contents.index,
    }
}
