//! The release record: what kbackup took from a node and has to give back to it.
//!
//! A record is written before anything is taken. There is one JSON file per node in a local state
//! directory, so that after a crash the next run, or `kbackup release` without any repository,
//! gives everything back. `release_records` holds the directory, `held_record` the record of one
//! run, and `same_node` decides whether a record is about a node.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Session;
use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};

/// The version of the record that this program writes.
const FORMAT: u32 = 1;

/// Everything that has to be given back to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    format: u32,
    /// How to find the node again, and how to recognise it.
    pub node: RecordedNode,
    /// The scavenge that was stopped.
    pub scavenge: Option<StoppedScavenge>,
    /// Set if auto-scavenge was paused and has to be resumed.
    pub auto_scavenge: Option<PausedAutoScavenge>,
    /// The number of the process that wrote the record.
    pub process: u32,
}

/// How to find a node again, and how to recognise it. It holds no credentials.
///
/// An address does not tell nodes apart: two single nodes on one machine may advertise the same
/// one, and a node may get another one. The database and the directory do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedNode {
    /// The URL as the operator gave it.
    pub url: String,
    /// The unix socket, if the node was asked through it.
    pub unix_socket: Option<PathBuf>,
    /// The advertised `host:port`.
    pub endpoint: Option<String>,
    /// The server process at that time.
    pub instance: Option<Uuid>,
    /// The id of the first epoch of the node's log. All members of a cluster share it. `None` in
    /// the records of older kbackups.
    #[serde(default)]
    pub database: Option<Uuid>,
    /// The db directory, as kbackup sees it. `None` in the records of older kbackups.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The db directory, as the node calls it. `None` in the records of older kbackups.
    #[serde(default)]
    pub own_directory: Option<String>,
}

/// What a backup knows of the node beyond its API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFiles {
    /// The db directory without symbolic links, if it can be read.
    pub db: Option<PathBuf>,
    /// The id of the first epoch of the log.
    pub database: Option<Uuid>,
    /// The address that the node had before, if the operator says that it has a new one.
    pub former_endpoint: Option<String>,
}

/// A scavenge that was stopped before it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedScavenge {
    /// The id that the server gave it.
    pub id: String,
    /// Number of threads with which it is started again.
    pub threads: u32,
    /// Throttle with which it is started again, in percent; the node does not report the old value.
    pub throttle_percent: u32,
    /// The first chunk number that it scavenged, if the node told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from_chunk: Option<u32>,
    /// When it was put on record, right before it was told to stop.
    pub since: Timestamp,
    /// The request to stop it has been sent. False if the run died before that, or while it sent
    /// the request; in that case the node may have received it.
    #[serde(default)]
    pub told: bool,
}

/// A pause of auto-scavenge that kbackup asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedAutoScavenge {
    /// When it was put on record, right before it was paused.
    pub since: Timestamp,
}

impl ReleaseRecord {
    /// A record of this process, with nothing on it.
    pub(super) fn empty(node: RecordedNode) -> Self {
        Self {
            format: FORMAT,
            node,
            scavenge: None,
            auto_scavenge: None,
            process: std::process::id(),
        }
    }

    /// Reads a record. Reads its version first, because a newer record may have other fields.
    ///
    /// # Errors
    /// [`Kind::StoredCorrupt`] if it is damaged, [`Kind::Refused`] if a newer kbackup wrote it.
    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct RecordVersion {
            format: u32,
        }

        let version: RecordVersion =
            serde_json::from_slice(bytes).map_err(|error| corrupt(path, error))?;
        if version.format > FORMAT {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the release record has format {}, this program knows {FORMAT}",
                    version.format
                ),
            )
            .at(path)
            .hint("use the newer kbackup that wrote it"));
        }

        serde_json::from_slice(bytes).map_err(|error| corrupt(path, error))
    }

    /// True if nothing has to be given back.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.scavenge.is_none() && self.auto_scavenge.is_none()
    }

    /// Whether an operator who writes `node` means this one: by its URL, its socket or its
    /// advertised endpoint.
    #[must_use]
    pub fn is_of(&self, node: &str) -> bool {
        let node = node.trim_end_matches('/');
        let socket = Path::new(node.trim_start_matches("unix:"));

        self.node.url.trim_end_matches('/') == node
            || self.node.endpoint.as_deref() == Some(node)
            || self.node.unix_socket.as_deref() == Some(socket)
    }

    /// The stopped scavenge, if it has this id.
    pub(super) fn scavenge_of(&self, id: &str) -> Option<&StoppedScavenge> {
        self.scavenge.as_ref().filter(|stopped| stopped.id == id)
    }

    /// Adds what another record of the same node holds. Of two scavenges the later one counts,
    /// because each scavenge continues where the one before it was stopped.
    pub(super) fn add(&mut self, other: Self) {
        let is_later = match (&self.scavenge, &other.scavenge) {
            (Some(ours), Some(theirs)) => theirs.since > ours.since,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_later {
            self.scavenge = other.scavenge;
        }

        if self.auto_scavenge.is_none() {
            self.auto_scavenge = other.auto_scavenge;
        }
    }
}

fn corrupt(path: &Path, error: serde_json::Error) -> Error {
    Error::new(Kind::StoredCorrupt, "a release record cannot be read")
        .at(path)
        .because(error)
        .hint(
            "if the node's auto-scavenge is paused, resume it by hand; \
             then remove the file",
        )
}

impl RecordedNode {
    /// Describes the node of a session.
    pub(super) fn of(session: &Session, files: &NodeFiles) -> Self {
        let whereabouts = session.whereabouts();
        let connection = session.client().connection();

        Self {
            url: connection.url.clone(),
            unix_socket: connection.unix_socket.clone(),
            endpoint: whereabouts.endpoint.clone(),
            instance: whereabouts.instance,
            database: files.database,
            directory: files.db.clone(),
            own_directory: session.options().value("Db").map(str::to_owned),
        }
    }

    /// Whether both are reached in the same way.
    pub(super) fn is_reached_as(&self, other: &Self) -> bool {
        self.url.trim_end_matches('/') == other.url.trim_end_matches('/')
            && self.unix_socket == other.unix_socket
    }
}

impl fmt::Display for RecordedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix_socket {
            Some(socket) => write!(f, "unix:{}", socket.display()),
            None => f.write_str(self.url.trim_end_matches('/')),
        }
    }
}
