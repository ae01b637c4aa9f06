//! Where the branches of a repository fork. The epochs of two backups say which records their logs
//! share (disk-format §4.5).

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Head, Label};
use crate::format::{LogPosition, Relation};

/// Where one branch left another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fork {
    /// The branch that it left: the lowest of those that hold most of its log.
    pub branch: u32,
    /// The position in bytes up to which both branches hold the same log.
    pub position: LogPosition,
    /// The last backup before the fork. `None` if all of them are gone.
    pub label: Option<Label>,
}

/// The fork of each branch that left another one. `heads` are all that can be read, in any order.
#[must_use]
pub fn forks(heads: &[&Head]) -> BTreeMap<u32, Fork> {
    let mut forks = BTreeMap::new();
    for (branch, longest) in longest_of_each_branch(heads) {
        if let Some(fork) = fork(longest, heads) {
            forks.insert(branch, fork);
        }
    }
    forks
}

/// The backup of each branch that reaches furthest. The newest one will not do: it may be of an
/// older copy of the node, whose log ends before the fork.
fn longest_of_each_branch<'a>(heads: &[&'a Head]) -> BTreeMap<u32, &'a Head> {
    let mut longest: BTreeMap<u32, &Head> = BTreeMap::new();
    for head in heads {
        let entry = longest.entry(head.branch).or_insert(head);
        if end(entry) < end(head) {
            *entry = head;
        }
    }
    longest
}

/// A backup of an earlier branch, and what it shares with a log.
struct EarlierBackup<'a> {
    head: &'a Head,
    /// Up to here both logs are the same.
    shared: LogPosition,
    /// Whether one of the logs continues the other.
    is_same_branch: bool,
}

fn fork(longest: &Head, heads: &[&Head]) -> Option<Fork> {
    let earlier = earlier_backups(longest, heads);

    // The fork is as late as possible. Of several branches that share as much, the lowest counts.
    let mut best: Option<&EarlierBackup<'_>> = None;
    for backup in &earlier {
        let is_better = match best {
            Some(best) if backup.shared == best.shared => backup.head.branch < best.head.branch,
            Some(best) => backup.shared > best.shared,
            None => true,
        };
        if is_better {
            best = Some(backup);
        }
    }

    let best = best?;
    Some(Fork {
        branch: best.head.branch,
        position: best.shared,
        label: last_before(&earlier, best.shared),
    })
}

/// The backups of lower branches that share something with the log of `longest`.
fn earlier_backups<'a>(longest: &Head, heads: &[&'a Head]) -> Vec<EarlierBackup<'a>> {
    let mut earlier = Vec::new();
    for head in heads {
        if head.branch >= longest.branch {
            continue;
        }

        let other = &longest.log.lineage;
        let relation = head.log.lineage.relation(end(head), other, end(longest));
        let (shared, is_same_branch) = match relation {
            Relation::Same { shared } => (shared, true),
            Relation::Fork { at } => (at, false),
            Relation::Unrelated => continue,
        };
        earlier.push(EarlierBackup {
            head,
            shared,
            is_same_branch,
        });
    }
    earlier
}

/// The last backup that both branches could have made: its whole log lies before the fork.
fn last_before(earlier: &[EarlierBackup<'_>], fork: LogPosition) -> Option<Label> {
    let common = earlier
        .iter()
        .filter(|backup| backup.is_same_branch && end(backup.head) <= fork);
    let last = common.max_by_key(|backup| (end(backup.head), backup.head.sequence))?;
    Some(last.head.label.clone())
}

fn end(head: &Head) -> LogPosition {
    head.log.position.position()
}
