//! The types of what the node's admin API answers, with the fields that kbackup reads (http-api
//! §1–§3). `client` has the calls, and the fields of answers that one call alone reads.
//!
//! Whatever a node may leave out without harm is optional. Without the other fields there is no
//! backup, and the error names the field and the reply.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use crate::format::LogPosition;
use crate::server::ServerVersion;

/// The part a member plays in its cluster (http-api §3.1).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum NodeState {
    /// Takes the writes.
    Leader,
    /// Holds a live subscription to the leader.
    Follower,
    /// As a follower, but does not vote.
    ReadOnlyReplica,
    /// Any other state: on the way to one of the three, or leaving it.
    Other(String),
}

impl NodeState {
    /// The state's name in small letters, as `/info` writes it.
    #[must_use]
    pub fn name(&self) -> String {
        self.to_string().to_lowercase()
    }

    /// One of the three states in which a node may be backed up (http-api §3.3).
    #[must_use]
    pub const fn is_stable(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl Default for NodeState {
    /// The state of a node that does not tell it.
    fn default() -> Self {
        Self::Other("unknown".to_owned())
    }
}

impl From<String> for NodeState {
    fn from(name: String) -> Self {
        match name.to_lowercase().as_str() {
            "leader" => Self::Leader,
            "follower" => Self::Follower,
            "readonlyreplica" => Self::ReadOnlyReplica,
            _ => Self::Other(name),
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "Leader",
            Self::Follower => "Follower",
            Self::ReadOnlyReplica => "ReadOnlyReplica",
            Self::Other(name) => name,
        })
    }
}

/// `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    db_version: Option<String>,
    es_version: Option<String>,
    /// The part that the node plays in its cluster.
    pub state: Option<NodeState>,
    #[serde(default)]
    authentication: Authentication,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Authentication {
    #[serde(rename = "type", default)]
    kind: String,
}

impl NodeInfo {
    /// The server's version. Returns `None` if the node reports none, or a text that is not a
    /// version.
    #[must_use]
    pub fn version(&self) -> Option<ServerVersion> {
        let text = self.db_version.as_ref().or(self.es_version.as_ref())?;
        ServerVersion::parse(text)
    }

    /// The node asks for no password (http-api §0.3).
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.authentication.kind == "insecure"
    }

    /// Nothing shows that this is the answer of a node.
    pub(super) const fn is_blank(&self) -> bool {
        self.db_version.is_none() && self.es_version.is_none() && self.state.is_none()
    }
}

/// `GET /gossip`: the cluster as the answering member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gossip {
    /// The members that it knows, itself among them.
    pub members: Vec<GossipMember>,
    server_ip: String,
    server_port: u16,
}

impl Gossip {
    /// The member that answered.
    #[must_use]
    pub fn me(&self) -> Option<&GossipMember> {
        self.members.iter().find(|member| {
            member.http_end_point_ip == self.server_ip
                && member.http_end_point_port == self.server_port
        })
    }

    /// The advertised `host:port` of the member that answered.
    #[must_use]
    pub fn endpoint(&self) -> String {
        endpoint(&self.server_ip, self.server_port)
    }
}

/// One member, as it sees itself or as another member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GossipMember {
    /// The id of the server process, new at each of its starts. All zeros for a seed that was never
    /// reached.
    pub instance_id: Option<Uuid>,
    /// The part that it plays in the cluster.
    #[serde(default)]
    pub state: NodeState,
    /// The member that answers has heard of it recently.
    pub is_alive: bool,
    http_end_point_ip: String,
    http_end_point_port: u16,
    last_commit_position: Option<i64>,
    writer_checkpoint: Option<i64>,
    chaser_checkpoint: Option<i64>,
    epoch_position: Option<i64>,
    /// Number of the last election that it knows.
    pub epoch_number: Option<i32>,
    /// Random id of the last election that it knows.
    pub epoch_id: Option<Uuid>,
}

impl GossipMember {
    /// The advertised `host:port` of its HTTP side.
    #[must_use]
    pub fn endpoint(&self) -> String {
        endpoint(&self.http_end_point_ip, self.http_end_point_port)
    }

