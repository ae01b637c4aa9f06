//! `kbackup verify`.

use std::fmt::Write;

use super::context::VerbContext;
use super::output::{count, size};
use crate::error::Result;
use crate::manifest::Label;
use crate::proof::Depth;
use crate::settings::options::VerifyOptions;
use crate::verbs::verify;
use crate::verify::{Lost, Replacement, VerifyReport};

pub(super) fn run(options: &VerifyOptions, context: &VerbContext) -> Result<u8> {
    let report = match (options.repair, options.dry_run) {
        (false, _) => verify_only(options, context)?,
        (true, true) => plan_repair(options, context)?,
        (true, false) => repair(options, context)?,
    };

    Ok(match report.worst() {
        Some(kind) => kind.exit_code(),
        None => context.done(),
    })
}

/// Returns what was found.
fn verify_only(options: &VerifyOptions, context: &VerbContext) -> Result<VerifyReport> {
    let report = verify::verify(options, &context.general, &context.run)?;

    let text = report_text(&report) + &advice(&report);
    context
        .output
        .answer("kbackup.verify/1", &context.with_warnings(&report)?, &text)?;
    Ok(report)
}

/// What the operator can do against what was found.
fn advice(report: &VerifyReport) -> String {
    let mut text = String::new();
    let mut damaged_manifests = Vec::new();
    let mut has_damaged_file = false;
    for backup in &report.backups {
        if backup.has_damaged_manifest() {
            damaged_manifests.push(&backup.label);
        } else if !backup.findings.is_empty() {
            has_damaged_file = true;
        }
    }

    if has_damaged_file {
        text.push_str(
            "run `kbackup diff`, which reads damaged files from the node again, and then \
             `kbackup verify --all --repair`\n",
        );
    }

    for label in damaged_manifests {
        let _ = writeln!(
            text,
            "no repair can make the manifest of {label}: put it back from a copy of the \
             repository, or take a new backup with `kbackup diff` and delete `backups/{label}`; \
             the other backups do not need it"
        );
    }
    text
}

/// Returns what was found before any repair.
fn plan_repair(options: &VerifyOptions, context: &VerbContext) -> Result<VerifyReport> {
    let plan = verify::plan_repair(options, &context.general, &context.run)?;

    let mut text = replacements_text(&plan.replacements, "would be repaired");
    text += &lost_text(&plan.lost);
    text += &report_text(&plan.found);
    context.output.answer(
        "kbackup.repair-plan/1",
        &context.with_warnings(&plan)?,
        &text,
    )?;
    Ok(plan.found)
}

/// Returns what is found now.
fn repair(options: &VerifyOptions, context: &VerbContext) -> Result<VerifyReport> {
    let repaired = verify::repair(options, &context.general, &context.run)?;

    let mut text = replacements_text(&repaired.replaced, "repaired");
    text += &lost_text(&repaired.lost);
    text += &report_text(&repaired.report);
    context.output.answer(
        "kbackup.repair/1",
        &context.with_warnings(&repaired)?,
        &text,
    )?;
    Ok(repaired.report)
}

fn replacements_text(replacements: &[Replacement], how: &str) -> String {
    let mut text = String::new();
    for Replacement {
        path,
        from,
        from_path,
        into,
        ..
    } in replacements
    {
        let into = joined(into);
        let _ = writeln!(text, "{path}: {how} from {from_path} of {from}, in {into}");
    }
    text
}

fn lost_text(lost: &[Lost]) -> String {
    if lost.is_empty() {
        return String::new();
    }

    let mut text = String::new();
    for Lost { path, backups } in lost {
        let _ = writeln!(
            text,
            "{path}: the repository has no intact copy, in {}",
            joined(backups)
        );
    }
    text.push_str(
        "run `kbackup diff`, which reads the damaged files from the node again, then repair \
         again; what is still damaged after that is lost: delete the backups that have it\n",
    );
    text
}

fn joined(labels: &[Label]) -> String {
    let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
    labels.join(", ")
}

fn report_text(report: &VerifyReport) -> String {
    let mut text = String::new();
    for backup in &report.backups {
        let label = &backup.label;
        if let Some(unread) = &backup.unread {
            let _ = writeln!(text, "{label}: NOT READ: {}", unread.why);
            for hint in &unread.hints {
                let _ = writeln!(text, "  hint: {hint}");
            }
            continue;
        }
        let _ = if backup.findings.is_empty() {
            writeln!(text, "{label}: intact, {}", count(backup.files, "file"))
        } else {
            writeln!(text, "{label}: DAMAGED")
        };
        for finding in &backup.findings {
            let _ = writeln!(text, "  {finding}");
        }
    }

    let _ = match report.depth {
        Depth::Quick => writeln!(text, "only structure and sizes were examined"),
        Depth::Normal | Depth::Deep => writeln!(
            text,
            "{} hashed; files that several backups share were hashed once",
            size(report.bytes_hashed)
        ),
    };
    text
}
