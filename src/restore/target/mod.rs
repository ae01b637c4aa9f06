//! Examines a restore target before the restore: its path, its content, its owner, whether a server
//! uses it, and whether the backup fits. Nothing is written.

mod content;
mod listing;
mod ownership;
mod path;
mod planned;
mod space;
mod unused;

pub(super) use content::{BackupToRestore, FinishedTarget, examine};
pub use content::{InterruptedRestore, TargetContent};
pub use ownership::Ownership;
pub(super) use path::as_text;
pub use planned::PlannedTarget;
pub(super) use space::check_space;
pub(super) use unused::find_unused;

use super::request::{RestoreRequest, RestoreTarget};
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::{Directories, Owner};
use crate::run::Run;

/// The targets that a restore may write to, and what the operator has to know about them.
#[derive(Default)]
pub(super) struct PlannedTargets {
    pub(super) targets: Vec<PlannedTarget>,
    pub(super) warnings: Vec<String>,
}

/// Looks at every target of a request. `place` names the repository, `owner` owned the files on the
/// node.
///
/// # Errors
/// `Usage` if no target is named; `Refused` for the first target that is in use, holds something,
/// or overlaps with another directory.
pub(super) fn plan_targets(
    request: &RestoreRequest,
    place: &str,
    owner: Option<&Owner>,
    backup: BackupToRestore<'_>,
    run: &Run,
) -> Result<PlannedTargets> {
    check_request(&request.targets)?;
    let mut resolved = Vec::with_capacity(request.targets.len());
    for target in &request.targets {
        resolved.push(resolve(target)?);
    }
    path::refuse_overlaps(place, &resolved)?;

    // An operator who names a single target that is finished wants to restore there again.
    let finished = if resolved.len() > 1 {
        FinishedTarget::Leave
    } else {
        FinishedTarget::Refuse
    };

    let mut planned = PlannedTargets::default();
    for directories in resolved {
        let found = find_unused(&directories, backup, finished, request.accept, run)?;
        let (owner, warning) = ownership::ownership(request.owner, &directories.db, owner)?;
        planned.warnings.extend(warning);

        planned.targets.push(PlannedTarget {
            bytes_needed: space::bytes_needed(backup.outcome, &found),
            bytes_free: fs::free_space(path::nearest(&directories.db)?)?,
            db: directories.db,
            index: directories.index,
            found,
            owner,
        });
    }
    Ok(planned)
}

fn check_request(targets: &[RestoreTarget]) -> Result<()> {
    if targets.is_empty() {
        let error = Error::new(Kind::Usage, "no directory to restore to");
        return Err(error.hint("name one with `--to`"));
    }

    let with_index = targets.iter().filter(|target| target.index.is_some());
    let with_index = with_index.count();
    if with_index != 0 && with_index != targets.len() {
        let what = "an index directory is given for some of the targets, but not for all";
        return Err(Error::new(Kind::Refused, what)
            .hint("give `--index-to` once for each `--to`, in the same order, or never"));
    }
    Ok(())
}

fn resolve(target: &RestoreTarget) -> Result<Directories> {
    let db = path::resolve(&target.db)?;
    let index = match &target.index {
        Some(index) => Some(path::resolve(index)?),
        None => None,
    };
    Ok(Directories::new(db, index))
}
