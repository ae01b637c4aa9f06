//! `kbackup list`.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::context::VerbContext;
use super::output::{size, table};
use crate::clock::{self, Timestamp};
use crate::error::{Kind, Result};
use crate::manifest::Fork;
use crate::settings::options::ListOptions;
use crate::verbs::list::{self, ListedContents, ListedFacts, Listing};

pub(super) fn run(options: &ListOptions, context: &VerbContext) -> Result<u8> {
    let listing = list::list(&options.repository, &context.general, &context.run)?;

    let text = text(&listing);
    context.output.answer("kbackup.list/1", &listing, &text)?;

    Ok(listing.worst().map_or(0, Kind::exit_code))
}

fn text(listing: &Listing) -> String {
    let mut text = if listing.backups.is_empty() {
        format!("no backups in `{}`\n", listing.repository)
    } else {
        backups_table(listing)
    };

    for backup in &listing.backups {
        if let ListedContents::Unreadable { hints, .. } = &backup.contents {
            for hint in hints {
                let _ = writeln!(text, "{}: {hint}", backup.label);
            }
        }
    }

    if let Some(left) = &listing.interrupted {
        let _ = writeln!(
            text,
            "an interrupted backup left {}: the next backup resumes the files that it can prove",
            size(left.bytes)
        );
    }
    text
}

fn backups_table(listing: &Listing) -> String {
    let now = clock::now();
    let mut begun_branches = BTreeSet::new();
    let mut rows = Vec::new();

    for backup in &listing.backups {
        let verified = match &backup.verified {
            Some(verified) => verified.to_string(),
            None => "never".to_owned(),
        };

        let mut row = vec![backup.label.to_string()];
        match &backup.contents {
            ListedContents::Readable(facts) => row.extend([
                age(facts.finished, now),
                facts.branch.to_string(),
                facts.position.to_string(),
                size(facts.bytes),
                size(facts.bytes_stored),
                verified,
                notes(facts, now, &mut begun_branches),
            ]),
            ListedContents::Unreadable { error, .. } => {
                row.extend(["-"; 5].map(str::to_owned));
                row.extend([verified, format!("UNREADABLE: {error}")]);
            }
        }
        rows.push(row);
    }

    let header = [
        "LABEL", "AGE", "BRANCH", "POSITION", "SIZE", "NEW", "VERIFIED", "NOTES",
    ];
    table(&header, rows)
}

/// The notes on a backup. Only the first backup of a branch says where the branch begins.
fn notes(facts: &ListedFacts, now: Timestamp, begun_branches: &mut BTreeSet<u32>) -> String {
    let mut notes = Vec::new();
    if let Some(ahead) = clock::ahead(facts.finished, now) {
        notes.push(format!(
            "from the future, by {}: a clock is or was wrong",
            length(ahead.as_secs())
        ));
    }
    if facts.damaged {
        notes.push("damaged at the source".to_owned());
    }
    if !facts.index {
        notes.push("no index".to_owned());
    }
    if let Some(fork) = &facts.forked_from
        && begun_branches.insert(facts.branch)
    {
        notes.push(fork_note(facts.branch, fork));
    }
    notes.join(", ")
}

fn fork_note(branch: u32, fork: &Fork) -> String {
    let mut note = format!(
        "branch {branch} parts from {} at {}",
        fork.branch, fork.position
    );
    if let Some(label) = &fork.label {
        let _ = write!(note, ", after {label}");
    }
    note
}

/// How long ago, in the largest unit that fits; `?` if a clock is or was wrong.
fn age(then: Timestamp, now: Timestamp) -> String {
    if clock::ahead(then, now).is_some() {
        return "?".to_owned();
    }
    length(clock::between(then, now).as_secs())
}

fn length(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}
