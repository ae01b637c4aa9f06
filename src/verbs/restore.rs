//! `kbackup restore`: plans a restore, and does it.

use crate::error::{Error, Kind, Result};
use crate::restore::{
    self, AcceptedRisks, RestorePlan, RestoreReport, RestoreRequest, RestoreTarget,
};
use crate::run::Run;
use crate::settings::options::{GeneralOptions, RestoreOptions};
use crate::users;

use super::{label, repository};

/// The result of a restore.
pub(crate) enum RestoreResult {
    /// Each target holds a database already, and `--unless-restored` is set: the db directories.
    NothingToDo(Vec<String>),
    /// Only the plan was wanted.
    Planned(Box<RestorePlan>),
    /// The plan was carried out. The report also holds failures.
    Restored(Box<RestoreReport>),
}

/// Restores a backup, or plans it.
///
/// # Errors
/// [`Kind::Usage`] for a wrong label or owner, and for index directories that do not match the
/// targets. All errors of [`restore::plan`] and [`restore::execute`].
pub(crate) fn restore(
    options: &RestoreOptions,
    general: &GeneralOptions,
    run: &Run,
) -> Result<RestoreResult> {
    let mut targets = targets(options)?;

    if options.unless_restored {
        let unchanged = take_out_databases(&mut targets)?;
        if targets.is_empty() {
            return Ok(RestoreResult::NothingToDo(unchanged));
        }
        for db in unchanged {
            run.note(format!(
                "`{db}` already holds a database and is not changed"
            ));
        }
    }

    let request = RestoreRequest {
        label: label::parse(&options.label)?,
        targets,
        ready: options.ready,
        owner: options.owner.as_deref().map(owner).transpose()?,
        server_version: options.server_version.clone(),
        accept: AcceptedRisks {
            archive: options.archived,
            older_server: options.older_server,
            unsure_whether_in_use: options.confirm,
        },
    };

    let repository = repository::open(&options.repository, general, run)?;
    let plan = restore::plan(&*repository, &request, run)?;
    if options.dry_run {
        // An execution would repeat these warnings itself.
        for warning in &plan.warnings {
            run.warn(warning.as_str());
        }
        return Ok(RestoreResult::Planned(Box::new(plan)));
    }

    let report = restore::execute(&*repository, &plan, run)?;
    Ok(RestoreResult::Restored(Box::new(report)))
}

/// Removes the targets that hold a database from the list, and returns their db directories.
fn take_out_databases(targets: &mut Vec<RestoreTarget>) -> Result<Vec<String>> {
    let mut unchanged = Vec::new();
    for target in std::mem::take(targets) {
        if restore::holds_database(&target.db)? {
            unchanged.push(target.db.display().to_string());
        } else {
            targets.push(target);
        }
    }
    Ok(unchanged)
}

/// Pairs each db directory with its index directory.
fn targets(options: &RestoreOptions) -> Result<Vec<RestoreTarget>> {
    let (dbs, indexes) = (options.to.len(), options.index_to.len());
    if indexes > 0 && indexes != dbs {
        let what = format!("the number of `--to` and of `--index-to` differs: {dbs} and {indexes}");
        return Err(Error::new(Kind::Usage, what)
            .hint("name an index directory for every target, or for none"));
    }

    let mut index = options.index_to.iter();
    let mut targets = Vec::new();
    for db in &options.to {
        targets.push(RestoreTarget {
            db: db.clone(),
            index: index.next().cloned(),
        });
    }
    Ok(targets)
}

/// The ids of `user:group`, each by name or by number.
fn owner(text: &str) -> Result<(u32, u32)> {
    let wrong = |what: &str| {
        Err(Error::new(Kind::Usage, what)
            .on(text)
            .hint("write the owner as `user:group`, by name or by number"))
    };

    let Some((user, group)) = text.split_once(':') else {
        return wrong("the owner is not a user and a group");
    };
    let Some(user) = users::user(user) else {
        return wrong("there is no such user");
    };
    let Some(group) = users::group(group) else {
        return wrong("there is no such group");
    };
    Ok((user, group))
}
