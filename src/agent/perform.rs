//! Does the work of one job: runs its verb as the command line would.

use uuid::Uuid;

use super::configuration::Configuration;
use super::run_record::JobOrder;
use crate::backup::BackupSummary;
use crate::error::{Error, Kind, Result};
use crate::manifest::{BackupKind, Label};
use crate::run::Run;
use crate::settings::options::{
    BackupOptions, ExpireOptions, GeneralOptions, PruneOptions, ScavengeManner, Verb, VerifyOptions,
};
use crate::verbs;

/// What a job that succeeded did.
#[derive(Debug, Default)]
pub(super) struct JobResult {
    pub repository: Option<Uuid>,
    pub label: Option<Label>,
    pub bytes_read: u64,
    pub bytes_stored: u64,
    pub files_copied: u64,
    pub files_linked: u64,
    /// The backups that a verification found damaged.
    pub damaged: Vec<Label>,
}

impl From<BackupSummary> for JobResult {
    fn from(summary: BackupSummary) -> Self {
        Self {
            repository: Some(summary.repository),
            bytes_read: summary.bytes_read,
            bytes_stored: summary.bytes_stored,
            files_copied: summary.files_copied,
            files_linked: summary.files_linked,
            label: Some(summary.label),
            damaged: Vec::new(),
        }
    }
}

/// Runs the verb of an order.
///
/// # Errors
/// As the verb. Damage that a verification finds is no error: it is in the result.
pub(super) fn perform(
    order: &JobOrder,
    configuration: &Configuration,
    run: &Run,
) -> Result<JobResult> {
    let settings = configuration.job_settings(order.job);
    let (known, general) = (order.repository, &settings.general);

    match &settings.verb {
        Verb::Full(options) => {
            let options = in_order(options, order, configuration);
            let summary = verbs::backup::take(BackupKind::Full, &options, known, general, run)?;
            Ok(summary.into())
        }
        Verb::Diff(options) => {
            let options = in_order(options, order, configuration);
            let summary = verbs::backup::take(BackupKind::Diff, &options, known, general, run)?;
            Ok(summary.into())
        }
        Verb::Verify(options) => verify(options, general, run),
        Verb::Expire(options) => expire(options, &configuration.prune, general, run),
        _ => Err(Error::new(
            Kind::Failed,
            format!("`{}` is not a job of the agent", order.job),
        )),
    }
}

/// The options of a backup, with what the planner decided about scavenges, because no run of the
/// agent waits for one. The agent's own keys say whether its backups may make the repository, and
/// where it may be.
fn in_order(
    options: &BackupOptions,
    order: &JobOrder,
    configuration: &Configuration,
) -> BackupOptions {
    let manner = if order.may_stop_scavenges {
        ScavengeManner::Stop
    } else {
        ScavengeManner::Skip
    };

    BackupOptions {
        scavenge: Some(manner),
        new_repository: configuration.agent.new_repository,
        accept_same_disk: options.accept_same_disk || configuration.agent.accept_same_disk,
        ..options.clone()
    }
}

/// A verification that finds damage has done its work. It warns, and names the backups. If it could
/// not read a backup, it fails.
fn verify(options: &VerifyOptions, general: &GeneralOptions, run: &Run) -> Result<JobResult> {
    let (report, bytes_read) = if options.repair {
        let repaired = verbs::verify::continue_repair(options, general, run)?;
        (repaired.report, repaired.all_bytes_hashed)
    } else {
        let report = verbs::verify::continue_verification(options, general, run)?;
        let bytes_hashed = report.bytes_hashed;
        (report, bytes_hashed)
    };

    let mut damaged = Vec::new();
    for backup in &report.backups {
        if let Some(finding) = backup.findings.first() {
            run.warn(format!(
                "backup {} is damaged: {finding}; run `kbackup verify --repair` to repair it from \
                 intact copies; the next diff reads the rest from the node again",
                backup.label
            ));
            damaged.push(backup.label.clone());
        }
    }

    for backup in &report.backups {
        if let Some(unread) = &backup.unread {
            let mut error = Error::new(unread.kind, "a backup cannot be read")
                .on(&backup.label)
                .because(unread.why.clone());
            for hint in &unread.hints {
                error = error.hint(hint.as_str());
            }
            return Err(error);
        }
    }

    Ok(JobResult {
        bytes_read,
        damaged,
        ..JobResult::default()
    })
}

/// In an object store, a removed backup gives its space back only with a prune, so that follows.
fn expire(
    options: &ExpireOptions,
    prune: &PruneOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<JobResult> {
    let report = verbs::expire::plan(options, general, run)?.execute(run)?;
    let pruned = match verbs::prune::prune(prune, general, run)? {
        Some(report) => report.pruned.bytes,
        None => 0,
    };

    Ok(JobResult {
        bytes_stored: report.freed.saturating_add(pruned),
        files_copied: report.removed.len() as u64,
        ..JobResult::default()
    })
}
