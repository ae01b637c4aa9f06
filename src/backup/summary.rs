//! The result of a backup, and the forecast of one.

use serde::Serialize;
use uuid::Uuid;

use super::estimate::CopyEstimate;
use crate::format::LogPosition;
use crate::manifest::{BackupKind, Head, Label};
use crate::repository::{Repository, Requests};

/// The result of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// The backup's name.
    pub label: Label,
    /// The id of the repository that holds it.
    pub repository: Uuid,
    /// Full or diff; a diff without a predecessor is a full.
    pub kind: BackupKind,
    /// The backup that unchanged files were reused from.
    pub parent: Option<Label>,
    /// The branch of its log.
    pub branch: u32,
    /// Where a restored log ends, a log position in bytes.
    pub position: LogPosition,
    /// Bytes of log that it has more than its parent; 0 without a parent.
    pub log_bytes_added: u64,
    /// Bytes that a restore writes.
    pub bytes: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes newly written to the repository.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part.
    pub files_copied: u64,
    /// Files reused from an earlier backup.
    pub files_linked: u64,
    /// Files that an interrupted run had copied.
    pub files_resumed: u64,
    /// Bytes of the resumed files.
    pub bytes_resumed: u64,
    /// How often the procedure had to start over.
    pub retries: u32,
    /// Whole seconds from the first question to the commit.
    pub seconds: i64,
    /// Whether the index is in it.
    pub index: bool,
    /// Bytes by which the leader is ahead.
    pub missing_bytes: Option<u64>,
    /// The requests to the object store. `None` for a repository in a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
}

impl BackupSummary {
    /// `parent_end` is the position up to which the repository held the log before.
    pub(super) fn new(
        head: &Head,
        repository: &dyn Repository,
        parent_end: Option<LogPosition>,
    ) -> Self {
        let position = head.log.position.position();
        let (started, finished) = (head.started.as_second(), head.finished.as_second());

        Self {
            label: head.label.clone(),
            repository: repository.id(),
            kind: head.kind,
            parent: head.parent.clone(),
            branch: head.branch,
            position,
            log_bytes_added: parent_end.map_or(0, |end| position.since(end)),
            bytes: head.totals.bytes,
            bytes_read: head.cost.bytes_read,
            bytes_stored: head.cost.bytes_stored,
            files_copied: head.cost.files_copied,
            files_linked: head.cost.files_linked,
            files_resumed: head.cost.files_resumed,
            bytes_resumed: head.cost.bytes_resumed,
            retries: head.cost.retries,
            seconds: finished.saturating_sub(started),
            index: head.contents.index,
            missing_bytes: head.source.missing_bytes,
            requests: repository.requests(),
        }
    }
}

/// The forecast of a backup, as far as kbackup can tell while the node changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupForecast {
    /// Full, or a diff on a parent.
    pub kind: BackupKind,
    /// The backup that unchanged files would be reused from.
    pub parent: Option<Label>,
    /// The branch of the log.
    pub branch: u32,
    /// Where the log ends now.
    pub position: LogPosition,
    /// What would be copied.
    pub estimate: CopyEstimate,
}
