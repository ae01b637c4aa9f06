//! The troubles that a node, or a proxy before it, can make.

use std::net::SocketAddr;
use std::time::Duration;

/// How the node behaves beyond its recording. All quirks are off at first, except
/// `gossip_never_answers` on 20.10. Change them at any time with
/// [`Node::change_quirks`](crate::Node::change_quirks).
#[derive(Debug, Clone, PartialEq)]
pub struct Quirks {
    /// A DELETE of a scavenge stops it but never answers (O41).
    pub drop_delete_answers: bool,
    /// A DELETE of a scavenge stops it but answers 408 (http-api §1.5).
    pub delete_answers_408: bool,
    /// A DELETE of a scavenge answers only after this time. After 10 s it answers 408 instead, and
    /// stops the scavenge nevertheless (http-api §1.5).
    pub delete_takes: Duration,
    /// The time from the answer to a DELETE until the scavenge has cleaned up and `current` is empty
    /// (O40).
    pub cancel_delay: Duration,
    /// The duration of a scavenge that a client starts and that is not in the recording.
    pub scavenge_duration: Duration,
    /// The time after each `GET /admin/scavenge/current` in which no scavenge of the recording
    /// begins. If it is zero, a scavenge begins when the recording says.
    pub quiet_interval: Duration,
    /// Every request answers 408 after a while, as a node in the state `Initializing` does.
    pub answer_408: bool,
    /// `DisableAdminUi`: every `/admin/*` answers 404.
    pub admin_ui_disabled: bool,
    /// The answers of `/auto-scavenge/*`.
    pub auto_scavenge: AutoScavenge,
    /// The time until the next cycle of a licensed auto-scavenge that waits. `None`: the node does
    /// not tell it.
    pub next_cycle: Option<Duration>,
    /// Pausing and resuming auto-scavenge are events in the log (http-api §2.6). Works on a node
    /// from [`Node::still`](crate::Node::still) alone, because a recording has its own log.
    pub notes_auto_scavenge: bool,
    /// The time from `Pausing` to `Paused`.
    pub pausing_for: Duration,
    /// The node is not the leader and passes auto-scavenge calls on: pause and resume answer 202
    /// (http-api §2.4).
    pub auto_scavenge_proxied: bool,
    /// The credentials that the node wants. `None` means an insecure node: every caller is `system`
    /// (O45).
    pub credentials: Option<Credentials>,
    /// The credentials cannot be checked yet: 503 with `Retry-After: 5` (http-api §0.2).
    pub user_store_unavailable: bool,
    /// Every answer is a redirect to this base URL.
    pub redirect_to: Option<String>,
    /// A load balancer: every n-th answer comes from another node, with another InstanceId (n ≥ 1).
    pub other_node_every: Option<usize>,
    /// The node's role, such as `Follower` or `CatchingUp`, in place of `Leader`.
    pub state: Option<String>,
    /// Other members in the gossip.
    pub members: Vec<Member>,
    /// `/gossip` never answers. A single 20.10 node behaves so (fixtures/http/20.10.json), and there
    /// this quirk is on from the start.
    pub gossip_never_answers: bool,
    /// The `Db` option, in place of the true directory.
    pub db_option: Option<String>,
    /// The `Index` option, in place of the true directory.
    pub index_option: Option<String>,
    /// The node answers no request.
    pub never_answer: bool,
    /// Every body is this text, with the right status and content type.
    pub body: Option<String>,
    /// The number of blanks after every body, in bytes.
    pub padding: usize,
    /// The additional time of every answer.
    pub delay: Duration,
    /// Every answer has this status.
    pub status: Option<u16>,
    /// The address in the gossip, in place of the true one: a node that binds 0.0.0.0 advertises
    /// 127.0.0.1, and a node may get another address.
    pub advertised: Option<SocketAddr>,
    /// Fields that are missing, each with the path of its reply: `("/stats/es", "checksum")`.
    pub missing_fields: Vec<(&'static str, &'static str)>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            drop_delete_answers: false,
            delete_answers_408: false,
            delete_takes: Duration::ZERO,
            cancel_delay: Duration::from_millis(60),
            scavenge_duration: Duration::from_millis(200),
            quiet_interval: Duration::ZERO,
            answer_408: false,
            admin_ui_disabled: false,
            auto_scavenge: AutoScavenge::AsVersion,
            next_cycle: Some(Duration::ZERO),
            notes_auto_scavenge: false,
            pausing_for: Duration::from_millis(200),
            auto_scavenge_proxied: false,
            credentials: None,
            user_store_unavailable: false,
            redirect_to: None,
            other_node_every: None,
            state: None,
            members: Vec::new(),
            gossip_never_answers: false,
            db_option: None,
            index_option: None,
            never_answer: false,
            body: None,
            padding: 0,
            delay: Duration::ZERO,
            status: None,
            advertised: None,
            missing_fields: Vec::new(),
        }
    }
}

/// A user that the node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The login name.
    pub user: String,
    /// The password.
    pub password: String,
    /// A bearer token that the node accepts too.
    pub token: Option<String>,
    /// True if the user has the role `$ops`. Without it the admin endpoints answer 401 (http-api
    /// §0.2).
    pub operator: bool,
}

impl Credentials {
    /// An operator's credentials.
    #[must_use]
    pub fn operator(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            token: None,
            operator: true,
        }
    }
}

/// The auto-scavenge plugin (http-api §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoScavenge {
    /// The version's behaviour without a licence: 404, and unlicensed from 26.1 on (O44).
    AsVersion,
    /// Not installed or switched off: 404.
    Absent,
    /// No licence: `{"enabled":false}` and 503.
    Unlicensed,
    /// Licensed, in this state.
    Licensed(AutoScavengeState),
    /// Licensed, but stopped because of an error: 500.
    Broken,
    /// Licensed, while the cluster has no leader: 500.
    NoLeader,
}

/// The state in the answer of `GET /auto-scavenge/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoScavengeState {
    /// There is no schedule.
    NotConfigured,
    /// There is a schedule, and no scavenge runs now.
    Waiting,
    /// A scavenge runs on some node.
    InProgress,
    /// A client has paused it, and a scavenge has not stopped yet.
    Pausing,
    /// Paused.
    Paused,
}

impl AutoScavengeState {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotConfigured => "NotConfigured",
            Self::Waiting => "Waiting",
            Self::InProgress => "InProgress",
            Self::Pausing => "Pausing",
            Self::Paused => "Paused",
        }
    }
}

/// Another member of the cluster in the gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Such as `Leader`, `Follower`, `ReadOnlyReplica`; `Manager` is a seed not yet contacted.
    pub state: String,
    /// True if it answers the gossip.
    pub alive: bool,
    /// Its address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its writer checkpoint. `None` means this node's.
    pub writer: Option<i64>,
    /// The number of its last epoch. `None` means this node's.
    pub epoch_number: Option<i32>,
    /// The id of its last epoch. `None` means this node's.
    pub epoch_id: Option<uuid::Uuid>,
}

impl Member {
    /// A living member with the same log as this node.
    #[must_use]
    pub fn new(state: &str, host: &str, port: u16) -> Self {
        Self {
            state: state.to_owned(),
            alive: true,
            host: host.to_owned(),
            port,
            writer: None,
            epoch_number: None,
            epoch_id: None,
        }
    }

    /// Sets its writer checkpoint.
    #[must_use]
    pub fn with_writer(mut self, position: i64) -> Self {
        self.writer = Some(position);
        self
    }
}
