//! A backup of a node: the vendor's procedure, step by step, made safe. `docs/procedure.md`
//! explains it, with the evidence for each departure.
//!
//! [`take`] shows the whole procedure:
//!
//! | step | vendor | where |
//! |---|---|---|
//! | preflight: the source | U1 | `preflight` |
//! | … the parent, and space | | `existing`, `parentage`, `estimate` |
//! | recheck a share of the parent's files | | `recheck` |
//! | resume what an interrupted run has copied | | `resume`, `begun` |
//! | quiesce | S1–S3 | `quiesced` |
//! | one or more attempts | D1–D17 | `retry`, `attempt` |
//! | … index and its filters | D1–D8 | `index`, `filter_file`, `stream_filter`, `missing_index` |
//! | … scavenging state | D9 | `databases` |
//! | … checkpoints | D11–D14 | `checkpoints` |
//! | … chunks | D10, D15–D17 | `chunks`, `chunk_copy`, `chunk_prefix` |
//! | … prove the log, and end it at P | | `lineage`, `log_end` |
//! | commit | | `description`, `commit` |
//! | release, always | S5, S6 | `quiesced` |
//!
//! `capture` is the working copy that the attempts fill. `source` says where the files come from,
//! and `source_files` opens them.

mod attempt;
mod begun;
mod capture;
mod checkpoints;
mod chunk_copy;
mod chunk_prefix;
mod chunk_rules;
mod chunks;
mod commit;
mod counted_source;
mod databases;
mod description;
mod duration;
mod estimate;
mod existing;
mod filter_file;
mod index;
mod lineage;
mod log_end;
mod missing_index;
mod parentage;
mod preflight;
mod quiesced;
mod recheck;
mod request;
mod resume;
mod retry;
mod source;
mod source_chunk;
mod source_files;
mod stream_filter;
mod summary;

use self::attempt::Procedure;
use self::capture::Capture;
use self::commit::commit;
use self::description::BackupDescription;
pub use self::estimate::CopyEstimate;
use self::estimate::{CopyEstimates, check_space};
use self::existing::ExistingBackups;
use self::parentage::Parentage;
use self::preflight::Preflight;
use self::quiesced::Quiesced;
use self::recheck::DamagedFile;
pub use self::recheck::RecheckShare;
pub use self::request::BackupRequest;
pub use self::source::{RunningNode, Source, SourceNode};
pub use self::summary::{BackupForecast, BackupSummary};
use crate::clock;
use crate::error::Result;
use crate::event::{Event, Step};
use crate::format::WriterPosition;
use crate::node::NodeFiles;
use crate::repository::Repository;
use crate::run::Run;

