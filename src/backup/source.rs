//! Where a backup is taken from: a node's directories, and the node if it runs.

use uuid::Uuid;

use crate::format::LogPosition;
use crate::manifest::Directories;
use crate::node::{QuiesceSettings, ReleaseRecords, Session};

/// Where a backup is taken from.
pub struct Source<'a> {
    /// The node's directories, as they are seen here.
    pub directories: Directories,
    /// The server's version, if the node was asked or the operator named it.
    pub server_version: Option<String>,
    /// Whether a server works on the directories.
    pub node: SourceNode<'a>,
}

/// The server of the directories.
pub enum SourceNode<'a> {
    /// It runs, and can be asked.
    Running(RunningNode<'a>),
    /// It is stopped, or the directories are a snapshot.
    Stopped,
}

/// A running node that is fit for a backup.
pub struct RunningNode<'a> {
    /// The conversation with it.
    pub session: &'a Session,
    /// Where the release records are kept.
    pub release_records: &'a ReleaseRecords,
    /// What to stop on the node, and how long to wait for it.
    pub quiesce: QuiesceSettings,
    /// The node's role.
    pub state: String,
    /// For a member that does not lead: where the leader's log ended before the backup.
    pub leader_end: Option<LogPosition>,
}

impl<'a> Source<'a> {
    pub(super) const fn running(&self) -> Option<&RunningNode<'a>> {
        match &self.node {
            SourceNode::Running(running) => Some(running),
            SourceNode::Stopped => None,
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running().is_some()
    }

    pub(super) fn leader_end(&self) -> Option<LogPosition> {
        self.running()?.leader_end
    }

    pub(super) fn endpoint(&self) -> Option<String> {
        self.running()?.session.whereabouts().endpoint.clone()
    }

    pub(super) fn instance(&self) -> Option<Uuid> {
        self.running()?.session.whereabouts().instance
    }

    pub(super) fn state(&self) -> Option<String> {
        let running = self.running()?;
        Some(running.state.clone())
    }
}
