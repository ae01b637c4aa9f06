//! The verification of the chosen backups, one after the other.

use std::sync::Arc;

use super::backup;
use super::known_files::KnownFiles;
use super::pass::VerifyPass;
use super::report::{VerifiedBackup, VerifyFinding, VerifyReport};
use super::which::Which;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::Label;
use crate::proof::Depth;
use crate::repository::{Listed, Remembered, Repository, remember, remembered};
use crate::run::Run;

/// Verifies backups, and remembers the result of each in the repository.
///
/// * Quick: manifests, names, sizes, headers, footers, checkpoints, `indexmap`, the chain of
///   epochs.
/// * Normal: also the BLAKE3 of every stored file, the server's MD5s, every record of the chunk
///   that the log ends in, and the tables with their last 1 000 entries against the log.
/// * Deep: also every record of every chunk, and every entry of every table.
///
/// A stored copy that backups share is hashed once. Memory grows with the number of files, never
/// with their size.
///
/// # Errors
/// [`Kind::NotFound`] if there is no such backup. Damage is no error: it is in the report.
pub fn verify(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    run: &Run,
) -> Result<VerifyReport> {
    let report = verify_with(repository, which, depth, &KnownFiles::default(), run)?;
    report.warn_of_twins(run);
    Ok(report)
}

/// As [`verify`]. Continues where an interrupted run of the same verification has stopped. Backups
/// that such a run found intact are not in the report.
///
/// # Errors
/// As [`verify`].
pub fn continue_verification(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    pass: VerifyPass,
    run: &Run,
) -> Result<VerifyReport> {
    let known = KnownFiles::of_pass(Arc::new(pass));
    let report = verify_with(repository, which, depth, &known, run)?;
    report.warn_of_twins(run);
    // If a backup could not be read, the next run tries again, and reads only what is left.
    if report.has_read_all() {
        known.pass().end();
    }
    Ok(report)
}

/// As [`verify`]. Keeps the hashes of stored files in `known`.
pub(super) fn verify_with(
    repository: &dyn Repository,
    which: &Which,
    depth: Depth,
    known: &KnownFiles,
    run: &Run,
) -> Result<VerifyReport> {
    run.emit(Event::Step(Step::Verify));
    let chosen = choose(repository, which)?;
    if chosen.is_empty() {
        run.warn(format!(
            "there is no backup in {}: nothing was verified",
            repository.place()
        ));
    }
    if depth > Depth::Quick {
        run.emit(expected(&chosen));
    }

    let mut backups = Vec::with_capacity(chosen.len());
    for Listed { label, .. } in chosen {
        run.check()?;
        if known.pass().is_intact(&label) {
            continue;
        }
        // The backup is held until its result is kept, so that no result outlives its backup.
        let (_held, manifest) = match repository.hold(&label) {
            Ok(held) => (Some(held), repository.manifest(&label)),
            Err(error) => (None, Err(error)),
        };
        let verified = match manifest {
            Ok(manifest) => backup::verify(repository, &manifest, depth, known, run),
            Err(error) if error.kind() == Kind::StoredCorrupt => Ok(damaged(label.clone(), &error)),
            Err(error) if error.kind() == Kind::NotFound && *which == Which::All => {
                run.note(format!("{label} was removed meanwhile"));
                continue;
            }
            Err(error) => Err(error),
        };

        match verified {
            Ok(report) => {
                keep_result(repository, &report, depth, run);
                // A run that was interrupted may still have to separate its twins.
                if report.findings.is_empty() && report.twins.is_empty() {
                    known.pass().note_intact(&report.label);
                }
                backups.push(report);
            }
            // Nobody knows whether this one is intact, but the others can still be verified.
            Err(error) if can_go_on(which, &error) => {
                backups.push(VerifiedBackup::unread(label, &error));
            }
            Err(error) => return Err(error),
        }
    }

    Ok(VerifyReport {
        depth,
        backups,
        bytes_hashed: known.bytes_hashed(),
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
            for label in labels {
                if listed.iter().all(|listed| listed.label != *label) {
                    return Err(not_listed(label));
                }
            }
            listed.retain(|listed| labels.contains(&listed.label));
        }
    }
    Ok(listed)
}

fn not_listed(label: &Label) -> Error {
    Error::new(Kind::NotFound, "there is no such backup")
        .on(label)
        .hint("`kbackup list` shows what there is")
}

/// How much the verification will read, by the manifests.
fn expected(chosen: &[Listed]) -> Event {
    let (mut files, mut bytes) = (0, 0_u64);
    for listed in chosen {
        if let Ok(head) = &listed.head {
            files += head.totals.files;
            bytes = bytes.saturating_add(head.totals.bytes);
        }
    }
    Event::Expected { files, bytes }
}

/// Whether the verification goes on with the next backup after an error that is no damage.
fn can_go_on(which: &Which, error: &Error) -> bool {
    let is_end = matches!(error.kind(), Kind::Interrupted(_) | Kind::NotFound);
    *which != Which::Newest && !is_end
}

/// Remembers the result for a backup. If that fails, the run only warns.
fn keep_result(repository: &dyn Repository, report: &VerifiedBackup, depth: Depth, run: &Run) {
    let label = &report.label;
    let result = Remembered {
        at: clock::now(),
        depth,
        findings: report.findings.len() as u64,
    };
    let kept = remember(repository, label, result).and_then(|()| remembered(repository, label));
    let known = match kept {
        Ok(known) => known,
        Err(error) => {
            run.warn(format!(
                "the result of the verification cannot be kept: {}",
                error.in_words()
            ));
            return;
        }
    };

    if report.findings.is_empty() && known.is_some_and(|known| known.is_damaged()) {
        run.warn(format!(
            "{label} is known to be DAMAGED: this verification found nothing, but an earlier one \
             that read more found damage, so the mark stays"
        ));
    }
}

/// The report of a backup whose manifest is damaged.
fn damaged(label: Label, error: &Error) -> VerifiedBackup {
    let findings = vec![VerifyFinding {
        path: None,
        what: error.in_words(),
    }];
    VerifiedBackup {
        findings,
        ..VerifiedBackup::nothing_read(label)
    }
}
