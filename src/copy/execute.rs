//! Carries out the plan of a copy: one backup after the other.

use super::arrival::{Arrival, commit};
use super::files::Bringing;
use super::filling::Filling;
use super::plan::{BackupCopyPlan, PlannedCopy, SourceBackups};
use super::report::{BackupCopyReport, CopiedBackup};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
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

    let source = SourceBackups::read(from)?.heads;
    let Some(arrival) = Arrival::find(to, &original, &source, plan.rules, run)? else {
        return Ok(None);
    };
    drop(source);

    let files = from.files(label)?;
    let incoming = arrival.begin(to, run)?;
    let bringing = Bringing {
        from,
        original: &original,
        files: &*files,
        filling: Filling {
            to,
            parent: arrival.parent(),
            incoming: &*incoming,
            run,
        },
    };
    let brought = bringing.bring()?;

    let proven = arrival.prove(&*incoming, &original, &brought, run)?;
    commit(incoming, &proven, run)?;
    Ok(Some(CopiedBackup::new(&proven)))
}
