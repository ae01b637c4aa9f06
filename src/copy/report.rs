//! The result of a copy.

use serde::Serialize;

use super::plan::NotCopied;
use crate::format::LogPosition;
use crate::manifest::{BackupKind, Head, Label};

/// What a copy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupCopyReport {
    /// The place of the repository that was read.
    pub from: String,
    /// The place of the repository that was written.
    pub to: String,
    /// The backups that were copied, oldest first.
    pub copied: Vec<CopiedBackup>,
    /// The backups that the target held already.
    pub already_there: Vec<Label>,
    /// The backups that were not copied although the operator asked for all.
    pub left_out: Vec<NotCopied>,
}

/// A backup that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopiedBackup {
    /// Its label, in both repositories.
    pub label: Label,
    /// Full or diff.
    pub kind: BackupKind,
    /// Its number in the target.
    pub sequence: u64,
    /// Its branch in the target.
    pub branch: u32,
    /// The backup of the target that files were reused from.
    pub parent: Option<Label>,
    /// Where its log ends.
    pub position: LogPosition,
    /// Bytes that a restore writes.
    pub bytes: u64,
    /// Bytes read from the source repository.
    pub bytes_read: u64,
    /// Bytes newly written to the target.
    pub bytes_stored: u64,
    /// Files copied, in whole or in part.
    pub files_copied: u64,
    /// Files reused from the parent.
    pub files_linked: u64,
    /// Files that an interrupted run had copied.
    pub files_resumed: u64,
    /// Bytes of the resumed files.
    pub bytes_resumed: u64,
}

impl CopiedBackup {
    /// What the head of a committed copy says.
    #[must_use]
    pub fn new(head: &Head) -> Self {
        Self {
            label: head.label.clone(),
            kind: head.kind,
            sequence: head.sequence,
            branch: head.branch,
            parent: head.parent.clone(),
            position: head.log.position.position(),
            bytes: head.totals.bytes,
            bytes_read: head.cost.bytes_read,
            bytes_stored: head.cost.bytes_stored,
            files_copied: head.cost.files_copied,
            files_linked: head.cost.files_linked,
            files_resumed: head.cost.files_resumed,
            bytes_resumed: head.cost.bytes_resumed,
        }
    }
}
