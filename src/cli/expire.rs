//! `kbackup expire`: a plan first; what it removes has to be confirmed.

use std::fmt::Write;

use super::Session;
use super::output::{count, size, table};
use crate::clock::Zone;
use crate::error::{Error, Kind, Result};
use crate::expire::{self, Plan, Report, Summary};
use crate::repository::{Location, Repository};
use crate::settings::arguments;
use crate::verbs;

pub(super) fn run(options: &arguments::Expire, session: &Session) -> Result<u8> {
    let run = &*session.run;
    let repository = Location::parse(&options.repository.repo)?.open()?;
    let zone = &options.keep.time_zone;
    let plan = verbs::expire::plan(&*repository, &options.keep, run)?;
    if options.confirm && !options.dry_run {
        return execute(&*repository, &plan, session, &planned(&plan, zone));
    }
    session.output.answer(
        "kbackup.expire-plan/1",
        &session.with_warnings(&plan)?,
        &planned(&plan, zone),
    )?;
    if options.dry_run || plan.goes.is_empty() {
        return Ok(session.done());
    }
    if !session.output.can_ask() {
        return Ok(session.output.complain(
            &Error::new(Kind::Refused, "nothing is removed without a confirmation")
                .on(repository.place())
                .hint("`--confirm` removes what the plan says; `--dry-run` only shows the plan"),
        ));
    }
    if !session.output.ask(
        &format!("Remove {}?", count(plan.goes.len() as u64, "backup")),
        run,
    )? {
        run.note("nothing was removed");
        return Ok(session.done());
    }
    execute(&*repository, &plan, session, "")
}

fn execute(
    repository: &dyn Repository,
    plan: &Plan,
    session: &Session,
    planned: &str,
) -> Result<u8> {
    let report = expire::execute(repository, plan, &session.run)?;
    let text = format!("{planned}{}", done(&report));
    session
        .output
        .answer("kbackup.expire/1", &session.with_warnings(&report)?, &text)?;
    Ok(session.done())
}

fn planned(plan: &Plan, zone: &Zone) -> String {
    if plan.goes.is_empty() && plan.stays.is_empty() {
        return format!("no backups in `{}`\n", plan.repository);
    }
    let row = |backup: &Summary, frees: String, why: String| {
        let dash = || "-".to_owned();
        let finished = backup
            .finished
            .map(|finished| zone.at(finished).strftime("%Y-%m-%d %H:%M").to_string());
        let why = if backup.damaged {
            format!("{why} (damaged)")
        } else {
            why
        };
        vec![
            backup.label.to_string(),
            backup.branch.map_or_else(dash, |branch| branch.to_string()),
            finished.unwrap_or_else(dash),
            if frees.is_empty() { "stays" } else { "goes" }.to_owned(),
            frees,
            why,
        ]
    };
    let goes = plan
        .goes
        .iter()
        .map(|leaving| row(&leaving.backup, size(leaving.frees), String::new()));
    let stays = plan
        .stays
        .iter()
        .map(|staying| row(&staying.backup, String::new(), staying.why()));
    let mut rows: Vec<Vec<String>> = goes.chain(stays).collect();
    // Labels grow with the sequence.
    rows.sort_by(|one, other| one.first().cmp(&other.first()));
    let mut text = table(&["LABEL", "BRANCH", "FINISHED", "", "FREES", "WHY"], rows);
    let _ = match plan.goes.len() {
        0 => writeln!(text, "nothing goes"),
        1 => writeln!(text, "1 backup goes, {} come free", size(plan.frees)),
        number => writeln!(text, "{number} backups go, {} come free", size(plan.frees)),
    };
    text
}

fn done(report: &Report) -> String {
    let mut text = String::new();
    for kept in &report.kept {
        let _ = writeln!(
            text,
            "{} stays all the same: {}",
            kept.backup.label,
            kept.why()
        );
    }
    let _ = writeln!(
        text,
        "removed {}, {} came free",
        count(report.removed.len() as u64, "backup"),
        size(report.freed)
    );
    text
}
