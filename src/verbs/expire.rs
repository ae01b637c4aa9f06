//! `kbackup expire`: plans which backups go, and removes them.

use super::repository;
use crate::clock;
use crate::error::Result;
use crate::expire::{self, ExpirePlan, ExpireReport, Policy};
use crate::repository::Repository;
use crate::run::Run;
use crate::settings::options::{ExpireOptions, GeneralOptions, RetentionOptions};

/// A plan with the repository that it was made for.
pub(crate) struct PlannedExpiry {
    /// Which backups go and which stay, and why.
    pub(crate) plan: ExpirePlan,
    repository: Box<dyn Repository>,
}

/// Plans which backups go. Removes nothing.
///
/// # Errors
/// As [`expire::plan`], and if the repository cannot be opened.
pub(crate) fn plan(
    options: &ExpireOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<PlannedExpiry> {
    let repository = repository::open_the_same(&options.repository, None, general, run)?;
    let retention = &options.retention;

    let plan = expire::plan(
        &*repository,
        &policy(retention),
        clock::now(),
        &retention.time_zone,
        run,
    )?;
    Ok(PlannedExpiry { plan, repository })
}

impl PlannedExpiry {
    /// Where the repository is, for messages.
    #[must_use]
    pub(crate) fn place(&self) -> String {
        self.repository.place()
    }

    /// Removes the backups that go.
    ///
    /// # Errors
    /// As [`expire::execute`].
    pub(crate) fn execute(&self, run: &Run) -> Result<ExpireReport> {
        expire::execute(&*self.repository, &self.plan, run)
    }
}

fn policy(retention: &RetentionOptions) -> Policy {
    Policy {
        last: retention.last,
        hourly: retention.hourly,
        daily: retention.daily,
        weekly: retention.weekly,
        monthly: retention.monthly,
        yearly: retention.yearly,
        within: retention.within,
    }
}
