//! The node's admin API over real HTTP. It answers as the node's version does (http-api.md;
//! `fixtures/http`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use crate::log;
use crate::node::{Node, Parameters, Phase};
use crate::quirks::{AutoScavenge, AutoScavengeState, Credentials, Member, Quirks};
use crate::recording::{Checkpoint, Version};
use crate::streams;
use crate::templates::Templates;

/// A request that the node received.
#[derive(Debug, Clone)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// With the query, such as `/admin/scavenge?syncOnly=true`.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The time of the request.
    pub at: SystemTime,
    /// The node's step at that time.
    pub step: usize,
    /// True if it came through the unix socket.
    pub by_socket: bool,
    /// The status of the answer. `None` while there is no answer.
    pub status: Option<u16>,
}

impl Request {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// The addresses that the node listens on.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The TCP address. Port 0 means any free port.
    pub address: SocketAddr,
    /// A unix socket too, whose callers are `system` (http-api §4).
    pub unix_socket: Option<PathBuf>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            unix_socket: None,
        }
    }
}

/// A listening node. When it is dropped, all connections end and the port is free.
pub struct Server {
    address: SocketAddr,
    unix_socket: Option<PathBuf>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Such as `http://127.0.0.1:34567`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The unix socket, if there is one.
    #[must_use]
    pub fn unix_socket(&self) -> Option<&Path> {
        self.unix_socket.as_deref()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        if let Some(socket) = &self.unix_socket {
            let _already_gone = std::fs::remove_file(socket);
        }
    }
}

impl Node {
    /// Serves the admin API on a free port of 127.0.0.1, in its own threads, until the server is
    /// dropped. While the node is down, connections are dropped.
    pub fn serve(&self) -> Result<Server> {
        self.serve_on(&Listen::default())
    }