    /// End of the log in its memory, not yet flushed (http-api §3.2). Returns `None` while it is
    /// not known.
    #[must_use]
    pub fn writer(&self) -> Option<LogPosition> {
        LogPosition::from_signed(self.writer_checkpoint?)
    }

    /// The position up to which it has processed its log.
    #[must_use]
    pub fn chaser(&self) -> Option<LogPosition> {
        LogPosition::from_signed(self.chaser_checkpoint?)
    }

    /// Position of the last indexed record.
    #[must_use]
    pub fn indexed(&self) -> Option<LogPosition> {
        LogPosition::from_signed(self.last_commit_position?)
    }

    /// Position of the record of the last election.
    #[must_use]
    pub fn epoch_position(&self) -> Option<LogPosition> {
        LogPosition::from_signed(self.epoch_position?)
    }

    /// Whether it tells which election was its last, or that there was none.
    #[must_use]
    pub const fn tells_epoch(&self) -> bool {
        self.epoch_position.is_some() && self.epoch_number.is_some() && self.epoch_id.is_some()
    }
}

fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// `GET /info/options`: the node's configuration, by option name without regard to case. Plugins'
/// options are not in it (http-api §3.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerOptions(BTreeMap<String, String>);

#[derive(Deserialize)]
pub(super) struct OptionRow {
    #[serde(default)]
    name: String,
    value: Option<String>,
}

impl ServerOptions {
    pub(super) fn from_rows(rows: Vec<OptionRow>) -> Self {
        let mut options = BTreeMap::new();
        for row in rows {
            options.insert(row.name.to_lowercase(), row.value.unwrap_or_default());
        }
        Self(options)
    }

    /// The value of an option. Returns `None` if the server has no such option, or it is empty.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let value = self.0.get(&name.to_lowercase())?;
        if value.is_empty() { None } else { Some(value) }
    }

    /// Whether a switch is on.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        match self.value(name) {
            Some(value) => value.eq_ignore_ascii_case("true"),
            None => false,
        }
    }

    /// How many members the cluster should have.
    #[must_use]
    pub fn cluster_size(&self) -> Option<u32> {
        self.value("ClusterSize")?.parse().ok()
    }
}

/// `GET /stats/proc`: the server process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerProcess {
    /// When it was started, as the server writes it.
    pub start_time: Option<String>,
    /// Its process id, in its own PID namespace.
    pub id: Option<i64>,
}

/// Whether a scavenge runs on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurrentScavenge {
    /// No scavenge runs, and the last one is cleaned up (http-api §1.6).
    Idle,
    /// The scavenge with this id runs, stops, or is being cleaned up.
    Running(String),
    /// The server cannot be asked (before 22.10.1).
    NotSupported,
    /// `DisableAdminUi` took all of `/admin` away (http-api §0.4).
    AdminDisabled,
}

/// `GET /admin/scavenge/last` (24.10 and later).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastScavenge {
    /// The id of the scavenge; all zeros if none ran since the process started.
    pub scavenge_id: String,
    /// How it ended: `Unknown`, `InProgress`, `Success`, `Stopped`, `Errored`.
    pub scavenge_result: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastScavengeBody {
    scavenge_id: Option<String>,
    scavenge_result: Option<String>,
}

impl LastScavengeBody {
    /// The scavenge, if the reply describes one in full.
    pub(super) fn scavenge(self) -> Option<LastScavenge> {
        Some(LastScavenge {
            scavenge_id: self.scavenge_id?,
            scavenge_result: self.scavenge_result?,
        })
    }
}

/// The result of a request to stop a scavenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScavengeStop {
    /// The server says that it ended.
    Stopped,
    /// No scavenge with this id runs; servers up to 22.10 name the one that does.
    NotRunning(Option<String>),
    /// No answer within the limit, which is normal and says nothing (O41).
    NoAnswer,
}

/// The result of a request to start a scavenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScavengeStart {
    /// It runs under this id.
    Started(String),
    /// Another scavenge runs; servers up to 22.10 name it.
    AlreadyRunning(Option<String>),
    /// The node refuses, and says why.
    Refused(String),
    /// No answer within the limit: the scavenge may run or not.
    NoAnswer,
}

