//! The calls of a node's admin API that kbackup uses. `transport` sends and repeats them; `answers`
//! holds the types of their answers.

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::answers::{Feed, LastScavengeBody, OptionRow};
use super::http_reply::Reply;
use super::time_span;
use super::transport::{Question, Transport};
use super::{
    AutoScavenge, AutoScavengeResume, AutoScavengeStatus, Connection, CurrentScavenge, Gossip,
    LastScavenge, NodeInfo, Patience, ScavengeEvent, ScavengeExtent, ScavengeStart, ScavengeStop,
    ServerOptions, ServerProcess,
};
use crate::error::Result;
use crate::format::LogPosition;

/// An id that no scavenge has. Older servers name the running scavenge if they are asked to stop
/// this one.
const NO_SCAVENGE: &str = "00000000-0000-0000-0000-000000000001";

/// The admin API of one node. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("connection", self.connection())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Prepares the client. It sends nothing yet.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) if the URL is not valid or holds credentials, or
    /// if a certificate file cannot be read.
    pub fn new(connection: &Connection) -> Result<Self> {
        Ok(Self {
            transport: Transport::new(connection)?,
        })
    }

    /// A client for a neighbour of this node, at an endpoint that gossip named. The client sends no
    /// credentials, because those are meant for this node alone.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn neighbour(&self, endpoint: &str) -> Result<Self> {
        let connection = self.connection();
        let scheme = if connection.unix_socket.is_some() {
            "http"
        } else {
            self.transport.scheme()
        };

        Self::new(&Connection {
            url: format!("{scheme}://{endpoint}"),
            credentials: None,
            unix_socket: None,
            server_name: None,
            ..connection.clone()
        })
    }

    /// The node's URL, or its socket, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        self.transport.place()
    }

    /// How the node is reached.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.transport.connection()
    }

    /// Version and state.
    ///
    /// # Errors
    /// [`Kind::Unreachable`](crate::error::Kind::Unreachable) if no answer comes in time,
    /// [`Kind::Failed`](crate::error::Kind::Failed) if the answer makes no sense. This holds for
    /// all calls below.
    pub fn info(&self, patience: Patience<'_>) -> Result<NodeInfo> {
        let reply = self.transport.ask(&Question::get("/info"), patience)?;
        self.transport.check_success(&reply)?;
        let info: NodeInfo = reply.json()?;
        if info.is_blank() {
            return Err(reply.nonsense("it names neither a version nor a state"));
        }
        Ok(info)
    }

    /// The cluster as this member sees it. Returns `None` if the node does not report it
    /// (`DisableGossipOnHttp`).
    ///
    /// # Errors
    /// As [`Self::info`], and [`Kind::Denied`](crate::error::Kind::Denied).
    pub fn gossip(&self, patience: Patience<'_>) -> Result<Option<Gossip>> {
        self.read_if_there("/gossip", patience)
    }

    /// The node's configuration; needs `$ops` or `$admins`.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn options(&self, patience: Patience<'_>) -> Result<ServerOptions> {
        let rows: Vec<OptionRow> = self.read("/info/options", patience)?;
        Ok(ServerOptions::from_rows(rows))
    }

    /// Whether the node calls itself ready (O47).
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn is_healthy(&self, patience: Patience<'_>) -> Result<bool> {
        // This path must be asked without credentials (http-api §3.4).
        let question = Question::get("/health/live")
            .without_credentials()
            .accept(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::REQUEST_TIMEOUT]);
        let reply = self.transport.ask(&question, patience)?;
        Ok(reply.status.is_success())
    }

    /// The server process. Returns `None` if the node does not report it (`DisableStatsOnHttp`).
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn process(&self, patience: Patience<'_>) -> Result<Option<ServerProcess>> {
        self.read_if_there("/stats/proc", patience)
    }

    /// The flushed end of the log, at most a second old (`es.checksum`). Returns `None` if the node
    /// does not report it.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn flushed(&self, patience: Patience<'_>) -> Result<Option<LogPosition>> {
        #[derive(Deserialize)]
        struct Database {
            checksum: Option<i64>,
        }

        let database: Option<Database> = self.read_if_there("/stats/es", patience)?;
        let checksum = database.and_then(|database| database.checksum);
        Ok(checksum.and_then(LogPosition::from_signed))
    }

    /// Checks that the node accepts the credentials. Only the calls that need a role show whether
    /// the user has it.
    ///
    /// # Errors
    /// As [`Self::info`]; [`Kind::Denied`](crate::error::Kind::Denied) if it does not accept them.
    pub fn check_login(&self, patience: Patience<'_>) -> Result<()> {
        let reply = self
            .transport
            .ask(&Question::get("/admin/login"), patience)?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(());
        }

        self.transport.check_success(&reply)
    }

    /// The scavenge that runs on this node.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn current_scavenge(&self, patience: Patience<'_>) -> Result<CurrentScavenge> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            scavenge_id: String,
        }

        let question = Question::get("/admin/scavenge/current");
        let reply = self.transport.ask(&question, patience)?;
        match reply.status {
            StatusCode::METHOD_NOT_ALLOWED => return Ok(CurrentScavenge::NotSupported),
            StatusCode::NOT_FOUND => return Ok(CurrentScavenge::AdminDisabled),
            _ => self.transport.check_success(&reply)?,
        }

        let Body { scavenge_id } = reply.json()?;
        reply.check_id(&scavenge_id)?;
        if scavenge_id.is_empty() {
            Ok(CurrentScavenge::Idle)
        } else {
            Ok(CurrentScavenge::Running(scavenge_id))
        }
    }

    /// The scavenge that runs on a node too old for [`Self::current_scavenge`].
    ///
    /// If servers up to 22.10 are asked to stop an unknown scavenge, they answer with the id of the
    /// one that runs (O43). Nothing is stopped by that. The source of 20.10 to 22.6
    /// (`StorageScavenger`) shows that no id means that none runs.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn current_scavenge_of_old_server(
        &self,
        patience: Patience<'_>,
    ) -> Result<CurrentScavenge> {
        let path = format!("/admin/scavenge/{NO_SCAVENGE}");
        // This request stops nothing, so it can be sent again.
        let question = Question::once(Method::DELETE, &path).repeatable();
        let reply = self.transport.ask(&question, patience)?;
        if reply.status != StatusCode::NOT_FOUND {
            self.transport.check_success(&reply)?;
            return Err(reply.nonsense("it stopped a scavenge that does not exist"));
        }

        Ok(match reply.named_scavenge() {
            Some(id) => CurrentScavenge::Running(id),
            None => CurrentScavenge::Idle,
        })
    }

    /// The last scavenge since the process started. Returns `None` if the server cannot be asked
    /// (before 24.10), or does not say which one it was and how it ended.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn last_scavenge(&self, patience: Patience<'_>) -> Result<Option<LastScavenge>> {
        let question = Question::get("/admin/scavenge/last");
        let reply = self.transport.ask(&question, patience)?;
        if matches!(
            reply.status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND
        ) {
            return Ok(None);
        }

        self.transport.check_success(&reply)?;
        let body: LastScavengeBody = reply.json()?;
        Ok(body.scavenge())
    }

    /// Asks to start a scavenge. The request is never repeated: even if no answer comes, the
    /// scavenge may run.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn start_scavenge(
        &self,
        extent: ScavengeExtent,
        threads: u32,
        throttle_percent: u32,
        patience: Patience<'_>,
    ) -> Result<ScavengeStart> {
        let path = match extent {
            // The node refuses a throttle with more than one thread (http-api §1.4).
            ScavengeExtent::Unfinished if threads > 1 => {
                format!("/admin/scavenge?syncOnly=true&threads={threads}")
            }
            ScavengeExtent::Unfinished => format!(
                "/admin/scavenge?syncOnly=true&threads=1&throttlePercent={throttle_percent}"
            ),
            ScavengeExtent::Whole => format!("/admin/scavenge?threads={threads}"),
            ScavengeExtent::From(chunk) => {
                format!("/admin/scavenge?threads={threads}&startFromChunk={chunk}")
            }
        };
        let question = Question::once(Method::POST, &path).accept(&[StatusCode::REQUEST_TIMEOUT]);
        let Some(reply) = self.transport.ask_once(&question, patience)? else {
            return Ok(ScavengeStart::NoAnswer);
        };

        match reply.status {
            StatusCode::REQUEST_TIMEOUT => Ok(ScavengeStart::NoAnswer),
            StatusCode::BAD_REQUEST => Ok(not_started(&reply)),
            _ => {
                self.transport.check_success(&reply)?;
                started(&reply)
            }
        }
    }

    /// Asks the node to stop the scavenge with this id. Another node behind a load balancer does
    /// not have this scavenge, so it stops nothing. Often no answer comes (O41): poll the current
    /// scavenge afterwards.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn stop_scavenge(&self, scavenge: &str, patience: Patience<'_>) -> Result<ScavengeStop> {
        let id: String = scavenge.chars().filter(is_part_of_id).collect();
        let path = format!("/admin/scavenge/{id}");
        let question = Question::once(Method::DELETE, &path).accept(&[StatusCode::REQUEST_TIMEOUT]);
        let Some(reply) = self.transport.ask_once(&question, patience)? else {
            return Ok(ScavengeStop::NoAnswer);
        };

        match reply.status {
            StatusCode::REQUEST_TIMEOUT => Ok(ScavengeStop::NoAnswer),
            StatusCode::NOT_FOUND => Ok(ScavengeStop::NotRunning(reply.named_scavenge())),
            _ => {
                self.transport.check_success(&reply)?;
                Ok(ScavengeStop::Stopped)
            }
        }
    }

    /// The newest entries of the stream `$scavenges`, newest first; empty if there is no such
    /// stream. Entries may be missing, because a node writes them through its leader.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn scavenge_events(&self, patience: Patience<'_>) -> Result<Vec<ScavengeEvent>> {
        let feed: Option<Feed> = self.read_if_there("/streams/$scavenges?embed=body", patience)?;
        Ok(match feed {
            Some(feed) => feed.scavenge_events(),
            None => Vec::new(),
        })
    }

    /// The state of the cluster's auto-scavenge.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn auto_scavenge(&self, patience: Patience<'_>) -> Result<AutoScavenge> {
        Ok(self.auto_scavenge_status(patience)?.state)
    }

    /// As [`Self::auto_scavenge`], with the time until the next cycle.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn auto_scavenge_status(&self, patience: Patience<'_>) -> Result<AutoScavengeStatus> {
        #[derive(Deserialize)]
        struct Enabled {
            enabled: Option<bool>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct PluginStatus {
            state: String,
            #[serde(default)]
            time_until_next_cycle: Option<String>,
        }
        const ABSENT: AutoScavengeStatus = AutoScavengeStatus {
            state: AutoScavenge::Absent,
            until_next_cycle: None,
        };

        // Without a licence all but `enabled` answer 503, as if they were not ready (http-api
        // §2.1).
        let enabled: Option<Enabled> = self.read_if_there("/auto-scavenge/enabled", patience)?;
        // If it does not say whether it is enabled, its status tells.
        if matches!(
            enabled,
            None | Some(Enabled {
                enabled: Some(false)
            })
        ) {
            return Ok(ABSENT);
        }

        let question =
            Question::get("/auto-scavenge/status").accept(&[StatusCode::SERVICE_UNAVAILABLE]);
        let reply = self.transport.ask(&question, patience)?;
        match reply.status {
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => {
                return Ok(ABSENT);
            }
            StatusCode::INTERNAL_SERVER_ERROR if says_plugin_crashed(&reply) => {
                return Ok(ABSENT);
            }
            _ => self.transport.check_success(&reply)?,
        }

        let status: PluginStatus = reply.json()?;
        let until = status.time_until_next_cycle;
        Ok(AutoScavengeStatus {
            state: AutoScavenge::from_state(&status.state),
            until_next_cycle: until.as_deref().and_then(time_span::parse),
        })
    }

    /// Asks the cluster to pause auto-scavenge. The pause holds once [`Self::auto_scavenge`] says
    /// so.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn pause_auto_scavenge(&self, patience: Patience<'_>) -> Result<()> {
        // A second request to pause changes nothing (http-api §2.3).
        let question = Question::once(Method::POST, "/auto-scavenge/pause").repeatable();
        let reply = self.transport.ask(&question, patience)?;
        self.transport.check_success(&reply)
    }

    /// Asks the cluster to resume auto-scavenge. If it is not paused, nothing happens.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn resume_auto_scavenge(&self, patience: Patience<'_>) -> Result<AutoScavengeResume> {
        let question = Question::once(Method::POST, "/auto-scavenge/resume").repeatable();
        let reply = self.transport.ask(&question, patience)?;
        if reply.status == StatusCode::BAD_REQUEST && reply.text().contains("currently pausing") {
            return Ok(AutoScavengeResume::StillPausing);
        }

        self.transport.check_success(&reply)?;
        Ok(AutoScavengeResume::Accepted)
    }

    /// The JSON at a path. `kbackup status` also reads the status of an agent with it.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn read<T: DeserializeOwned>(&self, path: &str, patience: Patience<'_>) -> Result<T> {
        let reply = self.transport.ask(&Question::get(path), patience)?;
        self.transport.check_success(&reply)?;
        reply.json()
    }

    /// As [`Self::read`]. Returns `None` if the node answers that there is no such path.
    fn read_if_there<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Patience<'_>,
    ) -> Result<Option<T>> {
        let reply = self.transport.ask(&Question::get(path), patience)?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }

        self.transport.check_success(&reply)?;
        reply.json().map(Some)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartBody {
    scavenge_id: Option<String>,
}

fn started(reply: &Reply) -> Result<ScavengeStart> {
    let body: StartBody = reply.json()?;
    let Some(id) = body.scavenge_id else {
        return Err(reply.nonsense("it names no scavenge"));
    };

    reply.check_id(&id)?;
    Ok(ScavengeStart::Started(id))
}

fn not_started(reply: &Reply) -> ScavengeStart {
    if let Ok(body) = serde_json::from_slice::<StartBody>(&reply.body) {
        return ScavengeStart::AlreadyRunning(body.scavenge_id);
    }

    let text = reply.text();
    if text.contains("already running") {
        ScavengeStart::AlreadyRunning(None)
    } else {
        ScavengeStart::Refused(text)
    }
}

fn is_part_of_id(character: &char) -> bool {
    character.is_ascii_alphanumeric() || *character == '-'
}

/// Whether the reply contains the words of a crashed plugin (http-api §2.1). Other errors are
/// temporary.
fn says_plugin_crashed(reply: &Reply) -> bool {
    let detail = reply.detail();
    detail.contains("no longer running") || detail.contains("errored")
}