    /// Serves the admin API on these addresses.
    pub fn serve_on(&self, listen: &Listen) -> Result<Server> {
        let listener = TcpListener::bind(listen.address)
            .with_context(|| format!("cannot listen on {}", listen.address))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;

        let socket = match &listen.unix_socket {
            Some(path) => {
                let listener = UnixListener::bind(path)
                    .with_context(|| format!("cannot listen on {}", path.display()))?;
                listener.set_nonblocking(true)?;
                Some(listener)
            }
            None => None,
        };

        let templates = Arc::new(Templates::load(self.recording().version)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;

        let service = |by_socket| {
            axum::Router::new()
                .fallback(receive)
                .with_state(Arc::new(Service {
                    node: self.clone(),
                    templates: Arc::clone(&templates),
                    address,
                    by_socket,
                    answers: AtomicUsize::new(0),
                    other_instance: Uuid::new_v4(),
                }))
        };

        let reachable = &self.shared.reachable;
        let _context = runtime.enter();
        let tcp = Door {
            listener: tokio::net::TcpListener::from_std(listener)?,
            reachable: Arc::clone(reachable),
        };
        let app = service(false);
        runtime.spawn(async move { axum::serve(tcp, app).await });

        if let Some(listener) = socket {
            let unix = Door {
                listener: tokio::net::UnixListener::from_std(listener)?,
                reachable: Arc::clone(reachable),
            };
            let app = service(true);
            runtime.spawn(async move { axum::serve(unix, app).await });
        }

        Ok(Server {
            address,
            unix_socket: listen.unix_socket.clone(),
            runtime: Some(runtime),
        })
    }
}

/// A listener that accepts no connection while the process is down.
struct Door<L> {
    listener: L,
    reachable: Arc<AtomicBool>,
}

impl<L: axum::serve::Listener> axum::serve::Listener for Door<L>
where
    L::Io: Unpin,
{
    type Io = Line<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (io, address) = self.listener.accept().await;
            if self.reachable.load(Ordering::SeqCst) {
                let line = Line {
                    io,
                    reachable: Arc::clone(&self.reachable),
                };
                return (line, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that breaks when the process goes down.
struct Line<T> {
    io: T,
    reachable: Arc<AtomicBool>,
}

impl<T> Line<T> {
    fn broken(&self) -> Option<io::Error> {
        (!self.reachable.load(Ordering::SeqCst)).then(|| io::ErrorKind::ConnectionReset.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Line<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.broken() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Line<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.broken() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// The answers of one listener.
struct Service {
    node: Node,
    templates: Arc<Templates>,
    address: SocketAddr,
    by_socket: bool,
    answers: AtomicUsize,
    other_instance: Uuid,
}

/// A request in its parts.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
    quirks: Quirks,
    /// True if a load balancer passed the request to its other node.
    elsewhere: bool,
}

impl Asked<'_> {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer before it is sent.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    content_type: Option<&'static str>,
    headers: Vec<(&'static str, String)>,
    body: String,
    never: bool,
    /// The time before the answer is sent.
    delay: Duration,
}

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    fn empty(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn text(status: u16, content_type: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: Some(content_type),
            body: body.into(),
            ..Self::default()
        }
    }

    fn json(value: &Value) -> Self {
        Self::text(200, JSON, format!("{value:#}"))
    }

    /// Without line breaks, as System.Text.Json writes JSON.
    fn compact(status: u16, value: &Value) -> Self {
        Self::text(status, JSON, value.to_string())
    }

    fn problem(status: u16, title: &str, detail: &str) -> Self {
        let section = if status == 503 { "15.6.4" } else { "15.6.1" };
        let body = json!({
            "type": format!("https://tools.ietf.org/html/rfc9110#section-{section}"),
            "title": title, "status": status, "detail": detail,
        });
        Self::text(status, "application/problem+json", body.to_string())
    }

    /// Removes a field wherever it is in the JSON.
    fn remove_field(&mut self, field: &str) {
        if let Ok(mut value) = serde_json::from_str::<Value>(&self.body) {
            remove_field(&mut value, field);
            self.body = value.to_string();
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

fn remove_field(value: &mut Value, field: &str) {
    match value {
        Value::Object(fields) => {
            fields.remove(field);
            fields
                .values_mut()
                .for_each(|inner| remove_field(inner, field));
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|inner| remove_field(inner, field)),
        _ => {}
    }
}

async fn receive(
    State(service): State<Arc<Service>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let node = &service.node;
    let number = node.note_request(Request {
        method: method.to_string(),
        path: uri.to_string(),
        headers: request_headers(&headers),
        at: SystemTime::now(),
        step: node.step(),
        by_socket: service.by_socket,
        status: None,
    });

    let quirks = node.quirks();
    if quirks.never_answer {
        return std::future::pending().await;
    }

    let delay = quirks.delay;

    // The answer may replay steps and read files, so it gets its own thread.
    let working = Arc::clone(&service);
    let answering =
        tokio::task::spawn_blocking(move || working.answer(&method, &uri, &headers, quirks));
    let answer = answering.await.unwrap_or_else(|_| Answer::empty(500));
    if answer.never {
        return std::future::pending().await;
    }
    tokio::time::sleep(delay + answer.delay).await;

    node.note_answer(number, answer.status);

    let mut response = Response::builder()
        .status(answer.status)
        .header("Server", "Kestrel");
    if let Some(content_type) = answer.content_type {
        response = response.header("Content-Type", content_type);
    }
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }

    response
        .body(Body::from(answer.body))
        .unwrap_or_else(|_| Response::new(Body::empty()))
}

fn request_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        pairs.push((name.to_string(), value));
    }
    pairs
}

/// The node answers 408 if a handler takes longer (http-api §0.2).
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);

/// The encodings of a legacy endpoint's answer (http-api §0.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Text,
    Json,
    Xml,
}

impl Codec {
    /// True if the codec's answers have this media type.
    fn accepts(self, media: &str) -> bool {
        if media == "*/*" {
            return true;
        }
        match self {
            Self::Text => matches!(media, "text/plain" | "text/*"),
            Self::Json => matches!(media, "application/json" | "application/*"),
            Self::Xml => matches!(media, "text/xml" | "application/xml"),
        }
    }
}

fn negotiate(asked: &Asked<'_>, codecs: &[Codec]) -> Option<Codec> {
    if let Some(format) = asked.parameter("format") {
        return codecs.iter().copied().find(|codec| {
            matches!(
                (*codec, format),
                (Codec::Text, "text") | (Codec::Json, "json") | (Codec::Xml, "xml")
            )
        });
    }

    let Some(accept) = asked.header("accept") else {
        return codecs.first().copied();
    };

    let mut wanted: Vec<(f32, &str)> = Vec::new();
    for entry in accept.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
        wanted.push((quality.unwrap_or(1.0), media));
    }
    wanted.sort_by(|left, right| right.0.total_cmp(&left.0));

    for (_, media) in wanted {
        let accepted = codecs.iter().find(|codec| codec.accepts(media));
        if let Some(codec) = accepted {
            return Some(*codec);
        }
    }
    None
}

/// The role of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anonymous,
    /// Authenticated, without the role.
    User,
    Operator,
}

/// The role that an endpoint wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Anybody,
    User,
    Operator,
}

