//! `kbackup copy`.

use std::fmt::Write;

use super::context::VerbContext;
use super::output::{count, size, table};
use crate::copy::{BackupCopyPlan, BackupCopyReport, CopiedBackup, NotCopied, PlannedCopy};
use crate::error::Result;
use crate::manifest::Label;
use crate::settings::options::CopyOptions;
use crate::verbs::copy;

pub(super) fn run(options: &CopyOptions, context: &VerbContext) -> Result<u8> {
    if options.dry_run {
        let plan = copy::plan(options, &context.general, &context.run)?;
        let text = plan_text(&plan);
        context
            .output
            .answer("kbackup.copy-plan/1", &context.with_warnings(&plan)?, &text)?;
        return Ok(context.done());
    }

    let report = copy::copy(options, &context.general, &context.run)?;
    let text = report_text(&report);
    context
        .output
        .answer("kbackup.copy/1", &context.with_warnings(&report)?, &text)?;
    Ok(context.done())
}

fn plan_text(plan: &BackupCopyPlan) -> String {
    let mut rows = Vec::new();
    for copy in &plan.copies {
        rows.push(planned_row(copy));
    }

    let mut text = String::new();
    if !rows.is_empty() {
        let header = ["LABEL", "BRANCH", "REUSES", "FILES", "READS", "WRITES"];
        text += &table(&header, rows);
    }
    let _ = writeln!(
        text,
        "would copy {}: read {}, and write at most {}",
        count(plan.copies.len() as u64, "backup"),
        size(plan.bytes_to_read),
        size(plan.bytes_to_write)
    );
    text + &rest_text(&plan.already_there, &plan.left_out)
}

fn planned_row(copy: &PlannedCopy) -> Vec<String> {
    let reuses = match &copy.parent {
        Some(parent) => format!("{} of {parent}", count(copy.files_to_reuse, "file")),
        None => "-".to_owned(),
    };
    vec![
        copy.label.to_string(),
        copy.branch.to_string(),
        reuses,
        copy.files_to_copy.to_string(),
        size(copy.bytes_to_read),
        size(copy.bytes_to_write),
    ]
}

fn report_text(report: &BackupCopyReport) -> String {
    let mut text = String::new();
    for copied in &report.copied {
        let _ = writeln!(text, "{}", copied_text(copied));
    }
    if report.copied.is_empty() {
        text.push_str("nothing to copy\n");
    }
    text + &rest_text(&report.already_there, &report.left_out)
}

fn copied_text(copied: &CopiedBackup) -> String {
    let mut text = format!(
        "{}: copied {}, read {}, stored {}",
        copied.label,
        count(copied.files_copied, "file"),
        size(copied.bytes_read),
        size(copied.bytes_stored)
    );
    if let Some(parent) = &copied.parent {
        let _ = write!(
            text,
            "; reused {} of {parent}",
            count(copied.files_linked, "file")
        );
    }
    if copied.files_resumed > 0 {
        let _ = write!(text, "; resumed {}", count(copied.files_resumed, "file"));
    }
    text
}

fn rest_text(already_there: &[Label], left_out: &[NotCopied]) -> String {
    let mut text = String::new();
    if !already_there.is_empty() {
        let number = count(already_there.len() as u64, "backup");
        let _ = writeln!(text, "{number} there already");
    }
    for NotCopied { label, why } in left_out {
        let _ = writeln!(text, "{label} is not copied: {why}");
    }
    text
}
