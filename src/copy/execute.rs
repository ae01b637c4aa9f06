//! Carries out the plan of a copy: one backup after the other.

use super::files::Bringing;
use super::line::TargetLine;
use super::plan::{BackupCopyPlan, PlannedCopy, SourceBackups, check_same, older_than, settle};
use super::report::{BackupCopyReport, CopiedBackup};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::manifest::{Head, Manifest};
use crate::proof::{self, CopyEvidence};
use crate::repository::Repository;
use crate::run::Run;

/// Copies the backups of the plan, oldest first. Each is listed in one step. If the run ends early,
/// those before it stay, and the next copy resumes what it can prove of the one in flight.
///
/// # Errors
/// `Refused` if the plan was made for other repositories. `Locked` if another run writes to the
/// target. `StoredCorrupt` if a file of the source repository is damaged: then nothing of that
/// backup is listed in the target.
pub fn execute(
    from: &dyn Repository,
    to: &dyn Repository,
    plan: &BackupCopyPlan,
    run: &Run,
) -> Result<BackupCopyReport> {
    let is_made_for = plan.to_id.is_none_or(|id| id == to.id());
    if from.id() != plan.from_id || !is_made_for {
        let what = "the plan was made for other repositories";
        return Err(Error::new(Kind::Refused, what)
            .on(to.place())
            .hint("plan it again"));
    }

    let mut report = BackupCopyReport {
        from: plan.from.clone(),
        to: to.place(),
        copied: Vec::new(),
        already_there: plan.already_there.clone(),
        left_out: plan.left_out.clone(),
    };
    for planned in &plan.copies {
        run.check()?;
        match copy_one(from, to, plan, planned, run)? {
            Some(copied) => report.copied.push(copied),
            None => report.already_there.push(planned.label.clone()),
        }
    }
    Ok(report)
}

/// Copies one backup. Returns `None` if another run has copied it since it was planned.
fn copy_one(
    from: &dyn Repository,
    to: &dyn Repository,
    plan: &BackupCopyPlan,
    planned: &PlannedCopy,
    run: &Run,
) -> Result<Option<CopiedBackup>> {
    run.emit(Event::Step(Step::Preflight));
    let label = &planned.label;
    let _held = from.hold(label)?;
    let original = from.manifest(label)?;

    let mut line = TargetLine::read(to, run)?;
    if line.find(label).is_some() {
        check_same(&to.manifest(label)?, &original)?;
        return Ok(None);
    }
    if let Some(newer) = line.newer_than(label) {
        return Err(older_than(newer, label));
    }
    let source = SourceBackups::read(from)?.heads;
    let (place, parent) = settle(&mut line, &original, &source, plan.rules, run, |parent| {
        to.manifest(&parent.label)
    })?;
    drop((line, source));

    let files = from.files(label)?;
    let incoming = to.writer(run)?.begin(parent.as_ref())?;
    incoming.check_next(place.sequence)?;
    let bringing = Bringing {
        from,
        to,
        original: &original,
        files: &*files,
        parent: parent.as_ref(),
        incoming: &*incoming,
        run,
    };
    let brought = bringing.bring()?;

    let mut manifest = Manifest {
        head: original.head.clone(),
        files: original.files.clone(),
    };
    manifest.sequence = place.sequence;
    manifest.branch = place.branch;
    manifest.parent = parent.as_ref().map(|parent| parent.label.clone());
    manifest.cost = brought.cost;
    manifest.cost.bytes_stored = incoming.bytes_stored();

    run.emit(Event::Step(Step::Prove));
    let evidence = CopyEvidence {
        original: &original,
        parent: parent.as_ref(),
        stored: &brought.hashes,
    };
    let proven = proof::prove_copy(&*incoming, manifest, &evidence, run)?;

    run.almost_done()?;
    run.emit(Event::Step(Step::Commit));
    incoming.commit(&proven)?;
    committed(&proven.head, run);
    Ok(Some(CopiedBackup::new(&proven.head)))
}

fn committed(head: &Head, run: &Run) {
    run.emit(Event::Committed {
        label: head.label.to_string(),
        position: head.log.position.position().get(),
    });
}
