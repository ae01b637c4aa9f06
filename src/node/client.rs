//! One HTTP/1.1 conversation after another with a node's admin API. The only place where
//! asynchronous code runs for the core.
//!
//! Each question has its own connection: the rare questions do not make up for a kept one, and a
//! load balancer that sends questions to different nodes shows itself early. Redirects are never
//! followed, proxies of the environment never used, and credentials never leave for another host.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
    WWW_AUTHENTICATE,
};
use reqwest::{Method, StatusCode, Url};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::answers::{Feed, OptionRow};
use super::{
    AutoScavenge, AutoScavengeResume, Connection, Credentials, CurrentScavenge, Gossip,
    LastScavenge, NodeInfo, NodeOptions, ScavengeEvent, ScavengeExtent, ScavengeStart,
    ScavengeStop, ServerProcess,
};
use crate::error::{Error, Kind, Result};
use crate::format::LogPosition;
use crate::fs;
use crate::run::Run;

/// No answer that kbackup reads comes near this many bytes.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// A certificate file is a few kilobytes, a bundle of all public authorities some hundred.
const MAX_CERTIFICATE: u64 = 4 * 1024 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The id of no scavenge; asking to stop it is how older servers are asked which one runs.
const NO_SCAVENGE: &str = "00000000-0000-0000-0000-000000000001";

/// How long a caller waits for one answer, and what ends the wait early.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    run: Option<&'a Run>,
    total: Option<Duration>,
}

impl<'a> Patience<'a> {
    /// As long as the connection's limits say, but not beyond an interruption of `run`.
    #[must_use]
    pub const fn of(run: &'a Run) -> Self {
        Self {
            run: Some(run),
            total: None,
        }
    }

    /// At most `total`, even when the run was interrupted: for giving back what was taken.
    #[must_use]
    pub const fn regardless(total: Duration) -> Self {
        Self {
            run: None,
            total: Some(total),
        }
    }

    /// At most `total` for all attempts together.
    #[must_use]
    pub const fn within(self, total: Duration) -> Self {
        Self {
            total: Some(total),
            ..self
        }
    }

    fn check(&self) -> Result<()> {
        self.run.map_or(Ok(()), Run::check)
    }

    /// Sleeps, but not beyond an interruption of the run.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] once the run was asked to end.
    pub(super) fn pause(&self, duration: Duration) -> Result<()> {
        match self.run {
            Some(run) => run.pause(duration),
            None => {
                std::thread::sleep(duration);
                Ok(())
            }
        }
    }
}

/// The admin API of one node. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    runtime: Arc<Background>,
    base: Url,
    connection: Arc<Connection>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// A runtime that is left behind without waiting: a name server that does not answer must not delay
/// an interruption.
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Question<'a> {
    method: Method,
    path: &'a str,
    /// Asking twice does no harm.
    repeatable: bool,
    /// `/health` must be asked without credentials (http-api §3.4).
    authorized: bool,
    /// Statuses that are an answer although they usually mean "try again".
    answers: &'a [StatusCode],
}

impl<'a> Question<'a> {
    const fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            repeatable: true,
            authorized: true,
            answers: &[],
        }
    }

    const fn once(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            repeatable: false,
            authorized: true,
            answers: &[],
        }
    }
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    place: String,
}

/// Why an attempt brought no answer.
enum Silence {
    Interrupted(Error),
    Connect(reqwest::Error),
    Broken(reqwest::Error),
    TooLate,
    TooLong,
    /// An answer, but only that it is not ready.
    Busy(StatusCode),
}

