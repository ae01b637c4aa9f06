//! What the operator asks a backup for.

use std::time::Duration;

use super::recheck::RecheckShare;
use crate::manifest::BackupKind;

/// What the operator asks for.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// A full reads everything again. A diff reuses what it can prove unchanged.
    pub kind: BackupKind,
    /// How often the procedure may start over.
    pub attempts: u32,
    /// A stored stream-existence filter that is older than this is read again.
    pub filter_max_age: Duration,
    /// How long a member that does not lead may take to reach the leader's position.
    pub catch_up: Duration,
    /// Keep a backup that holds chunks that fail their own MD5.
    pub accept_damaged: bool,
    /// Begin a new branch if the node's log has left the branch of the backups so far. Without such
    /// a fork this does nothing.
    pub new_branch: bool,
    /// The node may have another address than before. From then on the repository expects the new
    /// address.
    pub new_address: bool,
    /// How much of the reused files a diff hashes again.
    pub recheck: RecheckShare,
}
