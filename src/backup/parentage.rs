//! Which branch a new backup belongs to, and which of the existing backups is its parent. One
//! repository holds one node, and the branches of its log are never mixed.

#[cfg(test)]
mod tests;

use super::existing::ExistingBackups;
use super::request::BackupRequest;
use crate::error::{Error, Kind, Result};
use crate::format::{Lineage, LogPosition, Relation};
use crate::manifest::{BackupKind, Head, Identity, Label, Manifest, RestoredFrom};
use crate::repository::Repository;
use crate::run::Run;

/// What kbackup has to know of the source's log to find the backups that hold its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceLog<'a> {
    pub(super) identity: &'a Identity,
    pub(super) lineage: &'a Lineage,
    /// Where the log ends now.
    pub(super) end: LogPosition,
    pub(super) restored: Option<&'a RestoredFrom>,
}

/// The place of a new backup among the existing ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parentage {
    pub(super) branch: u32,
    pub(super) sequence: u64,
    pub(super) kind: BackupKind,
    /// The backup whose files a diff reuses: the newest sound one of the branch whose log the node
    /// still has.
    pub(super) parent: Option<Label>,
    /// Where the log of that backup ends; also given for a full.
    pub(super) parent_end: Option<LogPosition>,
    /// The address of the node in the newest backup, if the node has another one now.
    pub(super) former_endpoint: Option<String>,
}

impl Parentage {
    /// # Errors
    /// `Refused` if the repository belongs to another node, or if the node's log has left all
    /// branches and the operator has not asked for a new one.
    pub(super) fn find(
        existing: &ExistingBackups,
        log: SourceLog<'_>,
        request: &BackupRequest,
        run: &Run,
    ) -> Result<Self> {
        let backups = &existing.backups;
        let former_endpoint = check_identity(backups, log.identity, request.new_address, run)?;
        let sequence = next_sequence(existing)?;

        let Some(newest) = backups.last() else {
            if request.kind == BackupKind::Diff {
                run.note("there is no backup yet, so this diff is a full");
            }
            return Ok(Self::without_parent(
                next_branch(existing),
                sequence,
                former_endpoint,
            ));
        };
        let Some(branch) = branch_that_continues(backups, log) else {
            if !request.new_branch {
                return Err(left_the_branch(backups, newest, log));
            }
            run.note(
                "the log has left the branch of every backup: a new branch begins, and kbackup \
                 reads everything",
            );
            return Ok(Self::without_parent(
                next_branch(existing),
                sequence,
                former_endpoint,
            ));
        };

        // A backup whose log is longer than the node's cannot be a parent.
        let candidates = candidates(existing, branch, log);
        let parent = candidates
            .iter()
            .copied()
            .find(|backup| backup.log.position.position() <= log.end);
        let kind = kind(request.kind, parent, log, run);
        warn_of_older_copy(candidates.first().copied(), log, run);

        let reused = parent.filter(|_| kind == BackupKind::Diff);
        Ok(Self {
            branch,
            sequence,
            kind,
            parent: reused.map(|parent| parent.label.clone()),
            parent_end: parent.map(|parent| parent.log.position.position()),
            former_endpoint,
        })
    }

    /// Finds the parentage, and reads the parent's manifest. A parent whose rows are damaged is
    /// ignored, and the next one is looked for.
    ///
    /// # Errors
    /// As for [`Self::find`].
    pub(super) fn settle(
        mut existing: ExistingBackups,
        log: SourceLog<'_>,
        request: &BackupRequest,
        repository: &dyn Repository,
        run: &Run,
    ) -> Result<(Self, Option<Manifest>)> {
        loop {
            let parentage = Self::find(&existing, log, request, run)?;
            let Some(label) = &parentage.parent else {
                return Ok((parentage, None));
            };

            match repository.manifest(label) {
                Ok(parent) => return Ok((parentage, Some(parent))),
                Err(error) if error.kind() == Kind::StoredCorrupt => {
                    existing.mark_damaged(label.clone(), &error, run);
                }
                Err(error) => return Err(error),
            }
        }
    }

    const fn without_parent(branch: u32, sequence: u64, former_endpoint: Option<String>) -> Self {
        Self {
            branch,
            sequence,
            kind: BackupKind::Full,
            parent: None,
            parent_end: None,
            former_endpoint,
        }
    }
}

/// A repository belongs to one database for ever. It belongs to one address, too: that of the
/// newest backup of a running node. Returns that address if the node has a new one.
fn check_identity(
    backups: &[Head],
    ours: &Identity,
    new_address: bool,
    run: &Run,
) -> Result<Option<String>> {
    for backup in backups {
        let theirs = &backup.source.identity;
        if theirs.database != ours.database {
            return Err(of_another_node(theirs, ours));
        }
    }

    let Some(last) = last_known_address(backups) else {
        return Ok(None);
    };
    let (Some(before), Some(now)) = (&last.endpoint, &ours.endpoint) else {
        return Ok(None);
    };
    if before == now {
        return Ok(None);
    }
    if !new_address {
        return Err(of_another_node(last, ours).hint(
            "if it is the same node, and only its address has changed, use `--new-address` once",
        ));
    }
    run.note(format!(
        "the node's address was {before}, and is {now} from now on"
    ));
    Ok(Some(before.clone()))
}