impl Client {
    /// Prepares the conversation; nothing is sent yet.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a URL that is none or holds credentials, and for certificate files that
    /// cannot be read.
    pub fn new(connection: &Connection) -> Result<Self> {
        let base = connection.base()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(Kind::Failed, "cannot prepare the network").because(error)
            })?;
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .pool_max_idle_per_host(0)
            .connect_timeout(connection.limits.connect)
            .user_agent(concat!("kbackup/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(authorities(connection, &base)?);
        if connection.insecure_skip_verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if let Some(identity) = identity(connection)? {
            builder = builder.identity(identity);
        }
        let mut target = base.clone();
        if let Some(socket) = &connection.unix_socket {
            builder = builder.unix_socket(socket.as_path());
        } else if let Some(name) = &connection.server_name {
            let host = base
                .host_str()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned();
            target
                .set_host(Some(name))
                .map_err(|error| usage("the server name is no DNS name").because(error))?;
            if target.domain().is_none() {
                return Err(usage("the server name is no DNS name"));
            }
            builder = builder.dns_resolver(Arc::new(Always { host }));
        }
        let http = builder.build().map_err(|error| {
            usage("the TLS settings cannot be used").because(error.without_url())
        })?;
        connection
            .credentials
            .as_ref()
            .map_or(Ok(()), check_sendable)?;
        Ok(Self {
            http,
            runtime: Arc::new(Background(Some(runtime))),
            base: target,
            connection: Arc::new(connection.clone()),
        })
    }

    /// The same node's neighbour at an endpoint that gossip named. It is asked without credentials:
    /// they are meant for this node alone.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn neighbour(&self, endpoint: &str) -> Result<Self> {
        let scheme = if self.connection.unix_socket.is_some() {
            "http"
        } else {
            self.base.scheme()
        };
        let connection = Connection {
            url: format!("{scheme}://{endpoint}"),
            credentials: None,
            unix_socket: None,
            server_name: None,
            ..(*self.connection).clone()
        };
        Self::new(&connection)
    }

    /// The node's URL, or its socket: a place for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.connection.unix_socket {
            Some(socket) => format!("unix:{}", socket.display()),
            None => self.connection.url.trim_end_matches('/').to_owned(),
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Version and state.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] where no answer comes in time, [`Kind::Failed`] where the answer makes
    /// no sense; so do all calls below.
    pub fn info(&self, patience: Patience<'_>) -> Result<NodeInfo> {
        self.read("/info", patience)
    }

    /// The cluster as this member sees it; none where the node does not tell
    /// (`DisableGossipOnHttp`).
    ///
    /// # Errors
    /// As [`Self::info`], and [`Kind::Denied`].
    pub fn gossip(&self, patience: Patience<'_>) -> Result<Option<Gossip>> {
        self.read_if_there("/gossip", patience)
    }

    /// The node's configuration; needs `$ops` or `$admins`.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn options(&self, patience: Patience<'_>) -> Result<NodeOptions> {
        self.read::<Vec<OptionRow>>("/info/options", patience)
            .map(NodeOptions::from_rows)
    }

    /// Whether the node calls itself ready (O47).
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn is_healthy(&self, patience: Patience<'_>) -> Result<bool> {
        let question = Question {
            authorized: false,
            answers: &[StatusCode::SERVICE_UNAVAILABLE, StatusCode::REQUEST_TIMEOUT],
            ..Question::get("/health/live")
        };
        Ok(self.ask(&question, patience)?.status.is_success())
    }

    /// The server process; none where the node does not tell (`DisableStatsOnHttp`).
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn process(&self, patience: Patience<'_>) -> Result<Option<ServerProcess>> {
        self.read_if_there("/stats/proc", patience)
    }

    /// The flushed end of the log, at most a second old (`es.checksum`); none where the node does
    /// not tell.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn flushed(&self, patience: Patience<'_>) -> Result<Option<LogPosition>> {
        #[derive(serde::Deserialize)]
        struct Database {
            checksum: i64,
        }
        Ok(self
            .read_if_there::<Database>("/stats/es", patience)?
            .and_then(|database| LogPosition::from_signed(database.checksum)))
    }

    /// Whether the credentials are taken; their roles show only at the calls that need them.
    ///
    /// # Errors
    /// As [`Self::info`]; [`Kind::Denied`] where they are not.
    pub fn check_login(&self, patience: Patience<'_>) -> Result<()> {
        let reply = self.ask(&Question::get("/admin/login"), patience)?;
        if reply.status == StatusCode::NOT_FOUND {
            Ok(())
        } else {
            self.success(&reply)
        }
    }

    /// The scavenge that runs on this node.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn current_scavenge(&self, patience: Patience<'_>) -> Result<CurrentScavenge> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            scavenge_id: String,
        }
        let reply = self.ask(&Question::get("/admin/scavenge/current"), patience)?;
        match reply.status {
            StatusCode::METHOD_NOT_ALLOWED => Ok(CurrentScavenge::NotSupported),
            StatusCode::NOT_FOUND => Ok(CurrentScavenge::AdminDisabled),
            _ => {
                self.success(&reply)?;
                let body: Body = reply.json()?;
                reply.plausible(&body.scavenge_id)?;
                Ok(if body.scavenge_id.is_empty() {
                    CurrentScavenge::Idle
                } else {
                    CurrentScavenge::Running(body.scavenge_id)
                })
            }
        }
    }

    /// The scavenge that runs on a node too old for [`Self::current_scavenge`].
    ///
    /// Servers up to 22.10 answer the wish to stop an unknown scavenge by the id of the one that
    /// runs (O43); nothing is stopped by it. The source of 20.10 to 22.6 (`StorageScavenger`) shows
    /// that no id means that none runs.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn current_scavenge_of_old_server(
        &self,
        patience: Patience<'_>,
    ) -> Result<CurrentScavenge> {
        let path = format!("/admin/scavenge/{NO_SCAVENGE}");
        // It stops nothing, so that it can be asked again.
        let reply = self.ask(
            &Question {
                repeatable: true,
                ..Question::once(Method::DELETE, &path)
            },
            patience,
        )?;
        if reply.status != StatusCode::NOT_FOUND {
            self.success(&reply)?;
            return Err(reply.nonsense("it stopped a scavenge that does not exist"));
        }
        Ok(reply
            .named_scavenge()
            .map_or(CurrentScavenge::Idle, CurrentScavenge::Running))
    }

    /// The last scavenge since the process started; none where the server cannot be asked (before
    /// 24.10).
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn last_scavenge(&self, patience: Patience<'_>) -> Result<Option<LastScavenge>> {
        let reply = self.ask(&Question::get("/admin/scavenge/last"), patience)?;
        if matches!(
            reply.status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND
        ) {
            return Ok(None);
        }
        self.success(&reply)?;
        reply.json().map(Some)
    }

    /// Asks to start a scavenge. Never repeated: an answer that does not come may still mean that
    /// it runs.
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
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            scavenge_id: Option<String>,
        }
        let path = match extent {
            // The node refuses a throttle with more than one thread (http-api §1.4).
            ScavengeExtent::Unfinished if threads > 1 => {
                format!("/admin/scavenge?syncOnly=true&threads={threads}")
            }
            ScavengeExtent::Unfinished => format!(
                "/admin/scavenge?syncOnly=true&threads=1&throttlePercent={throttle_percent}"
            ),
            ScavengeExtent::Whole => format!("/admin/scavenge?threads={threads}"),
        };
        let question = Question {
            answers: &[StatusCode::REQUEST_TIMEOUT],
            ..Question::once(Method::POST, &path)
        };
        let Some(reply) = self.ask_once(&question, patience)? else {
            return Ok(ScavengeStart::NoAnswer);
        };
        match reply.status {
            StatusCode::REQUEST_TIMEOUT => Ok(ScavengeStart::NoAnswer),
            StatusCode::BAD_REQUEST => {
                let text = reply.text();
                if let Ok(body) = serde_json::from_slice::<Body>(&reply.body) {
                    Ok(ScavengeStart::AlreadyRunning(body.scavenge_id))
                } else if text.contains("already running") {
                    Ok(ScavengeStart::AlreadyRunning(None))
                } else {
                    Ok(ScavengeStart::Refused(text))
                }
            }
            _ => {
                self.success(&reply)?;
                let body: Body = reply.json()?;
                let id = body
                    .scavenge_id
                    .ok_or_else(|| reply.nonsense("it names no scavenge"))?;
                reply.plausible(&id)?;
                Ok(ScavengeStart::Started(id))
            }
        }
    }

    /// Asks to stop a scavenge by its id, so that a load balancer's other node is not harmed. No
    /// answer is normal (O41): poll the current one afterwards.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn stop_scavenge(&self, scavenge: &str, patience: Patience<'_>) -> Result<ScavengeStop> {
        let path = format!(
            "/admin/scavenge/{}",
            scavenge.replace(
                |character: char| !character.is_ascii_alphanumeric() && character != '-',
                ""
            )
        );
        let question = Question {
            answers: &[StatusCode::REQUEST_TIMEOUT],
            ..Question::once(Method::DELETE, &path)
        };
        let Some(reply) = self.ask_once(&question, patience)? else {
            return Ok(ScavengeStop::NoAnswer);
        };
        match reply.status {
            StatusCode::REQUEST_TIMEOUT => Ok(ScavengeStop::NoAnswer),
            StatusCode::NOT_FOUND => Ok(ScavengeStop::NotRunning(reply.named_scavenge())),
            _ => self.success(&reply).map(|()| ScavengeStop::Stopped),
        }
    }

    /// The newest entries of the log's stream of scavenges, newest first; none where there is no
    /// such stream. Best effort: a node writes them through its leader.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn scavenge_events(&self, patience: Patience<'_>) -> Result<Vec<ScavengeEvent>> {
        let feed: Option<Feed> = self.read_if_there("/streams/$scavenges?embed=body", patience)?;
        Ok(feed
            .map(|feed| {
                feed.entries
                    .iter()
                    .filter_map(super::answers::FeedEntry::scavenge_event)
                    .collect()
            })
            .unwrap_or_default())
    }

    /// Where auto-scavenge stands in the cluster.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn auto_scavenge(&self, patience: Patience<'_>) -> Result<AutoScavenge> {
        #[derive(serde::Deserialize)]
        struct Enabled {
            enabled: bool,
        }
        #[derive(serde::Deserialize)]
        struct Status {
            state: String,
        }
        // Without a licence all but `enabled` answer 503, as if they were not ready (http-api
        // §2.1).
        if !self
            .read_if_there::<Enabled>("/auto-scavenge/enabled", patience)?
            .is_some_and(|answer| answer.enabled)
        {
            return Ok(AutoScavenge::Absent);
        }
        let question = Question {
            answers: &[StatusCode::SERVICE_UNAVAILABLE],
            ..Question::get("/auto-scavenge/status")
        };
        let reply = self.ask(&question, patience)?;
        // A plugin that crashed says so by these words (http-api §2.1); other errors pass.
        let crashed = reply.status == StatusCode::INTERNAL_SERVER_ERROR
            && ["no longer running", "errored"]
                .iter()
                .any(|words| reply.detail().contains(words));
        if crashed
            || matches!(
                reply.status,
                StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE
            )
        {
            return Ok(AutoScavenge::Absent);
        }
        self.success(&reply)?;
        let status: Status = reply.json()?;
        Ok(AutoScavenge::from_state(&status.state))
    }

    /// Asks the cluster to pause auto-scavenge; it holds once [`Self::auto_scavenge`] says so.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn pause_auto_scavenge(&self, patience: Patience<'_>) -> Result<()> {
        // Pausing twice is as pausing once (http-api §2.3).
        let question = Question {
            repeatable: true,
            ..Question::once(Method::POST, "/auto-scavenge/pause")
        };
        let reply = self.ask(&question, patience)?;
        self.success(&reply)
    }

    /// Asks the cluster to resume auto-scavenge; resuming what is not paused does nothing.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn resume_auto_scavenge(&self, patience: Patience<'_>) -> Result<AutoScavengeResume> {
        let question = Question {
            repeatable: true,
            ..Question::once(Method::POST, "/auto-scavenge/resume")
        };
        let reply = self.ask(&question, patience)?;
        if reply.status == StatusCode::BAD_REQUEST && reply.text().contains("currently pausing") {
            return Ok(AutoScavengeResume::StillPausing);
        }
        self.success(&reply).map(|()| AutoScavengeResume::Accepted)
    }

    /// What stands under a path, as JSON. Also for what is no node's admin API, and is asked in the
    /// same way: an agent's status.
    ///
    /// # Errors
    /// As [`Self::gossip`].
    pub fn read<T: DeserializeOwned>(&self, path: &str, patience: Patience<'_>) -> Result<T> {
        let reply = self.ask(&Question::get(path), patience)?;
        self.success(&reply)?;
        reply.json()
    }

    fn read_if_there<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Patience<'_>,
    ) -> Result<Option<T>> {
        let reply = self.ask(&Question::get(path), patience)?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.success(&reply)?;
        reply.json().map(Some)
    }

    /// An answer, or none where the question may have been heard but no answer came.
    fn ask_once(&self, question: &Question<'_>, patience: Patience<'_>) -> Result<Option<Reply>> {
        match self.attempts(question, patience) {
            Ok(reply) => Ok(Some(reply)),
            Err(Silence::TooLate | Silence::Broken(_)) => Ok(None),
            Err(silence) => Err(self.silent(question, silence)),
        }
    }

    fn ask(&self, question: &Question<'_>, patience: Patience<'_>) -> Result<Reply> {
        self.attempts(question, patience)
            .map_err(|silence| self.silent(question, silence))
    }

    /// Asks until an answer comes, the limit is over, or asking again could do harm.
    fn attempts(&self, question: &Question<'_>, patience: Patience<'_>) -> Result<Reply, Silence> {
        let end = Instant::now() + patience.total.unwrap_or(self.connection.limits.patience);
        let mut pause = FIRST_PAUSE;
        loop {
            patience.check().map_err(Silence::Interrupted)?;
            let left = end
                .saturating_duration_since(Instant::now())
                .max(FIRST_PAUSE);
            let silence =
                match self.attempt(question, patience, left.min(self.connection.limits.answer)) {
                    Ok(reply)
                        if is_busy(reply.status) && !question.answers.contains(&reply.status) =>
                    {
                        Silence::Busy(reply.status)
                    }
                    Ok(reply) => return Ok(reply),
                    Err(silence) => silence,
                };
            let again = match &silence {
                Silence::Interrupted(_) | Silence::TooLong => false,
                // A busy answer says that nothing was done; silence does not.
                Silence::Connect(_) | Silence::Busy(_) => true,
                Silence::Broken(_) | Silence::TooLate => question.repeatable,
            };
            if !again || Instant::now() + pause >= end {
                return Err(silence);
            }
            patience.pause(pause).map_err(Silence::Interrupted)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn attempt(
        &self,
        question: &Question<'_>,
        patience: Patience<'_>,
        limit: Duration,
    ) -> Result<Reply, Silence> {
        let Some(runtime) = &self.runtime.0 else {
            return Err(Silence::TooLate);
        };
        let conversation = tokio_timeout(limit, self.converse(question));
        match patience.run {
            None => runtime.block_on(conversation),
            Some(run) => runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = run.cancelled().cancelled() => match run.check() {
                        Err(error) => Err(Silence::Interrupted(error)),
                        Ok(()) => Err(Silence::TooLate),
                    },
                    reply = conversation => reply,
                }
            }),
        }
    }

    async fn converse(&self, question: &Question<'_>) -> Result<Reply, Silence> {
        let url = self
            .base
            .join(question.path)
            .unwrap_or_else(|_| self.base.clone());
        let mut request = self
            .http
            .request(question.method.clone(), url)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity");
        if question.method != Method::GET {
            request = request.header(CONTENT_LENGTH, "0");
        }
        // Keeps the plugins from sending a browser's redirect where they mean "forbidden" (http-api
        // §2.2).
        request = request.header("X-Requested-With", "XMLHttpRequest");
        if question.authorized {
            request = match &self.connection.credentials {
                Some(Credentials::Basic { user, password }) => {
                    request.basic_auth(user, Some(password.expose_secret()))
                }
                Some(Credentials::Bearer(token)) => request.bearer_auth(token.expose_secret()),
                None => request,
            };
        }
        let classify = |error: reqwest::Error| {
            let error = error.without_url();
            if error.is_connect() {
                Silence::Connect(error)
            } else {
                Silence::Broken(error)
            }
        };
        let mut response = request.send().await.map_err(classify)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(classify)? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Silence::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Reply {
            status,
            headers,
            body,
            place: format!("{}{}", self.place(), question.path),
        })
    }

    fn silent(&self, question: &Question<'_>, silence: Silence) -> Error {
        let place = format!("{}{}", self.place(), question.path);
        match silence {
            Silence::Interrupted(error) => error,
            Silence::Busy(status) => Error::new(Kind::Unreachable, format!("the node is not ready: it keeps answering {status}"))
                .on(place)
                .hint("a node that starts or has lost its cluster answers so; look at its log, or try again later"),
            Silence::TooLong => Error::new(Kind::Failed, format!("the answer is longer than {MAX_ANSWER} bytes"))
                .on(place)
                .hint("is this URL the HTTP side of a KurrentDB or EventStoreDB node?"),
            Silence::TooLate => Error::new(Kind::Unreachable, "the node does not answer in time")
                .on(place)
                .hint("is the node overloaded, or something else behind this URL?"),
            Silence::Connect(error) | Silence::Broken(error) => {
                let hint = if is_about_certificates(&error) {
                    "name the file of the authority that signed the node's certificate (`--ca-file`); the URL must call the node by a name that its certificate holds"
                } else if self.base.scheme() == "https" && self.connection.unix_socket.is_none() {
                    "does the node run, and does it speak TLS? A node with `Insecure: true` is reached by `http://`"
                } else {
                    "does the node run, and without TLS? A node that is not `Insecure` is reached by `https://`"
                };
                Error::new(Kind::Unreachable, "the node cannot be reached").on(place).because(error).hint(hint)
            }
        }
    }

    /// What an answer of no success means.
    fn success(&self, reply: &Reply) -> Result<()> {
        let status = reply.status;
        if status.is_success() {
            return Ok(());
        }
        let denied = |what: &str| Error::new(Kind::Denied, what).on(&reply.place);
        let shown = self.connection.credentials.is_some();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let rejected =
                reply.headers.contains_key(WWW_AUTHENTICATE) && status == StatusCode::UNAUTHORIZED;
            return Err(match (shown, rejected) {
                (false, _) => denied("the node wants to know who asks")
                    .hint("give a user of the database (the user `ops` suffices) and its password, or a token"),
                (true, true) => {
                    denied("the node does not take these credentials").hint("check user and password; with OAuth it must be a token")
                }
                (true, false) => {
                    denied("these credentials do not suffice").hint("kbackup needs the role `$ops` or `$admins`; the user `ops` suffices")
                }
            });
        }
        if status.is_redirection() {
            return Err(self.redirected(reply));
        }
        Err(
            Error::new(Kind::Failed, format!("the node answers {status}"))
                .on(&reply.place)
                .because(reply.detail()),
        )
    }

    fn redirected(&self, reply: &Reply) -> Error {
        let target = reply
            .headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| self.base.join(value).ok());
        let Some(target) = target else {
            return Error::new(Kind::Failed, "the answer is a redirect to nowhere")
                .on(&reply.place);
        };
        if target.origin() == self.base.origin() && target.path().starts_with("/ui/") {
            // The plugins' way to say 401 and 403 (http-api §2.2).
            return Error::new(Kind::Denied, "these credentials do not suffice")
                .on(&reply.place)
                .hint("kbackup needs the role `$ops` or `$admins`; the user `ops` suffices");
        }
        let host = target.host_str().unwrap_or("?");
        let host = target
            .port_or_known_default()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Error::new(
            Kind::Refused,
            format!(
                "the answer is a redirect to {}://{host}, which is not followed",
                target.scheme()
            ),
        )
        .on(&reply.place)
        .hint("give the node's own address; a backup must not end up talking to another node")
    }
}