/// Takes a backup. When this returns, the node has its scavenging back. If giving it back failed, a
/// warning tells the operator to run `kbackup release`.
///
/// # Errors
/// Each kind has its meaning in `docs/guide.md`; after any of them nothing is listed.
pub fn take(
    request: &BackupRequest,
    source: &Source<'_>,
    repository: &dyn Repository,
    run: &Run,
) -> Result<BackupSummary> {
    let started = clock::now();

    // Preflight: whose files these are, what the new backup builds on, and whether it fits.
    run.emit(Event::Step(Step::Preflight));
    let existing = ExistingBackups::read(repository, run)?;
    let mut preflight = Preflight::run(
        source,
        &existing.known_lineages(request.kind),
        request.attempts,
        run,
    )?;
    let newest_label = existing.newest_label.clone();
    let newest_index = existing.newest_index();
    let rate = duration::expected_rate(&existing, run.pace().limit());
    let log = preflight.source_log();
    let (parentage, parent) = Parentage::settle(existing, log, request, repository, run)?;
    let parent = parent.as_ref();
    let estimates = CopyEstimates::new(&preflight, parent);
    // The list is not needed any more, and it may have tens of thousands of entries.
    drop(std::mem::take(&mut preflight.entries));
    check_space(estimates.all, &preflight, repository)?;
    let incoming = repository.writer(run)?.begin(parent)?;
    incoming.check_next(parentage.sequence)?;

    // Recheck: before the node is quiesced, because hashing takes long.
    let damaged = match parent {
        Some(parent) => recheck::recheck(repository, parent, request.recheck, run)?,
        None => Vec::new(),
    };

    let mut capture = Capture::new(incoming, &source.directories, parent, run);
    capture.cost.bytes_read = preflight.bytes_read;
    capture.inspected_in_preflight = std::mem::take(&mut preflight.inspected);
    read_again(&mut capture, &damaged);

    // Resume: also before the node is quiesced, because a file without a kept proof is hashed, and
    // the rest of a file that was begun may not fit into the pause.
    let writer = WriterPosition(preflight.end);
    let mut resumed = resume::resume(&mut capture, writer, request.attempts)?;
    resumed.add(begun::finish_begun(&mut capture, writer, request.attempts)?);

    // Quiesce (S1–S3). From here on, scavenging has to be given back to the node.
    run.emit(Event::Step(Step::Quiesce));
    let copy_takes = duration::of_copy(estimates.all.without(resumed), rate);
    let files = NodeFiles {
        db: Some(source.directories.db.clone()),
        database: Some(preflight.identity.database),
        former_endpoint: parentage.former_endpoint.clone(),
    };
    let mut quiesced = Quiesced::quiesce(source, &files, copy_takes, repository, run)?;

    // Capture (D1–D17), in one attempt or several.
    let procedure = Procedure {
        request,
        source,
        repository,
        preflight: &preflight,
        earlier_index: newest_index.as_ref(),
        expected_chunks: estimates.chunks.without(resumed),
    };
    let captured = procedure.capture(&mut capture, &mut quiesced);
    mark_damaged_parent(&mut capture, repository);

    // Commit: prove all of it once more, and make it visible.
    let description = BackupDescription {
        source,
        preflight: &preflight,
        parentage: &parentage,
        newest_label: newest_label.as_ref(),
        started,
    };
    let committed = captured.and_then(|captured| commit(capture, description, &captured));

    // Release (S5, S6), also after a failure.
    run.emit(Event::Step(Step::Release));
    if let Err(error) = quiesced.release(repository, run) {
        run.warn(format!(
            "the node has not got everything back ({error}): run `kbackup release`"
        ));
    }

    let head = committed?;
    Ok(BackupSummary::new(&head, repository, parentage.parent_end))
}

/// Reads from the node what the recheck found damaged.
fn read_again(capture: &mut Capture<'_>, damaged: &[DamagedFile]) {
    for file in damaged {
        capture.stop_reusing(&file.path, &file.error);
    }
    // The recheck has marked these already.
    drop(capture.take_damaged_in_parent());
}

/// Marks the backups whose files turned out damaged when this run reused them.
fn mark_damaged_parent(capture: &mut Capture<'_>, repository: &dyn Repository) {
    let damaged = capture.take_damaged_in_parent();
    if let Some(parent) = capture.parent() {
        recheck::mark_damage(repository, parent, &damaged, capture.run);
    }
}

/// Estimates a backup. Writes nothing, and lets the node scavenge.
///
/// # Errors
/// As the preflight of [`take`].
pub fn forecast(
    request: &BackupRequest,
    source: &Source<'_>,
    repository: Option<&dyn Repository>,
    run: &Run,
) -> Result<BackupForecast> {
    let existing = match repository {
        Some(repository) => ExistingBackups::read(repository, run)?,
        None => ExistingBackups::default(),
    };
    let preflight = Preflight::run(
        source,
        &existing.known_lineages(request.kind),
        request.attempts,
        run,
    )?;

    let log = preflight.source_log();
    let (parentage, parent) = match repository {
        Some(repository) => Parentage::settle(existing, log, request, repository, run)?,
        None => (Parentage::find(&existing, log, request, run)?, None),
    };

    Ok(BackupForecast {
        estimate: CopyEstimates::new(&preflight, parent.as_ref()).all,
        kind: parentage.kind,
        parent: parentage.parent,
        branch: parentage.branch,
        position: preflight.end,
    })
}
