//! `kbackup copy`: copies backups of one repository into another one.

use super::{given_numbers, label, overlap, repository};
use crate::copy::{self, BackupCopyPlan, BackupCopyReport, BackupsToCopy, CopyRules};
use crate::error::{Error, Result};
use crate::repository::{Location, Repository};
use crate::run::Run;
use crate::settings::options::{CopyOptions, GeneralOptions};

/// A plan with the repositories that it was made for.
struct PlannedCopies {
    plan: BackupCopyPlan,
    from: Box<dyn Repository>,
    /// `None` if it will be made.
    to: Option<Box<dyn Repository>>,
}

/// Plans a copy. Writes nothing.
///
/// # Errors
/// [`Kind::Usage`](crate::error::Kind::Usage) for a wrong label.
/// [`Kind::Refused`](crate::error::Kind::Refused) if one repository lies in the other. All errors
/// of [`copy::plan`].
pub(crate) fn plan(
    options: &CopyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<BackupCopyPlan> {
    Ok(PlannedCopies::plan(options, general, run)?.plan)
}

/// Copies the backups.
///
/// # Errors
/// As [`plan`], and all errors of [`copy::execute`].
pub(crate) fn copy(
    options: &CopyOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<BackupCopyReport> {
    let PlannedCopies { plan, from, to } = PlannedCopies::plan(options, general, run)?;

    let to = match to {
        Some(to) => to,
        // Only now: a wrong label must not make a repository.
        None => repository::open_or_make(&options.to, None, general, run)?,
    };
    given_numbers::bring_back(&*to, general, run)?;

    let report = copy::execute(&*from, &*to, &plan, run);
    // Also after an error: some backups may have been copied before it.
    given_numbers::remember(&*to, general, run);
    report
}

impl PlannedCopies {
    fn plan(options: &CopyOptions, general: &GeneralOptions, run: &Run) -> Result<Self> {
        let which = which(options)?;
        refuse_overlap(options)?;

        let from = repository::open(&options.from, general, run)
            .map_err(|error| with_option(error, "--from"))?;
        let to =
            Self::open_target(options, general, run).map_err(|error| with_option(error, "--to"))?;
        let plan = copy::plan(&*from, to.as_deref(), &which, rules(options), run)?;
        Ok(Self { plan, from, to })
    }

    fn open_target(
        options: &CopyOptions,
        general: &GeneralOptions,
        run: &Run,
    ) -> Result<Option<Box<dyn Repository>>> {
        if options.new_repository {
            return repository::open_or_nothing_yet(&options.to, general, run);
        }
        repository::open_the_same(&options.to, None, general, run).map(Some)
    }
}

/// The same error for a verb that names its repositories by other options than `--repo`.
fn with_option(error: Error, option: &str) -> Error {
    let hints = error.hints().to_vec();
    let mut error = error.without_hints();
    for hint in hints {
        error = error.hint(hint.replace("`--repo`", &format!("`{option}`")));
    }
    error
}

fn which(options: &CopyOptions) -> Result<BackupsToCopy> {
    if options.all {
        return Ok(BackupsToCopy::All);
    }

    let mut labels = Vec::new();
    for text in &options.labels {
        // `latest` is one backup, so beside labels it cannot be told from them.
        match label::parse(text)? {
            Some(label) => labels.push(label),
            None => return Ok(BackupsToCopy::Newest),
        }
    }
    if labels.is_empty() {
        return Ok(BackupsToCopy::Newest);
    }
    Ok(BackupsToCopy::Named(labels))
}

const fn rules(options: &CopyOptions) -> CopyRules {
    CopyRules {
        new_branch: options.new_branch,
        new_address: options.new_address,
    }
}

/// Only directories can lie in each other.
fn refuse_overlap(options: &CopyOptions) -> Result<()> {
    let from = Location::parse(&options.from)?;
    let to = Location::parse(&options.to)?;
    match (from.directory(), to.directory()) {
        (Some(from), Some(to)) => overlap::refuse_nested_repositories(from, to),
        _ => Ok(()),
    }
}