impl Reply {
    fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| self.nonsense(error.to_string()))
    }

    fn nonsense(&self, why: impl Into<String>) -> Error {
        let kind = self
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("no content type");
        Error::new(
            Kind::Failed,
            format!("the answer makes no sense ({}, {kind})", self.status),
        )
        .on(&self.place)
        .because(why.into())
        .hint("is this URL the HTTP side of a KurrentDB or EventStoreDB node?")
    }

    /// The id in the answer to a DELETE, a JSON string; none where it is empty, or another text
    /// (http-api §1.5).
    fn named_scavenge(&self) -> Option<String> {
        serde_json::from_slice::<Option<String>>(&self.body)
            .ok()
            .flatten()
            .filter(|id| !id.is_empty() && self.plausible(id).is_ok())
    }

    /// An id is written down before its scavenge is stopped, and has to be read again: it is no
    /// text of any length.
    fn plausible(&self, id: &str) -> Result<()> {
        const LONGEST: usize = 200;
        if id.len() <= LONGEST && !id.chars().any(char::is_control) {
            return Ok(());
        }
        Err(self.nonsense(format!(
            "the id of a scavenge has {} bytes, or is no text",
            id.len()
        )))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .trim()
            .trim_matches('"')
            .to_owned()
    }

    /// The first words of the body, or the reason in a problem document.
    fn detail(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Problem {
            detail: String,
        }
        let text = serde_json::from_slice::<Problem>(&self.body)
            .map_or_else(|_| self.text(), |problem| problem.detail);
        let text: String = text
            .chars()
            .filter(|character| !character.is_control())
            .take(200)
            .collect();
        if text.is_empty() {
            "it gives no reason".to_owned()
        } else {
            text
        }
    }
}

const fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE
    )
}

async fn tokio_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Silence>>,
) -> Result<T, Silence> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(Silence::TooLate))
}

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, what)
}

fn check_sendable(credentials: &Credentials) -> Result<()> {
    match credentials {
        Credentials::Basic { user, .. } if user.contains(':') => {
            Err(usage("a user's name cannot hold a colon"))
        }
        Credentials::Bearer(token) if HeaderValue::from_str(token.expose_secret()).is_err() => {
            Err(usage("the token holds characters that cannot be sent"))
        }
        _ => Ok(()),
    }
}

/// Whom to believe: the named authorities and nobody else; or the machine's; or, on a machine that
/// has none, the public ones.
fn authorities(connection: &Connection, base: &Url) -> Result<Vec<reqwest::Certificate>> {
    if base.scheme() != "https" || connection.insecure_skip_verify {
        return Ok(Vec::new());
    }
    let mut trusted = Vec::new();
    for path in &connection.ca_files {
        let pem = read_pem(path)?;
        let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| {
            usage("cannot read the authority's certificate")
                .at(path)
                .because(error.without_url())
        })?;
        if found.is_empty() {
            return Err(usage("the file holds no certificate")
                .at(path)
                .hint("it must be PEM: `-----BEGIN CERTIFICATE-----`"));
        }
        trusted.extend(found);
    }
    if !connection.ca_files.is_empty() {
        return Ok(trusted);
    }
    Ok(machine_authorities())
}