impl Service {
    fn version(&self) -> Version {
        self.node.recording().version
    }

    fn from(&self, major: u32, minor: u32) -> bool {
        self.version() >= Version::new(major, minor)
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, quirks: Quirks) -> Answer {
        let count = self.answers.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(base) = &quirks.redirect_to {
            return Answer::empty(307).with("Location", format!("{base}{uri}"));
        }
        if let Some(status) = quirks.status {
            return Answer::empty(status);
        }
        if quirks.answer_408 {
            return Answer::empty(408);
        }

        let asked = Asked {
            method: method.as_str(),
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            headers,
            elsewhere: quirks
                .other_node_every
                .is_some_and(|every| count.is_multiple_of(every.max(1))),
            quirks,
        };

        let mut answer = self.route(&asked);
        if !answer.body.is_empty() {
            if let Some(body) = &asked.quirks.body {
                answer.body.clone_from(body);
            }
            for (path, field) in &asked.quirks.missing_fields {
                if *path == asked.path {
                    answer.remove_field(field);
                }
            }
            answer.body.push_str(&" ".repeat(asked.quirks.padding));
        }

        answer
    }

    fn caller(&self, asked: &Asked<'_>) -> Result<Caller, Answer> {
        let Some(wanted) = &asked.quirks.credentials else {
            return Ok(Caller::Operator);
        };
        if self.by_socket {
            return Ok(Caller::Operator);
        }

        let Some(presented) = asked.header("authorization").and_then(Presented::parse) else {
            return Ok(Caller::Anonymous);
        };

        if asked.quirks.user_store_unavailable {
            return Err(if self.from(21, 10) {
                Answer::empty(503).with("Retry-After", "5")
            } else {
                Answer::empty(401)
            });
        }

        if !presented.is(wanted) {
            let scheme = match presented {
                Presented::Basic { .. } => "X-Basic realm=\"ESDB\"",
                Presented::Bearer(_) => "X-Bearer realm=\"ESDB\"",
            };
            return Err(Answer::empty(401).with("WWW-Authenticate", scheme));
        }

        Ok(if wanted.operator {
            Caller::Operator
        } else {
            Caller::User
        })
    }

    fn route(&self, asked: &Asked<'_>) -> Answer {
        let path = asked.path;
        if path == "/health/live" {
            return self.health(asked);
        }
        let caller = match self.caller(asked) {
            Ok(caller) => caller,
            Err(answer) => return answer,
        };
        if path.starts_with("/auto-scavenge/") {
            return self.auto_scavenge(asked, caller);
        }

        let methods = self.methods(path, &asked.quirks);
        if methods.is_empty() {
            return Answer::empty(404);
        }
        let allowed = format!("{}, OPTIONS", methods.join(", "));
        if !methods.contains(&asked.method) {
            // Seen on 24.10 only (fixtures/http/24.10.json).
            if self.version().major == 24 {
                return Answer::empty(404);
            }
            return Answer::empty(405).with("Access-Control-Allow-Methods", allowed);
        }

        let (codecs, wants): (&[Codec], Wants) = if path.starts_with("/admin/") {
            let wants = if path == "/admin/login" {
                Wants::User
            } else {
                Wants::Operator
            };
            (&[Codec::Text, Codec::Json, Codec::Xml], wants)
        } else if path.starts_with("/stats") && self.from(23, 6) {
            (&[Codec::Json, Codec::Xml, Codec::Text], Wants::User)
        } else if path.starts_with("/streams/") || path == "/info/options" {
            (&[Codec::Json], Wants::Operator)
        } else {
            (&[Codec::Json, Codec::Xml, Codec::Text], Wants::Anybody)
        };

        let Some(codec) = negotiate(asked, codecs) else {
            return Answer::empty(406);
        };
        let enough = match wants {
            Wants::Anybody => true,
            Wants::User => caller != Caller::Anonymous,
            Wants::Operator => caller == Caller::Operator,
        };
        if !enough {
            return Answer::empty(401);
        }

        self.handle(asked, codec)
            .with("Access-Control-Allow-Methods", allowed)
    }

