//! The plan of a restore: what kbackup will restore, to where, and what the operator has to know.
//! Planning writes nothing.

use std::fmt;

use bytesize::ByteSize;
use serde::Serialize;
use uuid::Uuid;

use super::choose::{ChosenBackup, OtherBranch, choose};
use super::closing::ClosingNotes;
use super::manifest_check::check_manifest;
use super::outcome::{DirectoryOutcome, SecondaryIndexOutcome, Truncation};
use super::request::{AcceptedRisks, RestoreRequest};
use super::target::{BackupToRestore, PlannedTarget, check_space, plan_targets};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::format::Boundary;
use crate::format::ptable::{self, TableVersion};
use crate::manifest::{Head, Manifest, Role};
use crate::repository::Repository;
use crate::run::Run;
use crate::server::ServerVersion;
use crate::server::facts::REFUSES_OLD_TABLES;

/// Everything that a restore will do.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// The repository's path or URL.
    pub repository: String,
    /// The repository's id.
    pub repository_id: Uuid,
    /// The backup.
    pub backup: ChosenBackup,
    /// The newest backups of other branches, if the operator named no backup: `latest` is the
    /// newest of all, whatever its branch.
    pub other_branches: Vec<OtherBranch>,
    /// The position where the log ends.
    pub position: Boundary,
    /// Files to place in each target.
    pub files: u64,
    /// Bytes of those files, holes included.
    pub bytes: u64,
    /// What becomes of `truncate.chk`.
    pub truncation: Truncation,
    /// Each target, in the order of the request.
    pub targets: Vec<PlannedTarget>,
    /// What the operator has to know afterwards.
    pub closing: ClosingNotes,
    /// What the operator should know before.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub(super) accept: AcceptedRisks,
    #[serde(skip)]
    pub(super) outcome: DirectoryOutcome,
}

impl RestorePlan {
    pub(super) fn backup_to_restore(&self) -> BackupToRestore<'_> {
        BackupToRestore {
            repository: self.repository_id,
            label: &self.backup.label,
            outcome: &self.outcome,
        }
    }
}

/// Plans a restore: chooses the backup, looks at every target, and refuses whatever could destroy
/// data or would not start. Writes nothing.
///
/// # Errors
/// * [`Kind::NotFound`] and [`Kind::StoredCorrupt`] if the backup is missing or damaged. If the
///   operator names none and the *newest* backup is damaged or unreadable, no earlier one is chosen
///   silently.
/// * [`Kind::Refused`] for every danger, with what to do about it.
pub fn plan(
    repository: &dyn Repository,
    request: &RestoreRequest,
    run: &Run,
) -> Result<RestorePlan> {
    run.emit(Event::Step(Step::Preflight));

    let choice = choose(repository, request.label.as_ref())?;
    let manifest = choice.manifest;
    check_manifest(&manifest)?;
    let server = server_to_start(request, &manifest)?;
    refuse_missing_archive(request, &manifest)?;

    let has_old_tables = has_old_tables(repository, &manifest, server.as_ref())?;
    let outcome = DirectoryOutcome::new(&manifest, request.ready, server.as_ref(), has_old_tables);
    let backup = BackupToRestore {
        repository: repository.id(),
        label: &manifest.label,
        outcome: &outcome,
    };
    let place = repository.place();
    let owner = manifest.source.owner.as_ref();
    let planned = plan_targets(request, &place, owner, backup, run)?;
    check_space(&outcome, &planned.targets)?;

    let mut warnings = choice.warnings;
    warn_of_backup(&manifest.head, &mut warnings);
    warn_of_outcome(&outcome, &mut warnings);
    warnings.extend(planned.warnings);
    for other in &choice.other_branches {
        run.note(format!(
            "the newest backup is of branch {}; {other}",
            manifest.branch
        ));
    }

    Ok(RestorePlan {
        repository: place,
        repository_id: repository.id(),
        backup: ChosenBackup::new(&manifest.head),
        other_branches: choice.other_branches,
        position: manifest.log.position,
        files: outcome.files.len() as u64,
        bytes: outcome.bytes(),
        truncation: outcome.truncation.clone(),
        targets: planned.targets,
        closing: ClosingNotes::new(&manifest.head, &outcome),
        warnings,
        accept: request.accept,
        outcome,
    })
}

