use std::fmt::{self, Write};

use super::Session;
use super::output::size;
use crate::error::{Error, Kind, Result};
use crate::manifest::{Manifest, Quiet, Row, SecondaryIndex};
use crate::repository::{Location, Repository};
use crate::settings::arguments;
use crate::verbs::verify::label;

pub(super) fn run(options: &arguments::Show, session: &Session) -> Result<u8> {
    let label = label(&options.label)?;
    let repository = Location::parse(&options.repository.repo)?.open()?;
    let manifest = match label {
        Some(label) => repository.manifest(&label)?,
        None => newest(&*repository)?,
    };
    let text = Text {
        manifest: &manifest,
        files: options.files,
    };
    session
        .output
        .answer("kbackup.backup/1", &manifest, &text)?;
    Ok(0)
}

/// A backup, for people.
struct Text<'a> {
    manifest: &'a Manifest,
    /// Its files, too.
    files: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self.manifest))?;
        if !self.files {
            return Ok(());
        }
        // Line by line: there can be tens of thousands.
        let rows = &self.manifest.files;
        let digits = |size: u64| size.to_string().len();
        let path = rows
            .iter()
            .map(|row| row.path.to_string().chars().count())
            .chain(["PATH".len()])
            .max()
            .unwrap_or_default();
        let bytes = rows
            .iter()
            .map(|row| digits(row.size))
            .chain(["BYTES".len()])
            .max()
            .unwrap_or_default();
        writeln!(f, "\n{:<path$}  {:<bytes$}  MODE  BLAKE3", "PATH", "BYTES")?;
        for Row {
            path: name,
            size,
            mode,
            blake3,
            ..
        } in rows
        {
            writeln!(
                f,
                "{:<path$}  {size:<bytes$}  {mode:04o}  {blake3}",
                name.to_string()
            )?;
        }
        Ok(())
    }
}

fn newest(repository: &dyn Repository) -> Result<Manifest> {
    let newest = repository.list()?.pop().ok_or_else(|| {
        Error::new(Kind::NotFound, "the repository has no backup").on(repository.place())
    })?;
    repository.manifest(&newest.label)
}

fn text(manifest: &Manifest) -> String {
    let yes = |it: bool| if it { "yes" } else { "no" };
    let source = &manifest.source;
    let lines = [
        ("label", manifest.label.to_string()),
        (
            "kind",
            format!(
                "{}{}",
                manifest.kind,
                manifest
                    .parent
                    .as_ref()
                    .map_or_else(String::new, |parent| format!(" on {parent}"))
            ),
        ),
        (
            "sequence",
            format!("{}, branch {}", manifest.sequence, manifest.branch),
        ),
        ("finished", manifest.finished.to_string()),
        (
            "position",
            format!(
                "{} (writer checkpoint {})",
                manifest.log.position, manifest.log.read.writer
            ),
        ),
        ("epochs", manifest.log.lineage.epochs().len().to_string()),
        (
            "server",
            source
                .server_version
                .clone()
                .unwrap_or_else(|| "unknown".to_owned()),
        ),
        (
            "node",
            source
                .identity
                .endpoint
                .clone()
                .unwrap_or_else(|| "not asked".to_owned()),
        ),
        ("database", source.identity.database.to_string()),
        (
            "taken from",
            format!(
                "{} ({})",
                source.db,
                if source.online {
                    "running node"
                } else {
                    "offline"
                }
            ),
        ),
        (
            "files",
            format!("{}, {}", manifest.totals.files, size(manifest.totals.bytes)),
        ),
        ("read from the source", size(manifest.cost.bytes_read)),
        ("new in the repository", size(manifest.cost.bytes_stored)),
        (
            "index",
            manifest.log.index_commit.map_or_else(
                || yes(manifest.contents.index).to_owned(),
                |commit| format!("yes, up to {commit}"),
            ),
        ),
        ("scavenging", scavenging(manifest)),
        (
            "kurrent.ddb",
            match manifest.contents.secondary_index {
                SecondaryIndex::Absent => "the node has none",
                SecondaryIndex::Included => "included",
                SecondaryIndex::LeftOut => {
                    "left out; the server rebuilds it, perhaps without the schema registry"
                }
            }
            .to_owned(),
        ),
        (
            "damaged chunks",
            manifest.contents.damaged.len().to_string(),
        ),
    ];
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<22} {value}");
        text
    })
}

fn scavenging(manifest: &Manifest) -> String {
    let quiet = match manifest.scavenging.quiet {
        Quiet::Confirmed => "none ran, says the node",
        Quiet::Inferred => "none was seen; this version of the node cannot say",
        Quiet::NotAsked => "not asked (--no-quiesce)",
        Quiet::Offline => "no node was running",
    };
    let paused = if manifest.scavenging.auto_paused {
        "; auto-scavenge is paused in this backup"
    } else {
        ""
    };
    format!("{quiet}{paused}")
}
