//! `kbackup check`.

use std::fmt::Write;
use std::path::Path;

use super::Session;
use super::output::count;
use crate::error::{Error, Kind, Result};
use crate::fs;
use crate::manifest::Directories;
use crate::node;
use crate::proof::{
    self, Depth, Effect, Examination, Finding, Options, Outcome, Severity, VersionOutcome,
};
use crate::server::ServerLine;
use crate::settings::arguments;

pub(super) fn run(options: &arguments::Check, session: &Session) -> Result<u8> {
    let usage = |what: &str| {
        Err(Error::new(Kind::Usage, what)
            .at(&options.directory)
            .hint("name a server's db directory"))
    };
    match fs::status_of_target(&options.directory)? {
        None => return usage("there is no such directory"),
        Some(status) if status.kind != fs::FileKind::Directory => {
            return usage("this is no directory");
        }
        Some(_) => {}
    }
    let is_servers = |name: &str| name.starts_with("chunk-") || name.ends_with(".chk");
    if !fs::list(&options.directory)?
        .iter()
        .any(|entry| is_servers(&entry.name.to_string_lossy()))
    {
        return usage("there is neither a chunk nor a checkpoint in this directory");
    }
    let directories = Directories::new(fs::canonical(&options.directory)?, options.index.clone());
    let version = options.server_version.as_deref().map(line).transpose()?;
    let in_use = node::probe(&directories, None)?.is_running();
    let depth = match (options.quick, options.deep) {
        (true, _) => Depth::Quick,
        (false, true) => Depth::Deep,
        (false, false) => Depth::Normal,
    };
    let examination = proof::examine(
        &directories,
        &Options {
            version,
            depth,
            in_use,
        },
        &session.run,
    )?;
    session.output.answer(
        "kbackup.check/1",
        &session.with_warnings(&examination)?,
        &text(&directories.db, &examination),
    )?;
    Ok(examination
        .kind()
        .map_or_else(|| session.done(), Kind::exit_code))
}

fn line(version: &str) -> Result<ServerLine> {
    ServerLine::of_version(version).ok_or_else(|| {
        Error::new(Kind::Usage, "no version of the server that is known")
            .on(version)
            .hint("write it as `24.10` or `26.1.0`")
    })
}

fn text(place: &Path, examination: &Examination) -> String {
    let mut text = format!("{}: {}\n", place.display(), examination.verdict.phrase());
    if examination.in_use {
        text.push_str("a server works on these files right now: what looks wrong may be a change caught half-way\n");
    }
    if let Some(log) = &examination.log {
        let chunks = count(log.chunks, "chunk file");
        let _ = match log.position {
            Some(position) => writeln!(text, "the log ends at position {position}, in {chunks}"),
            None => writeln!(text, "the log has no end that could be found, in {chunks}"),
        };
    }
    if let Some(index) = &examination.index {
        let commit = index
            .commit
            .map_or_else(|| "nothing".to_owned(), |commit| format!("up to {commit}"));
        let _ = writeln!(
            text,
            "the index has {}, {commit}",
            count(index.tables, "table")
        );
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
    text
}

fn notes(version: &VersionOutcome) -> String {
    let again = version.outcome == Outcome::StartsAfterSecondStart;
    let notes = [
        (again, "exits with code 0 once and must be started again"),
        (
            version.unproven,
            "unproven: read in the server's source, not seen",
        ),
        (version.older_than_files, "older than these files"),
    ];
    let notes: Vec<&str> = notes
        .iter()
        .filter(|(applies, _)| *applies)
        .map(|(_, note)| *note)
        .collect();
    if notes.is_empty() {
        String::new()
    } else {
        format!(" ({})", notes.join("; "))
    }
}

fn finding_text(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let place = finding
        .file
        .as_ref()
        .map_or_else(String::new, |file| format!("{file}: "));
    let mut text = format!("\n{severity}: {place}{}\n", finding.what);
    let mut told: Vec<Effect> = Vec::new();
    for consequence in &finding.consequences {
        if told.contains(&consequence.effect) {
            continue;
        }
        told.push(consequence.effect);
        let alike = finding
            .consequences
            .iter()
            .filter(|other| other.effect == consequence.effect);
        let versions: Vec<String> = alike
            .map(|other| {
                format!(
                    "{}{}",
                    other.version.name(),
                    if other.unproven { "?" } else { "" }
                )
            })
            .collect();
        let _ = writeln!(
            text,
            "  {}: the server {}",
            versions.join(", "),
            consequence.effect.phrase()
        );
    }
    if let Some(hint) = &finding.hint {
        let _ = writeln!(text, "  hint: {hint}");
    }
    text
}
