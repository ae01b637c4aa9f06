//! `kbackup prune`: plans what can be deleted, and deletes it.

use super::repository;
use crate::error::Result;
use crate::prune::{self, PrunePlan, PruneReport};
use crate::repository::Repository;
use crate::run::Run;
use crate::settings::options::{GeneralOptions, PruneOptions};

/// A plan with the repository that it was made for.
pub(crate) struct PlannedPrune {
    /// What can be deleted.
    pub(crate) plan: PrunePlan,
    repository: Box<dyn Repository>,
}

/// Plans what can be deleted. Changes nothing.
///
/// # Errors
/// As [`prune::plan`], and if the repository cannot be opened.
pub(crate) fn plan(
    options: &PruneOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<PlannedPrune> {
    let repository = repository::open_the_same(&options.repository, None, general, run)?;
    let plan = prune::plan(&*repository, options.grace, run)?;
    Ok(PlannedPrune { plan, repository })
}

impl PlannedPrune {
    /// Deletes what is due.
    ///
    /// # Errors
    /// As [`prune::execute`].
    pub(crate) fn execute(&self, run: &Run) -> Result<PruneReport> {
        prune::execute(&*self.repository, self.plan.grace, run)
    }
}

/// Deletes what is due, without a plan to look at. Returns `None` for a repository that never needs
/// it.
///
/// # Errors
/// As [`prune::execute`], and if the repository cannot be opened.
pub(crate) fn prune(
    options: &PruneOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<Option<PruneReport>> {
    let repository = repository::open_the_same(&options.repository, None, general, run)?;
    if !repository.leaves_space_to_prune() {
        return Ok(None);
    }
    prune::execute(&*repository, options.grace, run).map(Some)
}