/// The authorities that this machine trusts, or, where it has none, the public ones.
#[must_use]
pub fn machine_authorities() -> Vec<reqwest::Certificate> {
    let known = |certificate| reqwest::Certificate::from_der(certificate).ok();
    // Files of the store that cannot be read are left out, as every other program does.
    let native = rustls_native_certs::load_native_certs();
    let trusted: Vec<_> = native
        .certs
        .iter()
        .filter_map(|certificate| known(certificate))
        .collect();
    if trusted.is_empty() {
        return webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .filter_map(|certificate| known(certificate))
            .collect();
    }
    trusted
}

/// The file may be a link: `/etc/ssl` and mounted secrets are full of them.
fn read_pem(path: &Path) -> Result<Vec<u8>> {
    let read = fs::canonical(path).and_then(|path| fs::read_small(&path, MAX_CERTIFICATE));
    read.map_err(|error| {
        let error = Error::from(error);
        if error.kind() == Kind::Failed {
            error.with_kind(Kind::Usage)
        } else {
            error
        }
    })
}

fn identity(connection: &Connection) -> Result<Option<reqwest::Identity>> {
    let Some(files) = &connection.client_certificate else {
        return Ok(None);
    };
    let mut pem = read_pem(&files.certificate)?;
    pem.push(b'\n');
    pem.extend(read_pem(&files.key)?);
    // The cause could quote the key.
    reqwest::Identity::from_pem(&pem).map(Some).map_err(|_| {
        usage("the client certificate and its key cannot be used")
            .at(&files.certificate)
            .hint("both must be PEM, the key without a password (PKCS#8, PKCS#1 or SEC1)")
    })
}

fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        if cause.to_string().contains("certificate") {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Resolves every name to the addresses of one host: the certificate is checked against another
/// name than the one that is called.
struct Always {
    host: String,
}

impl reqwest::dns::Resolve for Always {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}
