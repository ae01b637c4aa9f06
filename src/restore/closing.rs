//! What kbackup tells the operator about a restored directory: what the first start does, what no
//! backup holds, and what is left to do.

use std::fmt;

use bytesize::ByteSize;
use serde::Serialize;

use super::outcome::{
    DirectoryOutcome, FirstStart, FirstStartBehaviour, IndexOutcome, SecondaryIndexOutcome,
};
use crate::format::{Boundary, Lineage};
use crate::manifest::Head;
use crate::server::facts::REFUSES_OLD_TABLES;

/// Everything that the operator has to know about a restored directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosingNotes {
    /// What the server does when it is started.
    pub first_start: FirstStart,
    /// The position where the log ends.
    pub position: Boundary,
    /// The epochs of the restored log, oldest first.
    pub lineage: Lineage,
    /// Whether the restore brings the index back, and the server uses it. Otherwise the server
    /// rebuilds it from the whole log.
    pub index_carried: bool,
    #[serde(skip)]
    index: IndexOutcome,
    /// What the operator may miss, because no backup holds it.
    pub not_inside: Vec<ClosingNote>,
    /// What is left to do, or to think of.
    pub to_do: Vec<ClosingNote>,
}

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosingNote {
    /// Names the note for programs; never changes.
    pub topic: &'static str,
    /// Explains it to people.
    pub text: String,
}

impl ClosingNotes {
    pub(super) fn new(head: &Head, outcome: &DirectoryOutcome) -> Self {
        Self {
            first_start: outcome.first_start.clone(),
            position: head.log.position,
            lineage: head.log.lineage.clone(),
            index_carried: outcome.index == IndexOutcome::Carried,
            index: outcome.index,
            not_inside: not_inside(head, outcome),
            to_do: to_do(head, outcome),
        }
    }
}

fn note(topic: &'static str, text: &str) -> ClosingNote {
    ClosingNote {
        topic,
        text: text.to_owned(),
    }
}

fn not_inside(head: &Head, outcome: &DirectoryOutcome) -> Vec<ClosingNote> {
    let mut notes = Vec::new();

    match outcome.secondary_index {
        SecondaryIndexOutcome::Absent | SecondaryIndexOutcome::Carried => {}
        SecondaryIndexOutcome::MayBeAhead | SecondaryIndexOutcome::NotInBackup => notes.push(note(
            "secondary-index",
            "`kurrent.ddb`: the server rebuilds the secondary indexes from the log; schemas that \
             were registered before may not come back by themselves",
        )),
    }
    if head.contents.archive {
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

fn to_do(head: &Head, outcome: &DirectoryOutcome) -> Vec<ClosingNote> {
    let mut notes = Vec::new();

    match outcome.first_start.behaviour {
        FirstStartBehaviour::ExitsOnce => notes.push(note(
            "start-again",
            "start the server a second time; a supervisor that restarts only after failures does \
             not do it (`--ready` makes the first start enough)",
        )),
        FirstStartBehaviour::MayExitOnce => notes.push(note(
            "start-again",
            "if the server exits with code 0, start it a second time",
        )),
        FirstStartBehaviour::Starts | FirstStartBehaviour::TruncatesAndStarts => {}
    }
    match outcome.index {
        IndexOutcome::Carried => {}
        IndexOutcome::NotInBackup => notes.push(note(
            "index-rebuild",
            "expect a long first start: the backup holds no index, and the server builds it anew \
             from the whole log",
        )),
        IndexOutcome::Refused => notes.push(ClosingNote {
            topic: "index-rebuild",
            text: format!(
                "expect a long first start: the server copies the index to `index-backup-…` beside \
                 it ({}), and builds it anew from the whole log; if you remove the files of the \
                 index directory before, it copies nothing",
                ByteSize(outcome.bytes_copied_aside())
            ),
        }),
    }
    if outcome.lacks_stream_filter {
        notes.push(note(
            "stream-filter-rebuild",
            "the backup holds no stream-existence filter: the server builds it at its first start",
        ));
    }
    if head.scavenging.auto_paused {
        notes.push(note(
            "resume-auto-scavenge",
            "resume auto-scavenge with `POST /auto-scavenge/resume`: it comes up paused, because \
             it was paused for the backup and the log says so",
        ));
    }
    if head.scavenging.was_paused_by_others() {
        notes.push(note(
            "auto-scavenge-was-paused",
            "auto-scavenge comes up paused, because somebody else had paused it before the \
             backup; if it shall run, resume it with `POST /auto-scavenge/resume`",
        ));
    }
    if head.contents.archive {
        notes.push(note(
            "archive",
            "switch the archive off, or use another one, if the server shall stay at this \
             position: with the archive it fetches everything that was archived after this backup",
        ));
    }

    notes.extend([
        note(
            "other-members",
            "before this member meets others of its cluster: empty their directories, or restore \
             this same backup to them; members with a later or another log would win over it",
        ),
        note(
            "consumers",
            "set back consumers, read models and external replicas that had read beyond this \
             position",
        ),
        note(
            "test-copy",
            "for a test copy: switch connectors and the archive off before the first start, so \
             that it does not act in the original's name",
        ),
        note(
            "full-backup",
            "once the node is in service again, take a full backup of it",
        ),
    ]);
    notes
}

impl fmt::Display for ClosingNotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "first start: {}", self.first_start.text)?;
        let log = ByteSize(self.position.position().get());
        match self.index {
            IndexOutcome::Carried => writeln!(f, "index: carried along")?,
            IndexOutcome::NotInBackup => writeln!(
                f,
                "index: rebuilt by the server from the whole log ({log}), because the backup holds \
                 none"
            )?,
            IndexOutcome::Refused => writeln!(
                f,
                "index: rebuilt by the server from the whole log ({log}), because servers \
                 {REFUSES_OLD_TABLES} refuse its tables of format version 1"
            )?,
        }

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
