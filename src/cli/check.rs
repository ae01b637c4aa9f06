//! `kbackup check`.

use std::fmt::Write;
use std::path::Path;

use super::context::VerbContext;
use super::output::count;
use crate::error::{Kind, Result};
use crate::proof::{
    Consequence, Effect, Examination, Finding, Severity, StartOutcome, StartVerdict, VersionOutcome,
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
    let mut text = format!("{}: {}\n", place.display(), headline(examination));

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

/// The verdict as a sentence that is true of every line below it. If the versions differ, it names
/// those that the verdict is about.
fn headline(examination: &Examination) -> String {
    let Examination {
        verdict, versions, ..
    } = examination;
    let phrase = verdict.phrase();

    let mut concerned = Vec::new();
    for version in versions {
        if version.verdict == *verdict && !version.older_than_files {
            concerned.push(version.version.name());
        }
    }
    let is_alike = versions.iter().all(|version| version.verdict == *verdict);

    match (is_alike, versions.as_slice()) {
        (_, [only]) => format!("a server {} {phrase}", only.version.name()),
        (true, _) if *verdict == StartVerdict::Refuses => "no server starts".to_owned(),
        (true, _) => format!("a server {phrase}"),
        (false, _) => format!(
            "it depends on the version: a server {} {phrase}",
            in_words(&concerned)
        ),
    }
}

/// A choice of names: `24.10, 25.0 or 26.1`.
fn in_words(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} or {last}", before.join(", ")),
        None => String::new(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{Depth, StartVerdict};
    use crate::server::ServerLine;

    fn version(version: ServerLine, verdict: StartVerdict, is_older: bool) -> VersionOutcome {
        VersionOutcome {
            version,
            outcome: StartOutcome::Starts,
            verdict,
            loses: Vec::new(),
            rebuilds: Vec::new(),
            unproven: false,
            older_than_files: is_older,
        }
    }

    fn headline_of(versions: Vec<VersionOutcome>, verdict: StartVerdict) -> String {
        headline(&Examination {
            verdict,
            depth: Depth::Normal,
            in_use: false,
            versions,
            findings: Vec::new(),
            log: None,
            index: None,
        })
    }

    #[test]
    fn the_headline_is_true_of_every_version_below_it() {
        use StartVerdict::{Refuses, Starts};
        let [old, middle, .., new] = ServerLine::ALL;

        let alike = |verdict| {
            let versions = vec![version(old, verdict, true), version(new, verdict, false)];
            headline_of(versions, verdict)
        };
        assert_eq!(alike(Starts), "a server starts with everything");
        assert_eq!(alike(Refuses), "no server starts");

        let one = vec![version(new, Refuses, false)];
        assert_eq!(
            headline_of(one, Refuses),
            format!("a server {} does not start", new.name())
        );

        // Older servers start, whether or not they count.
        for is_older in [true, false] {
            let versions = vec![
                version(old, Starts, is_older),
                version(middle, Refuses, false),
                version(new, Refuses, false),
            ];
            let expected = format!(
                "it depends on the version: a server {} or {} does not start",
                middle.name(),
                new.name()
            );
            assert_eq!(headline_of(versions, Refuses), expected);
        }
    }
}
