//! What the agent knows of the node, its repository and the other members of its cluster.
//!
//! These types are part of the status, so their fields are fields of `kbackup.status/1`.
//! [`super::observation`] and [`super::siblings`] fill them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::manifest::{BackupKind, Head, Label};
use crate::repository::Remembered;

/// The result of one look at a node or a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookResult<T> {
    /// When the look ended.
    pub at: Timestamp,
    /// What the look found. `None` if the look failed.
    #[serde(flatten)]
    pub facts: Option<T>,
    /// Why the look failed.
    pub problem: Option<String>,
    /// What the operator can do against the problem.
    pub hints: Vec<String>,
    /// Since when nothing is known, because the next look does not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Timestamp>,
}

impl<T> LookResult<T> {
    /// The result of a look that does not end. The look before it ended at `since`.
    pub(super) fn silent(since: Timestamp) -> Self {
        Self {
            at: since,
            facts: None,
            problem: Some(not_known_since(since)),
            hints: vec![
                "check that the disks of the repository, of the node and of the state directory \
                 answer"
                    .to_owned(),
            ],
            unknown_since: Some(since),
        }
    }

    pub(super) fn of(result: Result<T>) -> Self {
        let at = clock::now();
        match result {
            Ok(facts) => Self {
                at,
                facts: Some(facts),
                problem: None,
                hints: Vec::new(),
                unknown_since: None,
            },
            Err(error) => Self {
                at,
                facts: None,
                problem: Some(error.in_words()),
                hints: error.hints().to_vec(),
                unknown_since: None,
            },
        }
    }
}

/// Since when something is not known, in words.
pub(super) fn not_known_since(since: Timestamp) -> String {
    let since = since.strftime("%Y-%m-%d %H:%M:%S UTC");
    format!("not known since {since}, because a disk does not answer")
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The node's address, as the settings give it.
    pub place: String,
    /// The server's version.
    pub version: String,
    /// The node's role: `leader`, `follower`, `readonlyreplica`, or a state that passes.
    pub state: String,
    /// The id of the scavenge that runs now.
    pub scavenge: Option<String>,
    /// The state of the cluster's auto-scavenge: `NotConfigured`, `Waiting`, `InProgress`,
    /// `Pausing` or `Paused`. `None` if there is none, or while no leader knows it.
    #[serde(default)]
    pub auto_scavenge: Option<String>,
    /// What scavenges on the node or in its cluster, in words. `None` if nothing does.
    #[serde(default)]
    pub scavenging: Option<String>,
    /// The db directory, as the node or the settings name it.
    pub db: PathBuf,
    /// The `host:port` that the node advertises. `None` if it does not gossip.
    pub endpoint: Option<String>,
    /// The members of the cluster, with the node itself. Empty if it does not gossip.
    pub members: Vec<ClusterMember>,
}

/// A member of the cluster, as the node's gossip describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMember {
    /// The `host:port` that the member advertises.
    pub endpoint: String,
    /// The member's role: `leader`, `follower`, `readonlyreplica`, or a state that passes.
    pub state: String,
    /// Whether the node heard from it lately.
    pub is_alive: bool,
}

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFacts {
    /// Where the repository is.
    pub place: String,
    /// The id that the repository got when it was created.
    pub id: Uuid,
    /// The database of its newest backup: the id of the first epoch. `None` if there is none. The
    /// status does not show it.
    #[serde(skip)]
    pub database: Option<Uuid>,
    /// Every backup, oldest first.
    pub points: Vec<RestorePoint>,
    /// How many more bytes it can store. `None` if no limit is known.
    pub free_bytes: Option<u64>,
    /// Whether it is on the node's own disk, and the operator has not accepted that.
    #[serde(default)]
    pub on_nodes_disk: bool,
}

impl RepositoryFacts {
    /// The newest backup that can be restored, as far as the agent knows.
    #[must_use]
    pub fn newest_good(&self) -> Option<(&RestorePoint, &BackupFacts)> {
        for point in self.points.iter().rev() {
            if let Some(backup) = point.good() {
                return Some((point, backup));
            }
        }

        None
    }
}

/// One backup in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// The backup's label.
    pub label: Label,
    /// What the manifest says. `None` if it cannot be read.
    #[serde(flatten)]
    pub backup: Option<BackupFacts>,
    /// Why the manifest cannot be read, if it is not known to be damaged.
    #[serde(default)]
    pub problem: Option<String>,
    /// When the backup was last verified, and with what result.
    pub verified: Option<Remembered>,
}

impl RestorePoint {
    /// What the manifest says, if the backup can be restored as far as the agent knows.
    #[must_use]
    pub fn good(&self) -> Option<&BackupFacts> {
        let backup = self.backup.as_ref()?;
        let is_good = backup.is_sound && !self.is_damaged();

        is_good.then_some(backup)
    }

    /// Whether the last verification found damage in the repository.
    pub(super) fn is_damaged(&self) -> bool {
        match self.verified {
            Some(verified) => verified.is_damaged(),
            None => false,
        }
    }
}

/// What the status needs of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFacts {
    /// Full or diff.
    pub kind: BackupKind,
    /// The backup's number in its repository. It ascends.
    pub sequence: u64,
    /// The branch of the log that it belongs to.
    pub branch: u32,
    /// When the backup began.
    pub started: Timestamp,
    /// When all of it was proven.
    pub finished: Timestamp,
    /// The last consistent position, in bytes: a restored log ends here.
    pub position: u64,
    /// The writer position as it was read, in bytes: the backup saw the log up to here.
    pub writer: u64,
    /// When the last event in the backup was written.
    pub last_event: Option<Timestamp>,
    /// How many bytes a restore writes.
    pub bytes: u64,
    /// How many bytes the backup read from the node.
    pub bytes_read: u64,
    /// How many new bytes it stored in the repository.
    pub bytes_stored: u64,
    /// Whether all chunks passed their own checksums at the node.
    pub is_sound: bool,
}

impl BackupFacts {
    pub(super) fn of(head: &Head) -> Self {
        Self {
            kind: head.kind,
            sequence: head.sequence,
            branch: head.branch,
            started: head.started,
            finished: head.finished,
            position: head.log.position.position().get(),
            writer: head.log.read.writer.0.get(),
            last_event: head.log.last_event,
            bytes: head.totals.bytes,
            bytes_read: head.cost.bytes_read,
            bytes_stored: head.cost.bytes_new(),
            is_sound: head.is_sound(),
        }
    }

    /// A backup for tests, which change what matters to them.
    #[cfg(test)]
    pub(super) const fn sample() -> Self {
        Self {
            kind: BackupKind::Diff,
            sequence: 1,
            branch: 1,
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            position: 0,
            writer: 0,
            last_event: None,
            bytes: 0,
            bytes_read: 0,
            bytes_stored: 0,
            is_sound: true,
        }
    }
}

/// What the repositories of the other members hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// The newest good backup of this node's log that another member took. Only filled with
    /// `--cluster one`.
    pub newest: Option<SiblingBackup>,
    /// When the newest good full of the other members began.
    pub newest_full: Option<Timestamp>,
    /// Why the other repositories cannot be compared, or why the members cannot take turns.
    pub problem: Option<String>,
}

/// A backup that another member took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiblingBackup {
    /// The member: the `host:port` that it advertises, or the name of its repository's directory.
    pub member: String,
    /// The member's repository.
    pub place: String,
    /// The backup's label in that repository.
    pub label: Label,
    /// What the manifest says.
    #[serde(flatten)]
    pub backup: BackupFacts,
}