    /// The methods that this version knows for a path. The list is empty if the path is unknown.
    fn methods(&self, path: &str, quirks: &Quirks) -> Vec<&'static str> {
        if path.starts_with("/admin/") && quirks.admin_ui_disabled {
            return Vec::new();
        }
        match path {
            "/info" | "/info/options" | "/gossip" | "/ping" | "/stats" | "/admin/login" => {
                vec!["GET"]
            }
            "/admin/scavenge" => vec!["POST"],
            "/admin/scavenge/current" if self.from(22, 10) => vec!["DELETE", "GET"],
            "/admin/scavenge/last" if self.from(24, 10) => vec!["DELETE", "GET"],
            _ if path.starts_with("/stats/") => vec!["GET"],
            _ if path.starts_with("/admin/scavenge/") => vec!["DELETE"],
            _ if streams::name(path).is_some() && !quirks.admin_ui_disabled => vec!["GET"],
            _ => Vec::new(),
        }
    }

    fn handle(&self, asked: &Asked<'_>, codec: Codec) -> Answer {
        match (asked.method, asked.path) {
            (_, "/info") => Answer::json(&self.info(asked)),
            (_, "/info/options") => Answer::json(&self.options(asked)),
            (_, "/gossip") => self.gossip(asked),
            (_, "/ping") => Answer::json(&self.templates.ping),
            (_, "/admin/login") => Answer::json(&self.login(asked)),
            ("POST", "/admin/scavenge") => self.start_scavenge(asked, codec),
            ("GET", "/admin/scavenge/current") => self.current_scavenge(codec),
            ("GET", "/admin/scavenge/last") => self.last_scavenge(codec),
            ("DELETE", path) => self.stop_scavenge(asked, path, codec),
            (_, path) if path.starts_with("/stats") => self.stats(path),
            (_, path) => self.stream(path),
        }
    }

    fn health(&self, asked: &Asked<'_>) -> Answer {
        if !matches!(asked.method, "GET" | "HEAD") {
            return Answer::empty(405);
        }
        if self.node.phase() != Phase::Ready {
            return Answer::empty(503);
        }
        let code = asked
            .parameter("liveCode")
            .and_then(|code| code.parse().ok())
            .filter(|_| self.from(24, 10));
        Answer::empty(code.unwrap_or(204))
    }

    fn state_name(&self, quirks: &Quirks) -> String {
        match &quirks.state {
            Some(state) => state.clone(),
            None if self.node.phase() == Phase::Ready => "Leader".to_owned(),
            None => "PreLeader".to_owned(),
        }
    }

    fn info(&self, asked: &Asked<'_>) -> Value {
        let mut info = self.templates.info.clone();
        info["state"] = json!(self.state_name(&asked.quirks).to_lowercase());
        if asked.quirks.credentials.is_some() {
            info["features"]["userManagement"] = json!(true);
            info["authentication"]["type"] = json!("internal");
        }
        info
    }

    fn options(&self, asked: &Asked<'_>) -> Value {
        let quirks = &asked.quirks;
        let chunks = self.node.at_rest(|| log::chunks(&self.node.db()));
        let chunk_size = match chunks.as_deref() {
            Ok([first, ..]) => Some(first.header.chunk_size),
            _ => None,
        };

        let mut options = self.templates.options.clone();
        for option in options.as_array_mut().into_iter().flatten() {
            let value = match option["name"].as_str() {
                Some("Db") => quirks
                    .db_option
                    .clone()
                    .unwrap_or_else(|| self.node.db().display().to_string()),
                Some("Index") => quirks
                    .index_option
                    .clone()
                    .unwrap_or_else(|| self.node.index().display().to_string()),
                Some("NodePort" | "HttpPort") => self.address.port().to_string(),
                Some("Insecure") if quirks.credentials.is_some() => "False".to_owned(),
                Some("ChunkSize") => match chunk_size {
                    Some(size) => size.to_string(),
                    None => continue,
                },
                Some("ClusterSize") => (quirks.members.len() + 1).to_string(),
                _ => continue,
            };
            option["value"] = json!(value);
        }
        options
    }

    fn gossip(&self, asked: &Asked<'_>) -> Answer {
        let quirks = &asked.quirks;
        if quirks.gossip_never_answers {
            return Answer {
                never: true,
                ..Answer::default()
            };
        }

        let address = quirks.advertised.unwrap_or(self.address);
        let host = address.ip().to_string();
        let position = |checkpoint| self.node.checkpoint(checkpoint).unwrap_or(0);
        let (writer, chaser, epoch, last) = self.node.at_rest(|| {
            let epoch = match u64::try_from(position(Checkpoint::Epoch)) {
                Ok(position) => log::epoch_at(&self.node.db(), position).ok(),
                Err(_) => None,
            };
            let writer = position(Checkpoint::Writer);
            let chaser = position(Checkpoint::Chaser);
            let last = log::last_record(&self.node.db(), chaser).unwrap_or(-1);
            (writer, chaser, epoch, last)
        });
        let epoch = epoch.unwrap_or(log::Epoch {
            position: -1,
            number: -1,
            id: Uuid::nil(),
            previous: -1,
        });

        let instance = if asked.elsewhere {
            self.other_instance
        } else {
            self.node.instance_id()
        };
        let state = self.state_name(quirks);
        let mut me = self.templates.member.clone();
        overwrite_known(
            &mut me,
            [
                ("instanceId", json!(instance)),
                ("timeStamp", json!(timestamp(SystemTime::now()))),
                ("isReadOnlyReplica", json!(state.contains("ReadOnly"))),
                ("state", json!(state)),
                ("internalTcpIp", json!(host)),
                ("externalTcpIp", json!(host)),
                ("internalHttpEndPointIp", json!(host)),
                ("internalHttpEndPointPort", json!(address.port())),
                ("httpEndPointIp", json!(host)),
                ("httpEndPointPort", json!(address.port())),
                ("lastCommitPosition", json!(last)),
                ("writerCheckpoint", json!(writer)),
                ("chaserCheckpoint", json!(chaser)),
                ("epochPosition", json!(epoch.position)),
                ("epochNumber", json!(epoch.number)),
                ("epochId", json!(epoch.id)),
            ],
        );

        let mut members = vec![me.clone()];
        for member in &quirks.members {
            members.push(other_member(&me, member, writer, chaser, &epoch));
        }
        Answer::json(&json!({
            "members": members,
            "serverIp": host,
            "serverPort": address.port(),
        }))
        .with("Cache-Control", "max-age=0, no-cache, must-revalidate")
    }

    fn login(&self, asked: &Asked<'_>) -> Value {
        let mut login = self.templates.login.clone();
        let data = &mut login["data"];
        let credentials = asked.quirks.credentials.as_ref();
        if let Some(credentials) = credentials
            && !self.by_socket
        {
            data["loginName"] = json!(credentials.user);
            data["fullName"] = json!(credentials.user);
            data["groups"] = if credentials.operator {
                json!([credentials.user, "$ops"])
            } else {
                json!([credentials.user])
            };
        }
        data["dateLastUpdated"] = json!(timestamp(SystemTime::now()).replace('Z', "+00:00"));
        login
    }

    fn stats(&self, path: &str) -> Answer {
        let mut stats = self.templates.stats.clone();
        stats["proc"]["startTime"] = json!(timestamp(self.node.started_at()));
        stats["proc"]["id"] = json!(std::process::id());
        let writer = json!(self.node.checkpoint(Checkpoint::Writer).unwrap_or(0));
        stats["es"]["checksum"] = writer.clone();
        stats["es"]["checksumNonFlushed"] = writer;

        let mut found = &stats;
        let parts = path.trim_start_matches("/stats").split('/');
        for part in parts.filter(|part| !part.is_empty()) {
            match found.get(part) {
                Some(inner) => found = inner,
                None => return Answer::empty(404),
            }
        }
        Answer::json(found).with("Cache-Control", "max-age=1, public")
    }

    fn start_scavenge(&self, asked: &Asked<'_>, codec: Codec) -> Answer {
        if let Some(wrong) = self.wrong_parameter(asked) {
            return if self.from(23, 6) {
                Answer::text(400, "text/plain", wrong)
            } else {
                Answer::empty(400)
            };
        }

        let given = |name| asked.parameter(name).and_then(|value| value.parse().ok());
        let parameters = Parameters {
            threads: given("threads").unwrap_or(1),
            start_from_chunk: given("startFromChunk").unwrap_or(0),
        };
        match self.node.post_scavenge(parameters) {
            Ok(id) => encode(codec, &json!({ "scavengeId": id }), || {
                format!("ScavengeId: {id}")
            }),
            Err(_) if self.from(23, 6) => Answer::text(400, TEXT, "Scavenge is already running"),
            Err(running) => {
                Answer::text(400, TEXT, format!("{:#}", json!({ "scavengeId": running })))
            }
        }
    }

    fn wrong_parameter(&self, asked: &Asked<'_>) -> Option<&'static str> {
        let whole = |name| asked.parameter(name).map(|value| value.parse::<i32>().ok());
        let too_small =
            |name, least| whole(name).is_some_and(|value| value.is_none_or(|value| value < least));
        if too_small("startFromChunk", 0) {
            return Some("startFromChunk must be a positive integer");
        }
        if too_small("threads", 1) {
            return Some("threads must be a 1 or above");
        }

        // 20.10 and 21.10 ignore parameters that they do not know (O43).
        if !self.from(22, 10) {
            return None;
        }
        if whole("threshold") == Some(None) {
            return Some("threshold must be an integer");
        }
        if let Some(percent) = whole("throttlePercent") {
            let Some(percent) = percent.filter(|percent| (1..=100).contains(percent)) else {
                return Some("throttlePercent must be between 1 and 100 inclusive");
            };
            let threads = whole("threads").flatten();
            if percent != 100 && threads.is_some_and(|threads| threads > 1) {
                return Some("throttlePercent must be 100 for a multi-threaded scavenge");
            }
        }

        let is_boolean =
            |value: &str| value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
        match asked.parameter("syncOnly") {
            Some(value) if !is_boolean(value) => Some("syncOnly must be a boolean"),
            _ => None,
        }
    }

    fn current_scavenge(&self, codec: Codec) -> Answer {
        self.node.asked_for_current();
        let (id, link) = match self.node.current_scavenge() {
            Some(id) => (id.to_string(), format!("/admin/scavenge/{id}")),
            None => (String::new(), String::new()),
        };
        let body = json!({ "scavengeId": id, "scavengeLink": link });
        encode(codec, &body, || {
            format!("ScavengeId: {id}, ScavengeLink: {link}")
        })
    }

    fn last_scavenge(&self, codec: Codec) -> Answer {
        let (id, link, result) = match self.node.last_scavenge() {
            Some((id, outcome)) => (id, format!("/admin/scavenge/{id}"), outcome.name()),
            None => (Uuid::nil(), String::new(), "Unknown"),
        };
        let body = json!({ "scavengeId": id, "scavengeLink": link, "scavengeResult": result });
        encode(codec, &body, || {
            format!("ScavengeId: {id}, ScavengeLink: {link}, ScavengeResult: {result}")
        })
    }

    fn stop_scavenge(&self, asked: &Asked<'_>, path: &str, codec: Codec) -> Answer {
        let wanted = path.trim_start_matches("/admin/scavenge/");
        // Only versions with `current` know it here too. An invalid id matches nothing.
        let wanted = match wanted {
            "current" if self.from(22, 10) => None,
            id => Some(Uuid::parse_str(id).unwrap_or_default()),
        };

        match self.node.delete_scavenge(wanted) {
            Ok(_) if asked.quirks.drop_delete_answers => Answer {
                never: true,
                ..Answer::default()
            },
            Ok(_) if asked.quirks.delete_answers_408 => Answer::empty(408),
            Ok(_) if asked.quirks.delete_takes > HTTP_TIMEOUT => Answer {
                delay: HTTP_TIMEOUT,
                ..Answer::empty(408)
            },
            Ok(id) => Answer {
                delay: asked.quirks.delete_takes,
                ..encode(codec, &json!(id), || id.to_string())
            },
            Err(_) if self.from(23, 6) => Answer::text(404, TEXT, "Scavenge Id does not exist"),
            Err(None) => Answer::text(404, TEXT, ""),
            Err(Some(running)) => Answer::text(404, TEXT, json!(running).to_string()),
        }
    }

    fn stream(&self, path: &str) -> Answer {
        let Some(name) = streams::name(path) else {
            return Answer::empty(404);
        };
        let read = self
            .node
            .at_rest(|| streams::read(&self.node.db(), self.node.checkpoint(Checkpoint::Writer)));
        match read {
            Ok(mut events) => {
                events.extend(self.node.scavenge_events());
                match streams::feed(&name, events, self.address, self.version()) {
                    Some(feed) => Answer::json(&feed),
                    None => Answer::empty(404),
                }
            }
            Err(error) => Answer::text(500, TEXT, format!("{error:#}")),
        }
    }

    fn auto_scavenge(&self, asked: &Asked<'_>, caller: Caller) -> Answer {
        let is_get = matches!(
            asked.path,
            "/auto-scavenge/enabled" | "/auto-scavenge/status"
        );
        let is_post = matches!(asked.path, "/auto-scavenge/pause" | "/auto-scavenge/resume");
        let kind = match asked.quirks.auto_scavenge {
            AutoScavenge::AsVersion if self.from(25, 1) => AutoScavenge::Unlicensed,
            AutoScavenge::AsVersion => AutoScavenge::Absent,
            other => other,
        };

        if kind == AutoScavenge::Absent || !(is_get || is_post) {
            return Answer::empty(404);
        }

        if asked.method != (if is_get { "GET" } else { "POST" }) {
            return Answer::empty(405);
        }
        if caller == Caller::Anonymous {
            return Answer::empty(401);
        }
        if is_post && caller == Caller::User {
            return if self.from(25, 0) {
                Answer::empty(302).with("Location", "/ui/access-denied")
            } else {
                Answer::empty(403)
            };
        }

        if asked.path == "/auto-scavenge/enabled" {
            return Answer::compact(200, &json!({ "enabled": kind != AutoScavenge::Unlicensed }));
        }
        match kind {
            AutoScavenge::Unlicensed => {
                Answer::problem(503, "Service Unavailable", "AutoScavenge is not enabled")
            }
            AutoScavenge::NoLeader => Answer::problem(
                500,
                "Internal Server Error",
                "No leader node was found in the cluster",
            ),
            AutoScavenge::Broken => Answer::problem(
                500,
                "Internal Server Error",
                "AutoScavenge is no longer running",
            ),
            _ => self.licensed(asked),
        }
    }

    fn licensed(&self, asked: &Asked<'_>) -> Answer {
        let proxied = asked.quirks.auto_scavenge_proxied;
        match asked.path {
            "/auto-scavenge/pause" => match self.node.pause_auto_scavenge() {
                Some(AutoScavengeState::Paused) if !proxied => Answer::compact(200, &json!({})),
                _ => Answer::empty(202),
            },
            "/auto-scavenge/resume" => {
                if !self.node.resume_auto_scavenge() {
                    Answer::compact(400, &json!("Auto scavenge process is currently pausing"))
                } else if proxied {
                    Answer::empty(202)
                } else {
                    Answer::compact(200, &json!({}))
                }
            }
            _ => {
                let state = self
                    .node
                    .auto_scavenge()
                    .unwrap_or(AutoScavengeState::NotConfigured);
                let (schedule, until) = match state {
                    AutoScavengeState::NotConfigured => (Value::Null, Value::Null),
                    AutoScavengeState::Waiting | AutoScavengeState::Paused => {
                        let until = asked.quirks.next_cycle.map(time_span);
                        (json!("0 6 * * 6"), json!(until))
                    }
                    AutoScavengeState::InProgress | AutoScavengeState::Pausing => {
                        (json!("0 6 * * 6"), json!("00:00:00"))
                    }
                };
                let status = json!({
                    "state": state.name(),
                    "schedule": schedule,
                    "timeUntilNextCycle": until,
                });
                Answer::compact(200, &status)
            }
        }
    }
}

