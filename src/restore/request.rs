//! What the operator asks a restore for.

use std::path::PathBuf;

use crate::manifest::Label;

/// What the operator wants restored, where to, and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    /// The backup to restore. `None` stands for the newest sound one.
    pub label: Option<Label>,
    /// The directories to restore to; each gets the whole backup.
    pub targets: Vec<RestoreTarget>,
    /// Whether to set `truncate.chk` to −1, so that the first start is enough on every version
    /// (O11).
    pub ready: bool,
    /// User id and group id of the owner that the files get.
    pub owner: Option<(u32, u32)>,
    /// The version of the server that will be started there, if the operator names it.
    pub server_version: Option<String>,
    /// What the operator knows and accepts.
    pub accept: AcceptedRisks,
}

/// One pair of directories to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreTarget {
    /// The db directory.
    pub db: PathBuf,
    /// The index directory. `None` stands for `index` in the db directory.
    pub index: Option<PathBuf>,
}

/// Dangers that the operator knows of and accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcceptedRisks {
    /// The backup lacks chunks that only an archive holds.
    pub archive: bool,
    /// The server to be started is older than the one that wrote the files.
    pub older_server: bool,
    /// kbackup cannot tell for sure whether a server uses the target.
    pub unsure_whether_in_use: bool,
}
