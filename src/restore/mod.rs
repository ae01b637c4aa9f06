//! Brings a backup back into one or several directories that a server then starts from.
//!
//! 1. [`plan`] writes nothing, and a [`RestorePlan`] can be printed. It follows the `request`:
//!    `choose` the backup, check its manifest (`manifest_check`), compute what a restored directory
//!    consists of (`outcome`), and look at each `target`.
//! 2. [`execute`] does the plan, each target on its own: `guard` it against every server, `place`
//!    proven files, and `finish` with the checkpoints. Only the very last write, eight bytes of
//!    `writer.chk`, makes the directory startable. If the restore ends earlier, no server starts
//!    from the directory, and the same restore resumes it.
//! 3. The [`RestoreReport`] ends with the `closing` notes: what the operator has to do now.

mod checkpoints;
mod choose;
mod closing;
mod finish;
mod guard;
mod manifest_check;
mod outcome;
mod place;
mod plan;
mod report;
mod request;
mod target;

use crate::error::{Error, Kind, Result};
use crate::event::{Event, Step};
use crate::repository::Repository;
use crate::run::Run;
pub use checkpoints::holds_database;
pub use choose::{ChosenBackup, OtherBranch};
pub use closing::{ClosingNote, ClosingNotes};
pub use outcome::{FirstStart, FirstStartBehaviour, Truncation};
pub use plan::{RestorePlan, plan};
pub use report::{Placement, RestoreReport, TargetOutcome, TargetReport};
pub use request::{AcceptedRisks, RestoreRequest, RestoreTarget};
pub use target::{InterruptedRestore, Ownership, PlannedTarget, TargetContent};

/// Carries out a plan, target by target. If one target fails, the others are still restored.
///
/// # Errors
/// [`Kind::Refused`] if the plan was made for another repository, [`Kind::NotFound`] if the backup
/// was removed meanwhile. The failure of a target is not an error: the report holds it.
pub fn execute(
    repository: &dyn Repository,
    plan: &RestorePlan,
    run: &Run,
) -> Result<RestoreReport> {
    if repository.id() != plan.repository_id {
        let what = "the plan was made for another repository";
        return Err(Error::new(Kind::Refused, what)
            .on(repository.place())
            .hint("plan the restore again"));
    }

    // From here on, no expiry can remove the backup. This fails if it is removed already.
    let _held = repository.hold(&plan.backup.label)?;

    for warning in &plan.warnings {
        run.warn(warning.as_str());
    }
    run.emit(Event::Step(Step::Place));

    let mut targets = Vec::with_capacity(plan.targets.len());
    for target in &plan.targets {
        let outcome = if run.check().is_err() && !targets.is_empty() {
            TargetOutcome::NotBegun
        } else {
            restore_target(repository, plan, target, run).unwrap_or_else(TargetOutcome::Failed)
        };
        targets.push(TargetReport {
            db: target.db.clone(),
            index: target.index.clone(),
            outcome,
        });
    }

    Ok(RestoreReport {
        label: plan.backup.label.clone(),
        position: plan.position,
        targets,
        closing: plan.closing.clone(),
    })
}

fn restore_target(
    repository: &dyn Repository,
    plan: &RestorePlan,
    target: &PlannedTarget,
    run: &Run,
) -> Result<TargetOutcome> {
    run.check()?;
    if target.found == TargetContent::Finished {
        guard::confirm_finished(plan, target, run)?;
        return Ok(TargetOutcome::AlreadyRestored);
    }

    let guarded = guard::Empty::prove(plan, target, run)?.guard()?;
    let finished = guarded
        .place(repository, run)
        .and_then(place::Placed::finish);
    match finished {
        Ok(finished) => Ok(TargetOutcome::Restored(finished.placement)),
        Err(error) => Err(hint_at_state(error, target)),
    }
}

/// Tells the operator of a failed restore whether a server could start from the target.
fn hint_at_state(error: Error, target: &PlannedTarget) -> Error {
    match checkpoints::guard_stands(&target.db) {
        Ok(true) => error.hint(
            "run the same restore again to resume it; until then no server starts from this target",
        ),
        Ok(false) | Err(_) => error.hint(
            "start no server from this target, because its last write may be lost; empty it, and \
             restore again once its disk works",
        ),
    }
}