/// A length of time as .NET writes it: `[d.]hh:mm:ss.fffffff`.
fn time_span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);

    let days = if days > 0 {
        format!("{days}.")
    } else {
        String::new()
    };
    let ticks = length.subsec_nanos() / 100;
    format!("{days}{hours:02}:{minutes:02}:{seconds:02}.{ticks:07}")
}

/// Replaces the values of those fields that this version has.
fn overwrite_known<const N: usize>(member: &mut Value, values: [(&str, Value); N]) {
    for (name, value) in values {
        if member.get(name).is_some() {
            member[name] = value;
        }
    }
}

/// Another member in the gossip. A seed that was not contacted yet has no log.
fn other_member(
    me: &Value,
    member: &Member,
    writer: i64,
    chaser: i64,
    epoch: &log::Epoch,
) -> Value {
    let is_seed = member.state == "Manager";
    let (instance, writer, chaser, epoch_number, epoch_id) = if is_seed {
        (Uuid::nil(), -1, -1, -1, Uuid::nil())
    } else {
        (Uuid::new_v4(), writer, chaser, epoch.number, epoch.id)
    };

    let mut other = me.clone();
    overwrite_known(
        &mut other,
        [
            ("instanceId", json!(instance)),
            (
                "isReadOnlyReplica",
                json!(member.state.contains("ReadOnly")),
            ),
            ("state", json!(member.state)),
            ("isAlive", json!(member.alive)),
            ("internalTcpIp", json!(member.host)),
            ("externalTcpIp", json!(member.host)),
            ("internalHttpEndPointIp", json!(member.host)),
            ("internalHttpEndPointPort", json!(member.port)),
            ("httpEndPointIp", json!(member.host)),
            ("httpEndPointPort", json!(member.port)),
            ("writerCheckpoint", json!(member.writer.unwrap_or(writer))),
            ("chaserCheckpoint", json!(member.writer.unwrap_or(chaser))),
            (
                "epochNumber",
                json!(member.epoch_number.unwrap_or(epoch_number)),
            ),
            ("epochId", json!(member.epoch_id.unwrap_or(epoch_id))),
        ],
    );
    other
}

