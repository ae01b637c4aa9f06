//! What the operator asks a copy for.

use crate::manifest::Label;

/// Which backups of the source repository are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupsToCopy {
    /// The newest one that was not damaged at the source.
    Newest,
    /// These.
    Named(Vec<Label>),
    /// All that the target lacks and that are newer than its newest one.
    All,
}

/// What the operator allows beyond the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyRules {
    /// Begin a new branch if the log has left the branches of the target.
    pub new_branch: bool,
    /// The node may have another address than in the newest backup of the target.
    pub new_address: bool,
}
