//! `kbackup check`.

use std::fmt::Write;
use std::path::Path;

use super::context::VerbContext;
use super::output::count;
use crate::error::{Kind, Result};
use crate::proof::{
    Consequence, Effect, Examination, Finding, Severity, StartOutcome, VersionOutcome,
};
use crate::settings::options::CheckOptions;
use crate::verbs;

pub(super) fn run(options: &CheckOptions, context: &VerbContext) -> Result<u8> {
    let (directories, examination) = verbs::check::check(options, &context.run)?;

    context.output.answer(
        "kbackup.check/1",
        &context.with_warnings(&examination)?,
        &text(&directories.db, &examination),
    )?;
    let found = examination.kind().map(Kind::exit_code);
    Ok(found.unwrap_or_else(|| context.done()))
}

fn text(place: &Path, examination: &Examination) -> String {
    let verdict = examination.verdict.phrase();
    let mut text = format!("{}: {verdict}\n", place.display());

    if examination.in_use {
        text.push_str(
            "a server uses these files now: a finding may be a change that is only half done\n",
        );
    }

    if let Some(log) = &examination.log {
        let chunks = count(log.chunks, "chunk file");
        let _ = match log.position {
            Some(position) => writeln!(text, "the log ends at position {position}, in {chunks}"),
            None => writeln!(text, "the end of the log was not found in {chunks}"),
        };
    }

    if let Some(index) = &examination.index {
        let tables = count(index.tables, "table");
        let _ = match index.commit {
            Some(commit) => writeln!(text, "the index has {tables}, up to {commit}"),
            None => writeln!(text, "the index has {tables}, and no entry"),
        };
    }

    text.push('\n');
    for version in &examination.versions {
        let _ = writeln!(
            text,
            "  {:<6} {}{}",
            version.version.name(),
            version.verdict.phrase(),
            notes(version)
        );
    }

    for finding in &examination.findings {
        text.push_str(&finding_text(finding));
    }

    let mut consequences = examination
        .findings
        .iter()
        .flat_map(|finding| &finding.consequences);
    if consequences.any(|consequence| consequence.unproven) {
        text.push_str("\n?: read in the server's source, not seen on such a server\n");
    }
    text
}

fn notes(version: &VersionOutcome) -> String {
    let mut notes = Vec::new();
    if version.outcome == StartOutcome::StartsAfterSecondStart {
        notes.push("exits with code 0 once and must be started again");
    }
    if version.unproven {
        notes.push("unproven: read in the server's source, not seen");
    }
    if version.older_than_files {
        notes.push("older than these files");
    }

    if notes.is_empty() {
        return String::new();
    }
    format!(" ({})", notes.join("; "))
}

fn finding_text(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let mut text = format!("\n{severity}: ");
    if let Some(file) = &finding.file {
        let _ = write!(text, "{file}: ");
    }
    let _ = writeln!(text, "{}", finding.what);

    // One line for each effect, with all versions that it concerns.
    let mut told: Vec<Effect> = Vec::new();
    for Consequence { effect, .. } in &finding.consequences {
        if told.contains(effect) {
            continue;
        }
        told.push(*effect);

        let versions = versions_with(*effect, &finding.consequences);
        let _ = writeln!(text, "  {versions}: the server {}", effect.phrase());
    }

    if let Some(hint) = &finding.hint {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}

/// The versions on which a finding has this effect. `?` marks versions on which the effect is
/// unproven.
fn versions_with(effect: Effect, consequences: &[Consequence]) -> String {
    let mut versions = Vec::new();
    for consequence in consequences {
        if consequence.effect != effect {
            continue;
        }
        let doubt = if consequence.unproven { "?" } else { "" };
        versions.push(format!("{}{doubt}", consequence.version.name()));
    }
    versions.join(", ")
}
