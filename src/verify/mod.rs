//! Reads stored backups again: are the bytes those that were stored, and would a server still start
//! from them? Only a repair changes a backup, and only where it leads to bytes that are wrong.

mod backup;
mod repair;

use std::fmt;

use serde::Serialize;

use self::backup::Shared;
pub use self::repair::{Lost, RepairPlan, Repaired, Replacement, plan_repair, repair};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::{Label, RelativePath};
use crate::proof::Depth;
use crate::repository::{Listed, Remembered, Repository, remember, remembered};
use crate::run::Run;

/// Which backups to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one with the highest sequence number.
    Newest,
    /// These.
    Named(Vec<Label>),
    /// Every one that is listed.
    All,
}

/// Something that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Finding {
    /// The file, where it is one file's.
    pub path: Option<RelativePath>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{path}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What was found of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupReport {
    /// Its name.
    pub label: Label,
    /// Files that were looked at.
    pub files: u64,
    /// Records of the log that were read.
    pub records: u64,
    /// Index entries that were compared with the log.
    pub entries: u64,
    /// All that is wrong; empty for an intact backup.
    pub findings: Vec<Finding>,
    /// Chunks that failed their own MD5 at the source already, and were taken all the same: no
    /// findings.
    pub damaged_at_source: Vec<RelativePath>,
}

/// What was found of all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How much was read.
    pub depth: Depth,
    /// Each backup, oldest first.
    pub backups: Vec<BackupReport>,
    /// Bytes that were hashed; a file that several backups share, once.
    pub bytes_hashed: u64,
}

impl Report {
    /// Whether nothing is wrong with any of them.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.backups.iter().all(|backup| backup.findings.is_empty())
    }
}

/// Verifies backups, and remembers the result of each in the repository.
///
/// * Quick: manifests, names, sizes, headers, footers, checkpoints, `indexmap`, the chain of
///   epochs.
/// * Normal: also the BLAKE3 of every stored file, the server's MD5s, every record of the chunk
///   that the log ends in, and the tables with their last 1 000 entries against the log.
/// * Deep: also every record of every chunk, and every entry of every table.
///
/// A file that several backups share as hard links is hashed once; memory is in proportion to the
/// number of files, never to their size.
///
/// # Errors
/// [`Kind::NotFound`] where there is no such backup; what the storage reports for more than one
/// file; an interruption. Damage is in the report.
pub fn verify(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    run: &Run,
) -> Result<Report> {
    verify_with(repository, which, depth, &mut Shared::default(), run)
}

/// What was learnt of stored files goes into `shared`.
fn verify_with(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    shared: &mut Shared,
    run: &Run,
) -> Result<Report> {
    run.emit(Event::Step(Step::Verify));
    let chosen = choose(repository, which)?;
    if chosen.is_empty() {
        run.warn(format!(
            "there is no backup in {}: nothing was verified",
            repository.place()
        ));
    }
    if depth > Depth::Quick {
        let totals = chosen
            .iter()
            .filter_map(|listed| listed.head.as_ref().ok())
            .map(|head| head.totals);
        let (files, bytes) = totals.fold((0_u64, 0_u64), |(files, bytes), totals| {
            (files + totals.files, bytes.saturating_add(totals.bytes))
        });
        run.emit(Event::Expected { files, bytes });
    }
    let mut backups = Vec::with_capacity(chosen.len());
    for Listed { label, .. } in chosen {
        run.check()?;
        // Also while the result is kept: of a backup that is removed nothing is remembered.
        let (_held, manifest) = match repository.hold(&label) {
            Ok(held) => (Some(held), repository.manifest(&label)),
            Err(error) => (None, Err(error)),
        };
        let report = match manifest {
            Ok(manifest) => backup::verify(repository, &manifest, depth, shared, run)?,
            Err(error) if error.kind() == Kind::StoredCorrupt => unreadable(label, &error),
            Err(error) if error.kind() == Kind::NotFound && *which == Which::All => {
                run.note(format!("{label} was removed meanwhile"));
                continue;
            }
            Err(error) => return Err(error),
        };
        let result = Remembered {
            at: clock::now(),
            depth,
            findings: report.findings.len() as u64,
        };
        if let Err(error) = remember(repository, &report.label, result) {
            run.warn(format!(
                "the result of the verification cannot be kept: {error}"
            ));
        } else if report.findings.is_empty()
            && remembered(repository, &report.label)?.is_some_and(|known| known.is_damaged())
        {
            run.warn(format!(
                "{} is known to be DAMAGED: an earlier look read more than this one, which found nothing and clears nothing",
                report.label
            ));
        }
        backups.push(report);
    }
    Ok(Report {
        depth,
        backups,
        bytes_hashed: shared.bytes_hashed,
    })
}

fn choose(repository: &dyn Repository, which: &Which) -> Result<Vec<Listed>> {
    let mut listed = repository.list()?;
    match which {
        Which::All => {}
        Which::Newest => {
            listed.drain(..listed.len().saturating_sub(1));
            if listed.is_empty() {
                return Err(Error::new(Kind::NotFound, "there is no backup")
                    .on(repository.place())
                    .hint("`kbackup full` makes one"));
            }
        }
        Which::Named(labels) => {
            if let Some(unknown) = labels
                .iter()
                .find(|label| listed.iter().all(|listed| listed.label != **label))
            {
                return Err(Error::new(Kind::NotFound, "there is no such backup")
                    .on(unknown)
                    .hint("`kbackup list` shows what there is"));
            }
            listed.retain(|listed| labels.contains(&listed.label));
        }
    }
    Ok(listed)
}

fn unreadable(label: Label, error: &Error) -> BackupReport {
    let findings = vec![Finding {
        path: None,
        what: error.in_words(),
    }];
    BackupReport {
        label,
        files: 0,
        records: 0,
        entries: 0,
        findings,
        damaged_at_source: Vec::new(),
    }
}