fn encode(codec: Codec, value: &Value, text: impl FnOnce() -> String) -> Answer {
    match codec {
        Codec::Json => Answer::json(value),
        Codec::Text => Answer::text(200, TEXT, text()),
        Codec::Xml => Answer::text(
            200,
            "text/xml; charset=utf-8",
            format!("<answer>{}</answer>", text()),
        ),
    }
}

/// The credentials in an `Authorization` header.
enum Presented {
    Basic { user: String, password: String },
    Bearer(String),
}

impl Presented {
    /// Returns `None` if the header is malformed. The caller is anonymous then (http-api §0.2).
    fn parse(header: &str) -> Option<Self> {
        if let Some(token) = header.strip_prefix("Bearer ") {
            return Some(Self::Bearer(token.to_owned()));
        }
        let decoded = String::from_utf8(base64(header.strip_prefix("Basic ")?)?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self::Basic {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    fn is(&self, wanted: &Credentials) -> bool {
        match self {
            Self::Basic { user, password } => *user == wanted.user && *password == wanted.password,
            Self::Bearer(token) => wanted.token.as_ref() == Some(token),
        }
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);

    for character in text.trim_end_matches('=').bytes() {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);

        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// Such as `2026-11-21T09:16:50.7761136Z`.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();

    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);

    // The civil date, from the days since 1970, in years that begin in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);

    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:07}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos() / 100
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_looks_like_the_servers() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_795_252_610, 776_113_600);
        assert_eq!(timestamp(time), "2026-11-21T09:16:50.7761136Z");
        let leap = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_799);
        assert_eq!(timestamp(leap), "2024-02-28T23:59:59.0000000Z");
    }

    #[test]
    fn basic_credentials_are_read() {
        assert_eq!(base64("YWRtaW46d3Jvbmc="), Some(b"admin:wrong".to_vec()));
        assert_eq!(base64("?"), None);
    }
}
