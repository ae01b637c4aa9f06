//! `kbackup show`.

use std::fmt;

use super::context::VerbContext;
use super::output::size;
use crate::error::Result;
use crate::manifest::{Manifest, Quiet, Row, SecondaryIndex};
use crate::settings::options::ShowOptions;
use crate::verbs;

pub(super) fn run(options: &ShowOptions, context: &VerbContext) -> Result<u8> {
    let manifest = verbs::show::show(options, &context.general, &context.run)?;

    let text = BackupText {
        manifest: &manifest,
        with_files: options.files,
    };
    context
        .output
        .answer("kbackup.backup/1", &manifest, &text)?;
    Ok(0)
}

/// A backup, as text for people.
struct BackupText<'a> {
    manifest: &'a Manifest,
    with_files: bool,
}

impl fmt::Display for BackupText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in facts(self.manifest) {
            writeln!(f, "{name:<22} {value}")?;
        }
        if self.with_files {
            write_files(f, &self.manifest.files)?;
        }
        Ok(())
    }
}

/// Writes a table of files line by line, because there can be tens of thousands.
fn write_files(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let mut path_width = "PATH".len();
    let mut size_width = "BYTES".len();
    for row in rows {
        path_width = path_width.max(row.path.to_string().chars().count());
        size_width = size_width.max(row.size.to_string().len());
    }

    writeln!(
        f,
        "\n{:<path_width$}  {:<size_width$}  MODE  BLAKE3",
        "PATH", "BYTES"
    )?;
    for row in rows {
        let path = row.path.to_string();
        writeln!(
            f,
            "{path:<path_width$}  {:<size_width$}  {:04o}  {}",
            row.size, row.mode, row.blake3
        )?;
    }
    Ok(())
}

/// The facts of a backup, each with its name.
fn facts(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let (log, source) = (&manifest.log, &manifest.source);
    let (totals, cost) = (&manifest.totals, &manifest.cost);
    let read_from = if source.online {
        "running node"
    } else {
        "offline"
    };

    vec![
        ("label", manifest.label.to_string()),
        ("kind", kind(manifest)),
        (
            "sequence",
            format!("{}, branch {}", manifest.sequence, manifest.branch),
        ),
        ("finished", manifest.finished.to_string()),
        (
            "position",
            format!("{} (writer checkpoint {})", log.position, log.read.writer),
        ),
        ("epochs", log.lineage.epochs().len().to_string()),
        ("server", or(&source.server_version, "unknown")),
        ("node", or(&source.identity.endpoint, "not asked")),
        ("database", source.identity.database.to_string()),
        ("taken from", format!("{} ({read_from})", source.db)),
        ("files", format!("{}, {}", totals.files, size(totals.bytes))),
        ("read from the source", size(cost.bytes_read)),
        ("new in the repository", size(cost.bytes_stored)),
        ("index", index(manifest)),
        ("scavenging", scavenging(manifest)),
        ("kurrent.ddb", secondary_index(manifest).to_owned()),
        (
            "damaged chunks",
            manifest.contents.damaged.len().to_string(),
        ),
    ]
}

fn or(value: &Option<String>, missing: &str) -> String {
    match value {
        Some(value) => value.clone(),
        None => missing.to_owned(),
    }
}

fn kind(manifest: &Manifest) -> String {
    match &manifest.parent {
        Some(parent) => format!("{}, parent {parent}", manifest.kind),
        None => manifest.kind.to_string(),
    }
}

fn index(manifest: &Manifest) -> String {
    match manifest.log.index_commit {
        Some(commit) => format!("yes, up to {commit}"),
        None if manifest.contents.index => "yes".to_owned(),
        None => "no".to_owned(),
    }
}

fn secondary_index(manifest: &Manifest) -> &'static str {
    match manifest.contents.secondary_index {
        SecondaryIndex::Absent => "the node has none",
        SecondaryIndex::Included => "included",
        SecondaryIndex::LeftOut => {
            "left out; the server rebuilds it, perhaps without the schema registry"
        }
    }
}

fn scavenging(manifest: &Manifest) -> String {
    let quiet = match manifest.scavenging.quiet {
        Quiet::Confirmed => "none ran, as the node reported",
        Quiet::Inferred => "none was seen; this version of the node cannot report it",
        Quiet::NotAsked => "the node was not asked (--no-quiesce)",
        Quiet::Offline => "no node was running",
    };

    if manifest.scavenging.auto_paused {
        format!("{quiet}; auto-scavenge is paused in this backup")
    } else if manifest.scavenging.was_paused_by_others() {
        format!("{quiet}; auto-scavenge is paused in this backup, but not by kbackup")
    } else {
        quiet.to_owned()
    }
}
