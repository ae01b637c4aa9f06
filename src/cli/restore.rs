//! `kbackup restore`.

use serde::Serialize;

use super::context::VerbContext;
use crate::error::Result;
use crate::restore::{RestorePlan, RestoreReport};
use crate::settings::options::RestoreOptions;
use crate::verbs::restore::{self, RestoreResult};

#[derive(Serialize)]
struct NothingRestored {
    left: Vec<String>,
}

pub(super) fn run(options: &RestoreOptions, context: &VerbContext) -> Result<u8> {
    match restore::restore(options, &context.general, &context.run)? {
        RestoreResult::NothingToDo(unchanged) => nothing_to_do(unchanged, context),
        RestoreResult::Planned(plan) => planned(&plan, context),
        RestoreResult::Restored(report) => restored(&report, context),
    }
}

fn nothing_to_do(unchanged: Vec<String>, context: &VerbContext) -> Result<u8> {
    let mut text = String::new();
    for db in &unchanged {
        text += &format!("{db}: already holds a database, not changed\n");
    }

    let answer = NothingRestored { left: unchanged };
    context.output.answer(
        "kbackup.restore-nothing/1",
        &context.with_warnings(&answer)?,
        &text,
    )?;
    Ok(context.done())
}

fn planned(plan: &RestorePlan, context: &VerbContext) -> Result<u8> {
    context
        .output
        .answer("kbackup.restore-plan/1", plan, &plan.to_string())?;
    Ok(context.done())
}

fn restored(report: &RestoreReport, context: &VerbContext) -> Result<u8> {
    context.output.answer(
        "kbackup.restore/1",
        &context.with_warnings(report)?,
        &report.to_string(),
    )?;

    // The JSON answer holds a failure already.
    Ok(match report.failure() {
        Some(error) => context.output.complain(error),
        None => context.done(),
    })
}