/// The version of the server that will be started, or else of the one that was backed up.
fn server_to_start(request: &RestoreRequest, head: &Head) -> Result<Option<ServerVersion>> {
    let source = match &head.source.server_version {
        Some(text) => ServerVersion::parse(text),
        None => None,
    };
    let Some(text) = &request.server_version else {
        return Ok(source);
    };

    let Some(wanted) = ServerVersion::parse(text) else {
        return Err(Error::new(Kind::Usage, "this is not a server version")
            .on(text)
            .hint("write it like `26.1.0`"));
    };
    if let Some(source) = &source
        && wanted.is_older_release_than(source)
        && !request.accept.older_server
    {
        let what = format!(
            "a server of version {wanted} is older than the one that was backed up, {source}"
        );
        return Err(Error::new(Kind::Refused, what)
            .on(&head.label)
            .hint(format!("start a server of version {source} or later there"))
            .hint("`--older-server` restores nevertheless; the server may not start"));
    }
    Ok(Some(wanted))
}

/// Whether the server refuses an index table of the backup because of its age. Reads a few bytes of
/// each table, and only if the server refuses any.
fn has_old_tables(
    repository: &dyn Repository,
    manifest: &Manifest,
    server: Option<&ServerVersion>,
) -> Result<bool> {
    if !server.is_some_and(|server| server.has(REFUSES_OLD_TABLES)) {
        return Ok(false);
    }

    for row in &manifest.files {
        if row.role != Role::Table {
            continue;
        }
        let source = repository.open(&manifest.label, row)?;
        // The restore itself reports a damaged table.
        if let Ok(layout) = ptable::inspect(&*source)
            && layout.version == TableVersion::V1
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn refuse_missing_archive(request: &RestoreRequest, head: &Head) -> Result<()> {
    if !head.contents.archive || request.accept.archive {
        return Ok(());
    }

    let what = "the backup lacks chunks that lie in an archive, and a server needs that archive to \
                start";
    Err(Error::new(Kind::Refused, what).on(&head.label).hint(
        "`--archived` restores it nevertheless; keep the archive as it is, and configure the \
         server with it",
    ))
}

fn warn_of_backup(head: &Head, warnings: &mut Vec<String>) {
    if let Some(missing) = head.source.missing_bytes
        && missing > 0
    {
        warnings.push(format!(
            "the backup lacks the last {missing} bytes of log that the leader had when it was taken"
        ));
    }

    for path in &head.contents.damaged {
        warnings.push(format!(
            "`{path}` was damaged when it was backed up; the server stops when it finds that out \
             (O17)"
        ));
    }
}

fn warn_of_outcome(outcome: &DirectoryOutcome, warnings: &mut Vec<String>) {
    if outcome.secondary_index == SecondaryIndexOutcome::MayBeAhead {
        warnings.push(
            "the restore leaves `kurrent.ddb` out, because it may be ahead of the log (O35)"
                .to_owned(),
        );
    }

    if let Truncation::Scavenged { chunk } = &outcome.truncation {
        warnings.push(format!(
            "the restore leaves `truncate.chk` at -1, as with `--ready`: `{chunk}` is scavenged, \
             and a truncation there would lose events (O33)"
        ));
    }
}

impl fmt::Display for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backup = &self.backup;
        writeln!(
            f,
            "backup: {} ({}, finished {}) in {}",
            backup.label, backup.kind, backup.finished, self.repository
        )?;
        writeln!(f, "branch: {}", backup.branch)?;
        for other in &self.other_branches {
            writeln!(f, "  {other}")?;
        }
        writeln!(f, "position: {}", self.position)?;
        writeln!(f, "files: {}, {}", self.files, ByteSize(self.bytes))?;

        for target in &self.targets {
            write!(f, "{target}")?;
        }
        write!(f, "{}", self.closing)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
