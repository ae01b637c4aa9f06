//! `kbackup restore`.

use serde::Serialize;

use super::Session;
use super::output::times;
use crate::error::{Error, Kind, Result};
use crate::repository::Location;
use crate::restore::{self, AcceptedRisks, RestoreRequest, RestoreTarget};
use crate::settings::arguments;
use crate::users;
use crate::verbs::verify::label;

#[derive(Serialize)]
struct Nothing {
    left: Vec<String>,
}

pub(super) fn run(options: &arguments::Restore, session: &Session) -> Result<u8> {
    let run = &*session.run;
    let mut targets = targets(options)?;
    if options.unless_restored {
        let standing = leave_databases(&mut targets)?;
        if targets.is_empty() {
            let text: String = standing
                .iter()
                .map(|db| format!("{db}: a database stands there already, left as it is\n"))
                .collect();
            session.output.answer(
                "kbackup.restore-nothing/1",
                &session.with_warnings(&Nothing { left: standing })?,
                &text,
            )?;
            return Ok(session.done());
        }
        for db in standing {
            run.note(format!(
                "a database stands in `{db}` already, which is left as it is"
            ));
        }
    }
    let request = RestoreRequest {
        label: label(&options.label)?,
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
    let repository = Location::parse(&options.repository.repo)?.open()?;
    let plan = restore::plan(&*repository, &request, run)?;
    if options.dry_run {
        for warning in &plan.warnings {
            run.warn(warning.as_str());
        }
        session
            .output
            .answer("kbackup.restore-plan/1", &plan, &plan.to_string())?;
        return Ok(session.done());
    }
    let report = restore::execute(&*repository, &plan, run)?;
    session.output.answer(
        "kbackup.restore/1",
        &session.with_warnings(&report)?,
        &report.to_string(),
    )?;
    // The answer holds the failure already.
    Ok(report
        .failure()
        .map_or_else(|| session.done(), |error| session.output.complain(error)))
}

/// Takes the targets in which a database stands from the list, and returns them.
fn leave_databases(targets: &mut Vec<RestoreTarget>) -> Result<Vec<String>> {
    let mut standing = Vec::new();
    for target in std::mem::take(targets) {
        if restore::holds_database(&target.db)? {
            standing.push(target.db.display().to_string());
        } else {
            targets.push(target);
        }
    }
    Ok(standing)
}

fn targets(options: &arguments::Restore) -> Result<Vec<RestoreTarget>> {
    if !options.index_to.is_empty() && options.index_to.len() != options.to.len() {
        return Err(Error::new(
            Kind::Usage,
            format!(
                "`--to` is given {}, and `--index-to` {}",
                many(options.to.len()),
                many(options.index_to.len())
            ),
        )
        .hint("name an index directory for every target, or for none"));
    }
    let mut index = options.index_to.iter();
    Ok(options
        .to
        .iter()
        .map(|db| RestoreTarget {
            db: db.clone(),
            index: index.next().cloned(),
        })
        .collect())
}

fn many(count: usize) -> String {
    times(u32::try_from(count).unwrap_or(u32::MAX))
}

/// `user:group`, by name or number.
fn owner(text: &str) -> Result<(u32, u32)> {
    let wrong = |what: &str| {
        Error::new(Kind::Usage, what)
            .on(text)
            .hint("write it as `user:group`, by name or by number")
    };
    let (user, group) = text
        .split_once(':')
        .ok_or_else(|| wrong("an owner is a user and a group"))?;
    let user = users::user(user).ok_or_else(|| wrong("no such user"))?;
    let group = users::group(group).ok_or_else(|| wrong("no such group"))?;
    Ok((user, group))
}
