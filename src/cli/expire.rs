//! `kbackup expire`: shows a plan first, and removes backups only when that is confirmed.

use std::fmt::Write;

use super::context::VerbContext;
use super::output::{count, size, table};
use crate::clock::Zone;
use crate::error::{Error, Kind, Result};
use crate::expire::{BackupBrief, ExpirePlan, ExpireReport};
use crate::settings::options::ExpireOptions;
use crate::verbs::expire::{self, PlannedExpiry};

pub(super) fn run(options: &ExpireOptions, context: &VerbContext) -> Result<u8> {
    let run = &*context.run;
    let planned = expire::plan(options, &context.general, run)?;
    let plan = &planned.plan;
    let text = plan_text(plan, &options.retention.time_zone);

    if options.confirm && !options.dry_run {
        return execute(&planned, context, &text);
    }

    context.output.answer(
        "kbackup.expire-plan/1",
        &context.with_warnings(plan)?,
        &text,
    )?;
    if options.dry_run || plan.goes.is_empty() {
        return Ok(context.done());
    }

    if !context.output.can_ask() {
        let error = Error::new(
            Kind::Refused,
            "backups are removed only with a confirmation",
        )
        .on(planned.place())
        .hint("add `--confirm` to remove what the plan says, or `--dry-run` to see only the plan");
        return Ok(context.output.complain(&error));
    }

    let question = format!("Remove {}?", count(plan.goes.len() as u64, "backup"));
    if !context.output.ask(&question, run)? {
        run.note("nothing was removed");
        return Ok(context.done());
    }
    execute(&planned, context, "")
}

fn execute(planned: &PlannedExpiry, context: &VerbContext, plan_text: &str) -> Result<u8> {
    let report = planned.execute(&context.run)?;
    let text = format!("{plan_text}{}", report_text(&report));

    context
        .output
        .answer("kbackup.expire/1", &context.with_warnings(&report)?, &text)?;
    Ok(context.done())
}

fn plan_text(plan: &ExpirePlan, zone: &Zone) -> String {
    if plan.goes.is_empty() && plan.stays.is_empty() {
        return format!("no backups in `{}`\n", plan.repository);
    }

    let mut rows = Vec::new();
    for leaving in &plan.goes {
        rows.push(row(
            &leaving.backup,
            zone,
            "goes",
            size(leaving.frees),
            String::new(),
        ));
    }
    for staying in &plan.stays {
        rows.push(row(
            &staying.backup,
            zone,
            "stays",
            String::new(),
            staying.why(),
        ));
    }
    // Labels sort like sequence numbers.
    rows.sort_by(|one, other| one.first().cmp(&other.first()));

    let mut text = table(&["LABEL", "BRANCH", "FINISHED", "", "FREES", "WHY"], rows);
    let _ = match plan.goes.len() {
        0 => writeln!(text, "no backup goes"),
        number if plan.needs_prune => writeln!(
            text,
            "{} to remove; then `kbackup prune` frees {} after its grace time",
            count(number as u64, "backup"),
            size(plan.frees)
        ),
        1 => writeln!(text, "1 backup goes and frees {}", size(plan.frees)),
        number => writeln!(text, "{number} backups go and free {}", size(plan.frees)),
    };
    text
}

fn row(backup: &BackupBrief, zone: &Zone, fate: &str, frees: String, why: String) -> Vec<String> {
    let branch = backup.branch.map(|branch| branch.to_string());
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
        branch.unwrap_or_else(|| "-".to_owned()),
        finished.unwrap_or_else(|| "-".to_owned()),
        fate.to_owned(),
        frees,
        why,
    ]
}

fn report_text(report: &ExpireReport) -> String {
    let mut text = String::new();
    for kept in &report.kept {
        let _ = writeln!(
            text,
            "{} stays against the plan: {}",
            kept.backup.label,
            kept.why()
        );
    }

    let removed = count(report.removed.len() as u64, "backup");
    let _ = if report.left_to_prune > 0 {
        writeln!(
            text,
            "removed {removed}; `kbackup prune` frees {} after its grace time",
            size(report.left_to_prune)
        )
    } else {
        writeln!(text, "removed {removed} and freed {}", size(report.freed))
    };
    text
}
