use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::Session;
use super::output::{size, table};
use crate::clock::{self, Timestamp};
use crate::error::{Kind, Result};
use crate::manifest::{BackupKind, Fork, Head, Label, forks};
use crate::repository::{Interrupted, Listed, Location, Remembered, Repository, remembered};
use crate::settings::arguments;

#[derive(Serialize)]
struct Answer {
    repository: String,
    backups: Vec<Line>,
    /// What the next backup takes up.
    interrupted: Option<Interrupted>,
}

/// One backup, as `list` shows it.
#[derive(Serialize)]
struct Line {
    label: Label,
    #[serde(flatten)]
    state: State,
    verified: Option<Remembered>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum State {
    Readable {
        kind: BackupKind,
        sequence: u64,
        branch: u32,
        forked_from: Option<Fork>,
        parent: Option<Label>,
        finished: Timestamp,
        position: u64,
        bytes: u64,
        bytes_stored: u64,
        damaged: bool,
        index: bool,
    },
    Damaged {
        error: String,
    },
}

pub(super) fn run(options: &arguments::List, session: &Session) -> Result<u8> {
    let repository = Location::parse(&options.repository.repo)?.open()?;
    let listed = repository.list()?;
    let any_damaged = listed.iter().any(|backup| backup.head.is_err());
    let readable: Vec<&Head> = listed
        .iter()
        .filter_map(|backup| backup.head.as_ref().ok())
        .collect();
    let forks = forks(&readable);
    let backups = listed
        .into_iter()
        .map(|backup| line(&*repository, backup, &forks))
        .collect::<Result<Vec<_>>>()?;
    let interrupted = repository.interrupted()?;
    let mut text = text(&*repository, &backups);
    if let Some(left) = interrupted {
        let _ = writeln!(
            text,
            "an interrupted backup left {}: the next one takes up what proves right",
            size(left.bytes)
        );
    }
    session.output.answer(
        "kbackup.list/1",
        &Answer {
            repository: repository.place(),
            backups,
            interrupted,
        },
        &text,
    )?;
    Ok(if any_damaged {
        Kind::StoredCorrupt.exit_code()
    } else {
        0
    })
}

fn line(repository: &dyn Repository, backup: Listed, forks: &BTreeMap<u32, Fork>) -> Result<Line> {
    let verified = remembered(repository, &backup.label)?;
    let state = match backup.head {
        Ok(manifest) => readable(&manifest, forks.get(&manifest.branch)),
        Err(error) => State::Damaged {
            error: error.to_string(),
        },
    };
    Ok(Line {
        label: backup.label,
        state,
        verified,
    })
}

fn readable(manifest: &Head, fork: Option<&Fork>) -> State {
    State::Readable {
        kind: manifest.kind,
        sequence: manifest.sequence,
        branch: manifest.branch,
        forked_from: fork.cloned(),
        parent: manifest.parent.clone(),
        finished: manifest.finished,
        position: manifest.log.position.position().get(),
        bytes: manifest.totals.bytes,
        bytes_stored: manifest.cost.bytes_new(),
        damaged: !manifest.is_sound(),
        index: manifest.contents.index,
    }
}

fn text(repository: &dyn Repository, backups: &[Line]) -> String {
    if backups.is_empty() {
        return format!("no backups in `{}`\n", repository.place());
    }
    let mut begun = BTreeSet::new();
    let rows = backups.iter().map(|backup| {
        let verified = backup
            .verified
            .as_ref()
            .map_or_else(|| "never".to_owned(), ToString::to_string);
        match &backup.state {
            State::Readable {
                branch,
                forked_from,
                finished,
                position,
                bytes,
                bytes_stored,
                damaged,
                index,
                ..
            } => vec![
                backup.label.to_string(),
                age(*finished),
                branch.to_string(),
                position.to_string(),
                size(*bytes),
                size(*bytes_stored),
                verified,
                [(*damaged, "damaged at the source"), (!*index, "no index")]
                    .iter()
                    .filter(|(is, _)| *is)
                    .map(|(_, note)| (*note).to_owned())
                    .chain(
                        forked_from
                            .as_ref()
                            .filter(|_| begun.insert(*branch))
                            .map(|fork| parts(*branch, fork)),
                    )
                    .collect::<Vec<_>>()
                    .join(", "),
            ],
            State::Damaged { error } => {
                let dash = || "-".to_owned();
                vec![
                    backup.label.to_string(),
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                    dash(),
                    verified,
                    format!("UNREADABLE: {error}"),
                ]
            }
        }
    });
    table(
        &[
            "LABEL", "AGE", "BRANCH", "POSITION", "SIZE", "NEW", "VERIFIED", "NOTES",
        ],
        rows.collect(),
    )
}

fn parts(branch: u32, fork: &Fork) -> String {
    let after = fork
        .label
        .as_ref()
        .map_or_else(String::new, |label| format!(", after {label}"));
    format!(
        "branch {branch} parts from {} at {}{after}",
        fork.branch, fork.position
    )
}

/// How long ago, in the largest unit that fits.
pub(super) fn age(then: Timestamp) -> String {
    let seconds = clock::now()
        .as_second()
        .saturating_sub(then.as_second())
        .max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}
