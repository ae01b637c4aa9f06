//! Which of a repository's backups is this one's predecessor? One repository holds one node, and
//! the branches of its log are never mixed.

use super::Request;
use super::survey::Shelf;
use crate::error::{Error, Kind, Result};
use crate::format::{Lineage, LogPosition, Relation};
use crate::manifest::{BackupKind, Head, Identity, Label, RestoredFrom};
use crate::run::Run;

/// The source, as far as it tells whose log it is.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) identity: &'a Identity,
    pub(super) lineage: &'a Lineage,
    /// End of the log now.
    pub(super) end: LogPosition,
    pub(super) restored: Option<&'a RestoredFrom>,
}

/// The place of a new backup among those that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) branch: u32,
    pub(super) sequence: u64,
    pub(super) kind: BackupKind,
    /// What a diff builds on: the newest sound backup of the branch that ends in the log as it is
    /// now.
    pub(super) parent: Option<Label>,
    /// Where the log of that backup ends, also for a full.
    pub(super) held_up_to: Option<LogPosition>,
}

/// Finds the place.
///
/// # Errors
/// `Refused` where the repository belongs to another node, or the log went another way and the
/// operator has not said that this is meant.
pub(super) fn place(shelf: &Shelf, seen: &Seen<'_>, request: &Request, run: &Run) -> Result<Place> {
    let (backups, wanted) = (&shelf.backups, request.kind);
    is_of_this_node(backups, seen.identity, request.new_address, run)?;
    let newest = backups.last();
    let sequence = newest
        .map_or(Some(1), |newest| newest.sequence.checked_add(1))
        .ok_or_else(|| no_more_numbers(newest))?;
    let Some(newest) = newest else {
        if wanted == BackupKind::Diff {
            run.note("there is no backup yet, so this diff is a full");
        }
        return Ok(Place {
            branch: 1,
            sequence,
            kind: BackupKind::Full,
            parent: None,
            held_up_to: None,
        });
    };
    let tips = tips(backups);
    // The newest backup of a branch may be of an older copy that both ways have in common: the log
    // has to go on from all of them.
    let stray = |branch: u32| {
        backups
            .iter()
            .rev()
            .find(|backup| backup.branch == branch && !goes_on(backup, seen))
    };
    let Some(tip) = tips.iter().rev().find(|tip| stray(tip.branch).is_none()) else {
        if !request.new_branch {
            return Err(other_branch(
                stray(newest.branch).unwrap_or(newest),
                newest,
                seen,
            ));
        }
        run.note("the log went another way: a new branch begins, and everything is read");
        let branch = tips
            .iter()
            .map(|tip| tip.branch)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        return Ok(Place {
            branch,
            sequence,
            kind: BackupKind::Full,
            parent: None,
            held_up_to: None,
        });
    };
    let mut sound = backups.iter().rev().filter(|backup| {
        backup.branch == tip.branch && shelf.is_usable(backup) && goes_on(backup, seen)
    });
    let newest_sound = sound.clone().next();
    // Only what ends in the log at hand can be built upon.
    let parent = sound.find(|backup| backup.log.position.position() <= seen.end);
    let kind = match (wanted, parent) {
        (BackupKind::Diff, Some(parent)) if parent.source.restored.as_ref() == seen.restored => {
            BackupKind::Diff
        }
        (BackupKind::Diff, Some(_)) => {
            run.note("the directory was restored since the last backup, so this diff is a full: everything is proven again");
            BackupKind::Full
        }
        (BackupKind::Diff, None) => {
            run.note(
                "the branch has no sound backup that this log goes on from, so this diff is a full",
            );
            BackupKind::Full
        }
        (BackupKind::Full, _) => BackupKind::Full,
    };
    if let Some(newest) = newest_sound.filter(|newest| newest.log.position.position() > seen.end) {
        run.warn(format!(
            "the log ends at {}, before the end of {} at {}: is this an older copy of the node?",
            seen.end, newest.label, newest.log.position
        ));
    }
    let held_up_to = parent.map(|parent| parent.log.position.position());
    let parent = parent
        .filter(|_| kind == BackupKind::Diff)
        .map(|parent| parent.label.clone());
    Ok(Place {
        branch: tip.branch,
        sequence,
        kind,
        parent,
        held_up_to,
    })
}

