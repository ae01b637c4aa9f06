use std::fmt;

use serde::Serialize;

use super::plan::Truncation;
use crate::format::{Boundary, Lineage};
use crate::manifest::{Manifest, SecondaryIndex};
use crate::server::ServerVersion;
use crate::server::facts::EXITS_AFTER_TRUNCATION;

/// What the operator has to know about a restored directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Closing {
    /// What the server will do when it is started.
    pub first_start: FirstStart,
    /// The log ends here.
    pub position: Boundary,
    /// The epochs of the restored log, oldest first.
    pub lineage: Lineage,
    /// The index came along; else the server rebuilds it from the whole log.
    pub index_carried: bool,
    /// What the operator may miss, because no backup holds it.
    pub not_inside: Vec<Note>,
    /// What is left to do, or to think of.
    pub to_do: Vec<Note>,
}

/// The first start of the server in a restored directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstStart {
    /// In a word.
    pub behaviour: Behaviour,
    /// In a sentence.
    pub text: String,
}

/// What a server does at its first start (O10, O11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// It comes up.
    Starts,
    /// It truncates, which changes nothing here, and comes up.
    TruncatesAndStarts,
    /// It truncates, which changes nothing here, exits with code 0, and has to be started again.
    ExitsOnce,
    /// As one of the two before: its version is not known.
    MayExitOnce,
}

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Names it for programs; never changes.
    pub topic: &'static str,
    /// Explains it to people.
    pub text: String,
}

impl Closing {
    pub(super) fn new(
        manifest: &Manifest,
        truncation: &Truncation,
        server: Option<&ServerVersion>,
    ) -> Self {
        let first_start = FirstStart::new(truncation, server);
        Self {
            position: manifest.log.position,
            lineage: manifest.log.lineage.clone(),
            index_carried: manifest.contents.index,
            not_inside: not_inside(manifest, super::plan::carries_secondary_index(manifest)),
            to_do: to_do(manifest, first_start.behaviour),
            first_start,
        }
    }
}

impl FirstStart {
    fn new(truncation: &Truncation, server: Option<&ServerVersion>) -> Self {
        let (behaviour, text) = match (truncation.value(), server) {
            (None, _) => (
                Behaviour::Starts,
                "the server comes up at its first start".to_owned(),
            ),
            (Some(_), Some(server)) if server.has(EXITS_AFTER_TRUNCATION) => (
                Behaviour::ExitsOnce,
                format!(
                    "a server of version {server} exits once with code 0 after its truncation, which removes nothing, and has to be started again"
                ),
            ),
            (Some(_), Some(server)) => (
                Behaviour::TruncatesAndStarts,
                format!(
                    "a server of version {server} runs its truncation, which removes nothing, and comes up"
                ),
            ),
            (Some(_), None) => (
                Behaviour::MayExitOnce,
                format!(
                    "the server runs its truncation, which removes nothing; {EXITS_AFTER_TRUNCATION} it then exits once with code 0 and has to be started again"
                ),
            ),
        };
        Self { behaviour, text }
    }
}

fn note(topic: &'static str, text: impl Into<String>) -> Note {
    Note {
        topic,
        text: text.into(),
    }
}

fn not_inside(manifest: &Manifest, secondary_index: bool) -> Vec<Note> {
    let mut notes = Vec::new();
    if manifest.contents.secondary_index != SecondaryIndex::Absent && !secondary_index {
        notes.push(note(
            "secondary-index",
            "`kurrent.ddb`: the server rebuilds the secondary indexes from the log; schemas that were registered before may not come back by themselves",
        ));
    }
    if manifest.contents.archive {
        notes.push(note(
            "archive",
            "the chunks in the archive: the server needs access to it from its first start on",
        ));
    }
    notes.extend([
        note("configuration", "the server's configuration"),
        note("certificates", "certificates and their keys"),
        note(
            "master-keys",
            "master keys of encryption at rest, and keys of connectors",
        ),
        note("licence", "the licence key"),
    ]);
    notes
}

fn to_do(manifest: &Manifest, behaviour: Behaviour) -> Vec<Note> {
    let mut notes = Vec::new();
    match behaviour {
        Behaviour::ExitsOnce => notes.push(note(
            "start-again",
            "start the server a second time; a supervisor that restarts only after failures does not do it (`--ready` makes the first start enough)",
        )),
        Behaviour::MayExitOnce => notes.push(note("start-again", "if the server exits with code 0, start it a second time")),
        Behaviour::Starts | Behaviour::TruncatesAndStarts => {}
    }
    if !manifest.contents.index {
        notes.push(note(
            "index-rebuild",
            "expect a long first start: the backup holds no index, and the server builds it anew from the whole log",
        ));
    }
    if manifest.scavenging.auto_paused {
        notes.push(note(
            "resume-auto-scavenge",
            "auto-scavenge comes up paused, because it was paused for the backup and the log says so: `POST /auto-scavenge/resume`",
        ));
    }
    if manifest.contents.archive {
        notes.push(note(
            "archive",
            "a server with the archive switched on fetches everything that was archived after this backup; switch it off, or use another archive, to stay at this position",
        ));
    }
    notes.extend([
        note(
            "other-members",
            "before this member meets others of its cluster: empty their directories, or restore this same backup to them; members with a later or another log would win over it",
        ),
        note("consumers", "consumers, read models and replicas outside that had read beyond this position have to be set back"),
        note("test-copy", "for a test copy: switch connectors and the archive off before the first start, so that it does not act in the original's name"),
        note("full-backup", "once the node is in service again, take a full backup of it"),
    ]);
    notes
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "first start: {}", self.first_start.text)?;
        writeln!(
            f,
            "index: {}",
            if self.index_carried {
                "carried along"
            } else {
                "rebuilt by the server"
            }
        )?;
        writeln!(f, "not in the backup:")?;
        for note in &self.not_inside {
            writeln!(f, "  - {}", note.text)?;
        }
        writeln!(f, "to do:")?;
        for note in &self.to_do {
            writeln!(f, "  - {}", note.text)?;
        }
        Ok(())
    }
}
