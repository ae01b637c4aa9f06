//! `expire`.

use crate::clock;
use crate::error::Result;
use crate::expire::{self, Plan, Policy};
use crate::repository::Repository;
use crate::run::Run;
use crate::settings::arguments::Keep;

/// Plans what goes now. [`expire::execute`] does it.
///
/// # Errors
/// As [`expire::plan`].
pub fn plan(repository: &dyn Repository, keep: &Keep, run: &Run) -> Result<Plan> {
    expire::plan(
        repository,
        &policy(keep),
        clock::now(),
        &keep.time_zone,
        run,
    )
}

/// What to keep.
#[must_use]
pub fn policy(keep: &Keep) -> Policy {
    Policy {
        last: keep.keep_last.unwrap_or_default(),
        hourly: keep.keep_hourly.unwrap_or_default(),
        daily: keep.keep_daily.unwrap_or_default(),
        weekly: keep.keep_weekly.unwrap_or_default(),
        monthly: keep.keep_monthly.unwrap_or_default(),
        yearly: keep.keep_yearly.unwrap_or_default(),
        within: keep.keep_within.map(|within| within.0),
    }
}
