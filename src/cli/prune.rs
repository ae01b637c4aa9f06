//! `kbackup prune`: shows a plan first, and deletes only when that is confirmed.

use std::fmt::Write;

use super::context::VerbContext;
use super::output::{count, size};
use crate::clock::Span;
use crate::error::{Error, Kind, Result};
use crate::prune::{PrunePlan, PruneReport};
use crate::settings::options::PruneOptions;
use crate::verbs::prune::{self, PlannedPrune};

pub(super) fn run(options: &PruneOptions, context: &VerbContext) -> Result<u8> {
    let run = &*context.run;
    let planned = prune::plan(options, &context.general, run)?;
    let plan = &planned.plan;
    let text = plan_text(plan);

    if options.confirm && !options.dry_run && plan.needs_prune {
        return execute(&planned, context, &text);
    }

    context
        .output
        .answer("kbackup.prune-plan/1", &context.with_warnings(plan)?, &text)?;
    if options.dry_run || !plan.has_work() {
        return Ok(context.done());
    }

    if !context.output.can_ask() {
        let error = Error::new(
            Kind::Refused,
            "objects are deleted and marked only with a confirmation",
        )
        .on(&plan.repository)
        .hint("add `--confirm` to do what the plan says, or `--dry-run` to see only the plan");
        return Ok(context.output.complain(&error));
    }

    if !context.output.ask(&question(plan), run)? {
        run.note("nothing was deleted");
        return Ok(context.done());
    }
    execute(&planned, context, "")
}

fn execute(planned: &PlannedPrune, context: &VerbContext, plan_text: &str) -> Result<u8> {
    let report = planned.execute(&context.run)?;
    let text = format!("{plan_text}{}", report_text(&report));

    context
        .output
        .answer("kbackup.prune/1", &context.with_warnings(&report)?, &text)?;
    Ok(context.done())
}

fn question(plan: &PrunePlan) -> String {
    match plan.prunable.due_objects {
        0 => format!(
            "Mark {}?",
            count(plan.prunable.unmarked_objects, "unneeded object")
        ),
        due => format!("Delete {}?", count(due, "object")),
    }
}

fn plan_text(plan: &PrunePlan) -> String {
    let mut text = String::new();
    let found = &plan.prunable;
    if !plan.needs_prune {
        let _ = writeln!(
            text,
            "nothing to prune in `{}`: this repository frees the space of a backup when the backup \
             is removed",
            plan.repository
        );
        return text;
    }

    let _ = writeln!(
        text,
        "to delete: {}, {}; this takes {}",
        count(found.due_objects, "object"),
        size(found.due_bytes),
        count(found.due_objects + found.removed_heads, "request")
    );
    if found.refused_objects > 0 {
        let _ = writeln!(
            text,
            "of these, the store refused to delete {}, {}: they are locked, or these credentials \
             may not delete",
            count(found.refused_objects, "object"),
            size(found.refused_bytes)
        );
    }
    let _ = writeln!(
        text,
        "waiting: {}, {}; not marked yet: {}",
        count(found.waiting_objects, "object"),
        size(found.waiting_bytes),
        found.unmarked_objects
    );
    if let Some(next) = found.next {
        let _ = writeln!(
            text,
            "an object can be deleted {} after it was marked; the first at {}",
            Span(plan.grace),
            next.strftime("%Y-%m-%dT%H:%M:%SZ")
        );
    }
    if let Some(requests) = &plan.requests {
        let _ = writeln!(text, "requests for this plan: {requests}");
    }
    text
}

fn report_text(report: &PruneReport) -> String {
    let pruned = &report.pruned;
    let mut text = format!(
        "deleted {} and freed {}; {} marked\n",
        count(pruned.objects, "object"),
        size(pruned.bytes),
        count(pruned.marked, "object")
    );
    if pruned.refused > 0 {
        let _ = writeln!(
            text,
            "the store refused to delete {}",
            count(pruned.refused, "object")
        );
    }
    if let Some(requests) = &report.requests {
        let _ = writeln!(text, "requests to the object store: {requests}");
    }
    text
}
