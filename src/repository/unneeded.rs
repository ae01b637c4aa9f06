//! What a repository holds that no backup needs, as a plan and as a result.

use serde::Serialize;

use crate::clock::Timestamp;

/// What can be deleted of what no backup needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Prunable {
    /// Objects that can be deleted now. Each takes one request.
    pub due_objects: u64,
    /// Their bytes.
    pub due_bytes: u64,
    /// Those of them that the store refused to delete before: they are locked, or this user may not.
    pub refused_objects: u64,
    /// Their bytes.
    pub refused_bytes: u64,
    /// Objects that have to wait, because a run in progress may need them.
    pub waiting_objects: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Those of them that are not marked yet. Their time begins when they are.
    pub unmarked_objects: u64,
    /// Small objects that removed backups left in their place, and that can be deleted now.
    pub removed_heads: u64,
    /// When the first of the waiting ones can be deleted, if it is marked now.
    pub next: Option<Timestamp>,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Pruned {
    /// Objects that were deleted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that the store did not delete, because they are locked or because this user may not.
    pub refused: u64,
    /// Objects that are marked, and deleted later if nobody needs them until then.
    pub marked: u64,
}