fn last_known_address(backups: &[Head]) -> Option<&Identity> {
    let mut identities = backups.iter().rev().map(|backup| &backup.source.identity);
    identities.find(|identity| identity.endpoint.is_some())
}

fn next_sequence(existing: &ExistingBackups) -> Result<u64> {
    let next = existing.given.sequence.checked_add(1);
    next.ok_or_else(|| no_more_numbers(existing.backups.last()))
}

fn next_branch(existing: &ExistingBackups) -> u32 {
    existing.given.branch.saturating_add(1)
}

/// The branch with the newest backup, among the branches that the log continues.
fn branch_that_continues(backups: &[Head], log: SourceLog<'_>) -> Option<u32> {
    let newest_first = backups.iter().rev();
    newest_first
        .map(|backup| backup.branch)
        .find(|branch| backup_left_behind(backups, *branch, log).is_none())
}

/// The newest backup of a branch that the log does not continue. The log has to continue all
/// backups of a branch, not only the newest one: that one may be of an older copy of the node, and
/// then end in the part that both branches share.
fn backup_left_behind<'a>(
    backups: &'a [Head],
    branch: u32,
    log: SourceLog<'_>,
) -> Option<&'a Head> {
    backups
        .iter()
        .rev()
        .find(|backup| backup.branch == branch && !continues(backup, log))
}

fn continues(backup: &Head, log: SourceLog<'_>) -> bool {
    matches!(relation(backup, log), Relation::Same { .. })
}

fn relation(backup: &Head, log: SourceLog<'_>) -> Relation {
    let end = backup.log.position.position();
    backup.log.lineage.relation(end, log.lineage, log.end)
}

/// The sound backups of a branch that the log continues, newest first.
fn candidates<'a>(existing: &'a ExistingBackups, branch: u32, log: SourceLog<'_>) -> Vec<&'a Head> {
    let mut candidates = Vec::new();
    for backup in existing.backups.iter().rev() {
        if backup.branch == branch && existing.is_usable(backup) && continues(backup, log) {
            candidates.push(backup);
        }
    }
    candidates
}

/// A diff without a parent is a full, and so is the first diff after a restore.
fn kind(wanted: BackupKind, parent: Option<&Head>, log: SourceLog<'_>, run: &Run) -> BackupKind {
    if wanted == BackupKind::Full {
        return BackupKind::Full;
    }
    let Some(parent) = parent else {
        run.note("the branch has no good backup that this log continues, so this diff is a full");
        return BackupKind::Full;
    };
    if parent.source.restored.as_ref() != log.restored {
        run.note(
            "the directory was restored since the last backup, so this diff is a full: everything \
             is proven again",
        );
        return BackupKind::Full;
    }
    BackupKind::Diff
}

fn warn_of_older_copy(newest: Option<&Head>, log: SourceLog<'_>, run: &Run) {
    let Some(newest) = newest else {
        return;
    };
    if newest.log.position.position() > log.end {
        run.warn(format!(
            "the log ends at {}, before the end of {} at {}: is this an older copy of the node?",
            log.end, newest.label, newest.log.position
        ));
    }
}

/// The error for a sequence number that has no successor. No repository holds so many backups.
fn no_more_numbers(newest: Option<&Head>) -> Error {
    let what = format!(
        "the sequence number {} was given to a backup, and there is no higher one",
        u64::MAX
    );
    let error = Error::new(Kind::StoredCorrupt, what);

    let error = match newest {
        Some(newest) if newest.sequence == u64::MAX => error.on(&newest.label).hint(format!(
            "no repository counts that far: the manifest was forged, or damaged by a program. \
             Move `backups/{}` out of the repository, and then back up again",
            newest.label
        )),
        _ => error.hint(
            "no repository counts that far: a forged manifest raised the count. Remove \
             `state/numbers` in the repository, and then back up again",
        ),
    };
    error.hint(
        "run `kbackup verify --all` to learn which backups are intact: somebody who could write \
         one manifest could write others",
    )
}

fn of_another_node(theirs: &Identity, ours: &Identity) -> Error {
    let what = format!("the repository holds backups of {theirs}, this is {ours}");
    Error::new(Kind::Refused, what)
        .hint("each node needs a repository of its own: choose another `--repo`")
}

fn left_the_branch(backups: &[Head], newest: &Head, log: SourceLog<'_>) -> Error {
    let left_behind = backup_left_behind(backups, newest.branch, log).unwrap_or(newest);
    let fork = match relation(left_behind, log) {
        Relation::Fork { at } => format!("they part at log position {at}"),
        Relation::Same { .. } | Relation::Unrelated => "they have no epoch in common".to_owned(),
    };
    let which = if left_behind.label == newest.label {
        "the newest backup"
    } else {
        "an earlier backup of the newest one's branch"
    };

    let what = format!("the node's log is not the one that {which} holds: {fork}");
    Error::new(Kind::Refused, what).on(&left_behind.label).hint(
        "if the node was restored to an earlier point or truncated on purpose, use \
             `--new-branch`: the backups so far stay as they are",
    )
}
