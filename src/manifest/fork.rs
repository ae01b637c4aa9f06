//! Where the branches of a repository part. The epochs of its backups say which records two logs
//! share.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::{Head, Label};
use crate::format::{LogPosition, Relation};

/// Where one branch left another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fork {
    /// The branch that it left: the lowest of those that hold most of its log.
    pub branch: u32,
    /// Both branches hold the same log up to this position.
    pub position: LogPosition,
    /// The last backup before the fork; `None` if all of them are gone.
    pub label: Option<Label>,
}

/// The fork of each branch that left another one. `manifests` are all that can be read, in any
/// order.
#[must_use]
pub fn forks(manifests: &[&Head]) -> BTreeMap<u32, Fork> {
    // Not the newest of a branch: that may be of an older copy, which ends before the fork.
    let mut longest: BTreeMap<u32, &Head> = BTreeMap::new();
    for manifest in manifests {
        let entry = longest.entry(manifest.branch).or_insert(manifest);
        if end(entry) < end(manifest) {
            *entry = manifest;
        }
    }

    let mut forks = BTreeMap::new();
    for (branch, longest) in longest {
        if let Some(fork) = fork(longest, manifests) {
            forks.insert(branch, fork);
        }
    }
    forks
}

/// What a backup of an earlier branch shares with the log of a later one.
struct SharedLog<'a> {
    other: &'a Head,
    /// Both hold the same log up to this position.
    end: LogPosition,
    /// All of the earlier backup's log is in the later branch.
    is_whole: bool,
}

impl<'a> SharedLog<'a> {
    fn of(other: &'a Head, longest: &Head) -> Option<Self> {
        let (lineage, own) = (&other.log.lineage, &longest.log.lineage);
        match lineage.relation(end(other), own, end(longest)) {
            Relation::Same { shared } => Some(Self {
                other,
                end: shared,
                is_whole: true,
            }),
            Relation::Fork { at } => Some(Self {
                other,
                end: at,
                is_whole: false,
            }),
            Relation::Unrelated => None,
        }
    }
}

/// Where a branch left another one; `longest` is its longest backup.
fn fork(longest: &Head, manifests: &[&Head]) -> Option<Fork> {
    let mut earlier = Vec::new();
    for other in manifests {
        if other.branch < longest.branch {
            earlier.extend(SharedLog::of(other, longest));
        }
    }

    let left = earlier
        .iter()
        .max_by_key(|shared| (shared.end, Reverse(shared.other.branch)))?;
    let position = left.end;

    let last = earlier
        .iter()
        .filter(|shared| shared.is_whole && end(shared.other) <= position)
        .max_by_key(|shared| (end(shared.other), shared.other.sequence));
    Some(Fork {
        branch: left.other.branch,
        position,
        label: last.map(|shared| shared.other.label.clone()),
    })
}

fn end(manifest: &Head) -> LogPosition {
    manifest.log.position.position()
}