/// How much of a scavenge to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScavengeExtent {
    /// Only what an earlier one left unfinished. Servers before 22.10 must never be asked for this
    /// (O43).
    Unfinished,
    /// Everything.
    Whole,
    /// Everything from this chunk number on. Only servers before 22.10 obey it (http-api §1.4).
    From(u32),
}

/// `$scavenges`: one entry, newest first (http-api §1.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScavengeEvent {
    /// The id of the scavenge.
    pub scavenge: String,
    /// Advertised `host:port` of the node that runs it.
    pub endpoint: String,
    /// How the scavenge ended; `None` for its start.
    pub result: Option<String>,
    /// How it was started, as far as its start says so.
    pub parameters: ScavengeParameters,
}

/// The parameters of a scavenge, as far as the node tells them. 21.10 does; 20.10, and 22.10 and
/// later, do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScavengeParameters {
    /// Number of threads.
    pub threads: Option<u32>,
    /// The first chunk number that it scavenges.
    pub start_from_chunk: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct Feed {
    #[serde(default)]
    entries: Vec<FeedEntry>,
}

impl Feed {
    /// The entries that are about scavenges, in the feed's order.
    pub(super) fn scavenge_events(&self) -> Vec<ScavengeEvent> {
        self.entries
            .iter()
            .filter_map(FeedEntry::scavenge_event)
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeedEntry {
    #[serde(default)]
    event_type: String,
    #[serde(default)]
    data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScavengeData {
    scavenge_id: String,
    #[serde(default)]
    node_endpoint: String,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    threads: Option<u32>,
    #[serde(default)]
    start_from_chunk: Option<u32>,
}

impl FeedEntry {
    /// The event, unless it is of another kind or cannot be read.
    fn scavenge_event(&self) -> Option<ScavengeEvent> {
        let data: ScavengeData = serde_json::from_str(self.data.as_deref()?).ok()?;
        let result = match self.event_type.as_str() {
            "$scavengeStarted" => None,
            "$scavengeCompleted" => Some(data.result.unwrap_or_default()),
            _ => return None,
        };
        Some(ScavengeEvent {
            scavenge: data.scavenge_id,
            endpoint: data.node_endpoint,
            result,
            parameters: ScavengeParameters {
                threads: data.threads,
                start_from_chunk: data.start_from_chunk,
            },
        })
    }
}

/// The state of auto-scavenge (http-api §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AutoScavenge {
    /// Not installed, switched off, without a licence, or crashed: it runs no scavenge (http-api
    /// §2.1).
    Absent,
    /// No schedule is set.
    NotConfigured,
    /// Between two cycles.
    Waiting,
    /// A cycle runs.
    InProgress,
    /// Asked to pause; it still stops a scavenge.
    Pausing,
    /// Paused, by kbackup or by an operator.
    Paused,
    /// A state that kbackup does not know.
    Other(String),
}

impl AutoScavenge {
    /// Whether a cycle runs somewhere in the cluster, or is being stopped.
    #[must_use]
    pub const fn is_at_work(&self) -> bool {
        matches!(self, Self::InProgress | Self::Pausing)
    }

    pub(super) fn from_state(state: &str) -> Self {
        match state {
            "NotConfigured" => Self::NotConfigured,
            "Waiting" => Self::Waiting,
            "InProgress" => Self::InProgress,
            "Pausing" => Self::Pausing,
            "Paused" => Self::Paused,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for AutoScavenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::NotConfigured => "NotConfigured",
            Self::Waiting => "Waiting",
            Self::InProgress => "InProgress",
            Self::Pausing => "Pausing",
            Self::Paused => "Paused",
            Self::Other(state) => state,
        })
    }
}

/// What `GET /auto-scavenge/status` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoScavengeStatus {
    /// Its state.
    pub state: AutoScavenge,
    /// How long it is until the next cycle begins. `None` if the node does not tell.
    pub until_next_cycle: Option<Duration>,
}

/// The result of a request to resume auto-scavenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoScavengeResume {
    /// The node accepted the request. Only the status says whether auto-scavenge is resumed.
    Accepted,
    /// It is still pausing: ask again (http-api §2.3).
    StillPausing,
}
