//! Where the branches of a repository part: read from the epochs of its backups, which say which
//! records two logs share.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Head, Label};
use crate::format::{LogPosition, Relation};

/// Where one branch left another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fork {
    /// The branch it left: the lowest of those that hold most of its log.
    pub branch: u32,
    /// Up to here both hold the same log, in bytes.
    pub position: LogPosition,
    /// The last backup before it; none where all of them are gone.
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
    longest
        .values()
        .filter_map(|longest| Some((longest.branch, fork(longest, manifests)?)))
        .collect()
}

fn fork(longest: &Head, manifests: &[&Head]) -> Option<Fork> {
    let shared = |other: &Head| match other.log.lineage.relation(
        end(other),
        &longest.log.lineage,
        end(longest),
    ) {
        Relation::Same { shared } => Some((shared, true)),
        Relation::Fork { at } => Some((at, false)),
        Relation::Unrelated => None,
    };
    let earlier: Vec<_> = manifests
        .iter()
        .filter(|other| other.branch < longest.branch)
        .filter_map(|other| shared(other).map(|(shared, whole)| (*other, shared, whole)))
        .collect();
    let (position, branch) = earlier
        .iter()
        .map(|(other, shared, _)| (*shared, std::cmp::Reverse(other.branch)))
        .max()?;
    let before = earlier
        .iter()
        .filter(|(other, _, whole)| *whole && end(other) <= position);
    let last = before.max_by_key(|(other, ..)| (end(other), other.sequence));
    Some(Fork {
        branch: branch.0,
        position,
        label: last.map(|(other, ..)| other.label.clone()),
    })
}

fn end(manifest: &Head) -> LogPosition {
    manifest.log.position.position()
}
