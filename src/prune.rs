//! Deletes what no backup needs. Only an object store keeps such things: a removed backup leaves its
//! objects there, and so does an interrupted run.
//!
//! [`plan`] changes nothing. [`execute`] looks again, deletes what was marked long ago, and marks the
//! rest. The repository knows how to do that without harm to a run in progress.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::error::Result;
use crate::event::{Event, Step};
use crate::repository::{Prunable, Pruned, Repository, Requests};
use crate::run::Run;

/// What a prune would delete.
#[derive(Debug, Clone, Serialize)]
pub struct PrunePlan {
    /// The repository's place.
    pub repository: String,
    /// The repository's id: the plan holds for no other one.
    pub repository_id: Uuid,
    /// How long an object has to be marked before it is deleted.
    #[serde(rename = "grace_seconds", serialize_with = "seconds")]
    pub grace: Duration,
    /// Whether such a repository can need a prune at all. One in a directory never does.
    pub needs_prune: bool,
    /// What can be deleted; nothing if the repository needs no prune.
    #[serde(flatten)]
    pub prunable: Prunable,
    /// The requests of the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

/// What a prune deleted.
#[derive(Debug, Clone, Serialize)]
pub struct PruneReport {
    /// The repository's place.
    pub repository: String,
    /// What was deleted.
    #[serde(flatten)]
    pub pruned: Pruned,
    /// The requests, those of the plan included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

impl PrunePlan {
    /// Whether a prune would change anything now.
    #[must_use]
    pub const fn has_work(&self) -> bool {
        let Prunable {
            due_objects,
            unmarked_objects,
            removed_heads,
            ..
        } = self.prunable;
        due_objects > 0 || unmarked_objects > 0 || removed_heads > 0
    }
}

/// Looks for what no backup needs. Changes nothing.
///
/// # Errors
/// As [`Repository::prunable`].
pub fn plan(repository: &dyn Repository, grace: Duration, run: &Run) -> Result<PrunePlan> {
    run.emit(Event::Step(Step::Preflight));
    let prunable = repository.prunable(grace)?;

    Ok(PrunePlan {
        repository: repository.place(),
        repository_id: repository.id(),
        grace,
        needs_prune: prunable.is_some(),
        prunable: prunable.unwrap_or_default(),
        requests: repository.requests(),
    })
}

/// Deletes what is due, and marks the rest.
///
/// # Errors
/// `Locked` if another run writes. As [`Repository::prunable`]. After an error the next prune
/// goes on.
pub fn execute(repository: &dyn Repository, grace: Duration, run: &Run) -> Result<PruneReport> {
    let writer = repository.writer(run)?;
    run.emit(Event::Step(Step::Prune));
    let pruned = writer.prune(grace)?;
    drop(writer);

    if pruned.objects == 0 && pruned.refused > 0 {
        run.warn(format!(
            "the object store deleted none of {} unneeded objects: they are locked, or these \
             credentials may not delete",
            pruned.refused
        ));
    }
    Ok(PruneReport {
        repository: repository.place(),
        pruned,
        requests: repository.requests(),
    })
}

fn seconds<S: serde::Serializer>(
    length: &Duration,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(length.as_secs())
}
