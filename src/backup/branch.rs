//! Which of a repository's backups is this one's predecessor? One repository holds one node, and the branches of its log are never mixed.

use crate::error::{Error, Kind, Result};
use crate::event::Run;
use crate::format::{Lineage, LogPosition, Relation};
use crate::manifest::{BackupKind, Identity, Manifest, RestoredFrom};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) branch: u32,
    pub(super) sequence: u64,
    pub(super) kind: BackupKind,
    /// The newest sound backup of the branch that ends in the log as it is now.
    pub(super) parent: Option<&'a Manifest>,
}

/// Finds the place. `manifests` are all that can be read, oldest first.
///
/// # Errors
/// `Refused` where the repository belongs to another node, or the log went another way and the operator has not said that this is meant.
pub(super) fn place<'a>(manifests: &'a [Manifest], seen: &Seen<'_>, wanted: BackupKind, new_branch: bool, run: &Run) -> Result<Place<'a>> {
    if let Some(other) = manifests.iter().find(|manifest| !manifest.source.identity.may_be(seen.identity)) {
        return Err(of_another_node(&other.source.identity, seen.identity));
    }
    let newest = manifests.last();
    let sequence = newest.map_or(1, |newest| newest.sequence.saturating_add(1));
    let Some(newest) = newest else {
        if wanted == BackupKind::Diff {
            run.note("there is no backup yet, so this diff is a full");
        }
        return Ok(Place { branch: 1, sequence, kind: BackupKind::Full, parent: None });
    };
    let heads = heads(manifests);
    // The newest backup of a branch may be of an older copy that both ways have in common: the log has to go on from all of them.
    let stray = |branch: u32| manifests.iter().rev().find(|manifest| manifest.branch == branch && !goes_on(manifest, seen));
    let Some(head) = heads.iter().rev().find(|head| stray(head.branch).is_none()) else {
        if !new_branch {
            return Err(other_branch(stray(newest.branch).unwrap_or(newest), newest, seen));
        }
        run.note("the log went another way: a new branch begins, and everything is read");
        let branch = heads.iter().map(|head| head.branch).max().unwrap_or(0).saturating_add(1);
        return Ok(Place { branch, sequence, kind: BackupKind::Full, parent: None });
    };
    let mut sound =
        manifests.iter().rev().filter(|manifest| manifest.branch == head.branch && manifest.is_sound() && goes_on(manifest, seen));
    let newest_sound = sound.clone().next();
    // Only what ends in the log at hand can be built upon.
    let parent = sound.find(|manifest| manifest.log.position.position() <= seen.end);
    let kind = match (wanted, parent) {
        (BackupKind::Diff, Some(parent)) if parent.source.restored.as_ref() == seen.restored => BackupKind::Diff,
        (BackupKind::Diff, Some(_)) => {
            run.note("the directory was restored since the last backup, so this diff is a full: everything is proven again");
            BackupKind::Full
        }
        (BackupKind::Diff, None) => {
            run.note("the branch has no sound backup that this log goes on from, so this diff is a full");
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
    Ok(Place { branch: head.branch, sequence, kind, parent })
}

/// The newest backup of each branch, oldest first.
fn heads(manifests: &[Manifest]) -> Vec<&Manifest> {
    let is_head = |index: usize, branch: u32| manifests.iter().skip(index + 1).all(|later| later.branch != branch);
    manifests.iter().enumerate().filter(|(index, manifest)| is_head(*index, manifest.branch)).map(|(_, manifest)| manifest).collect()
}

fn goes_on(manifest: &Manifest, seen: &Seen<'_>) -> bool {
    matches!(relation(manifest, seen), Relation::Same { .. })
}

fn relation(manifest: &Manifest, seen: &Seen<'_>) -> Relation {
    manifest.log.lineage.relation(manifest.log.position.position(), seen.lineage, seen.end)
}

fn of_another_node(theirs: &Identity, ours: &Identity) -> Error {
    let name = |identity: &Identity| {
        format!("{} (database {})", identity.endpoint.as_deref().unwrap_or("a node that was not asked"), identity.database)
    };
    Error::new(Kind::Refused, format!("the repository holds backups of {}, this is {}", name(theirs), name(ours)))
        .hint("each node needs a repository of its own: choose another `--repo`")
}

fn other_branch(stray: &Manifest, newest: &Manifest, seen: &Seen<'_>) -> Error {
    let fork = match relation(stray, seen) {
        Relation::Fork { at } => format!("they part at log position {at}"),
        Relation::Same { .. } | Relation::Unrelated => "they have no epoch in common".to_owned(),
    };
    let which = if stray.label == newest.label { "the newest backup" } else { "an earlier backup of the newest one's branch" };
    Error::new(Kind::Refused, format!("the node's log is not the one that {which} holds: {fork}")).on(&stray.label).hint(
        "if the node was restored to an earlier point or truncated on purpose, say `--new-branch`: the backups so far stay as they are",
    )
}