/// One database, for ever; and one address, which is what the newest backup of a node that told one
/// says.
fn is_of_this_node(backups: &[Head], ours: &Identity, new_address: bool, run: &Run) -> Result<()> {
    if let Some(other) = backups
        .iter()
        .find(|backup| backup.source.identity.database != ours.database)
    {
        return Err(of_another_node(&other.source.identity, ours));
    }
    let last = backups
        .iter()
        .rev()
        .find(|backup| backup.source.identity.endpoint.is_some())
        .map(|backup| &backup.source.identity);
    match last {
        Some(last) if ours.endpoint.is_some() && last.endpoint != ours.endpoint => {
            if !new_address {
                return Err(
                    of_another_node(last, ours).hint("if it is the same node, and only its address has changed, say `--new-address` once")
                );
            }
            let name = |identity: &Identity| identity.endpoint.clone().unwrap_or_default();
            run.note(format!(
                "the node's address was {}, and is {} from now on",
                name(last),
                name(ours)
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The newest backup of each branch, oldest first.
fn tips(backups: &[Head]) -> Vec<&Head> {
    let is_tip = |index: usize, branch: u32| {
        backups
            .iter()
            .skip(index + 1)
            .all(|later| later.branch != branch)
    };
    backups
        .iter()
        .enumerate()
        .filter(|(index, backup)| is_tip(*index, backup.branch))
        .map(|(_, backup)| backup)
        .collect()
}

fn goes_on(backup: &Head, seen: &Seen<'_>) -> bool {
    matches!(relation(backup, seen), Relation::Same { .. })
}

fn relation(backup: &Head, seen: &Seen<'_>) -> Relation {
    backup
        .log
        .lineage
        .relation(backup.log.position.position(), seen.lineage, seen.end)
}

/// No repository has so many backups.
fn no_more_numbers(newest: Option<&Head>) -> Error {
    let error = Error::new(
        Kind::StoredCorrupt,
        format!(
            "the backup with the highest sequence number has {}, and none is left for another one",
            u64::MAX
        ),
    );
    let Some(label) = newest.map(|newest| &newest.label) else {
        return error;
    };
    error
        .on(label)
        .hint(format!("no repository counts that far: the manifest was forged, or damaged by a program. Move `backups/{label}` out of the repository, and then back up again"))
        .hint("who can write one manifest can write others: `kbackup verify --all` tells what is left of the rest")
}

fn of_another_node(theirs: &Identity, ours: &Identity) -> Error {
    let name = |identity: &Identity| {
        format!(
            "{} (database {})",
            identity
                .endpoint
                .as_deref()
                .unwrap_or("a node that was not asked"),
            identity.database
        )
    };
    Error::new(
        Kind::Refused,
        format!(
            "the repository holds backups of {}, this is {}",
            name(theirs),
            name(ours)
        ),
    )
    .hint("each node needs a repository of its own: choose another `--repo`")
}

fn other_branch(stray: &Head, newest: &Head, seen: &Seen<'_>) -> Error {
    let fork = match relation(stray, seen) {
        Relation::Fork { at } => format!("they part at log position {at}"),
        Relation::Same { .. } | Relation::Unrelated => "they have no epoch in common".to_owned(),
    };
    let which = if stray.label == newest.label {
        "the newest backup"
    } else {
        "an earlier backup of the newest one's branch"
    };
    Error::new(Kind::Refused, format!("the node's log is not the one that {which} holds: {fork}")).on(&stray.label).hint(
        "if the node was restored to an earlier point or truncated on purpose, say `--new-branch`: the backups so far stay as they are",
    )
}
