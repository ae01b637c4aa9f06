//! Sends requests to a node by HTTP/1.1, one after the other. For the core, asynchronous code runs
//! only here.
//!
//! Each request has its own connection. To keep one would save little, and would hide a load
//! balancer that sends requests to different nodes. kbackup never follows a redirect, never uses a
//! proxy of the environment, and never sends credentials to another host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue, LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use secrecy::ExposeSecret;
use tokio::runtime::Runtime;

use super::http_reply::{IS_THIS_A_NODE, Reply};
use super::trust::{authorities, identity};
use super::{Connection, Credentials, Patience};
use crate::error::{Error, Kind, Result};

/// No answer that kbackup reads comes near this many bytes.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// After this long without an answer, the log says that kbackup is waiting.
const TELL_AFTER: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const NEEDED_ROLES: &str = "kbackup needs the role `$ops` or `$admins`; the user `ops` suffices";

/// Sends questions to one node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Transport {
    http: reqwest::Client,
    runtime: Arc<BackgroundRuntime>,
    base: Url,
    connection: Arc<Connection>,
}

/// One request, and what may be done to get an answer.
pub(super) struct Question<'a> {
    method: Method,
    path: &'a str,
    /// Sending it twice does no harm.
    is_repeatable: bool,
    with_credentials: bool,
    /// Statuses that count as an answer although they usually mean "try again".
    accepted: &'a [StatusCode],
}

impl<'a> Question<'a> {
    pub(super) const fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            is_repeatable: true,
            with_credentials: true,
            accepted: &[],
        }
    }

    /// A request that is not sent again if its answer does not come.
    pub(super) const fn once(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            is_repeatable: false,
            with_credentials: true,
            accepted: &[],
        }
    }

    /// The same request, which may be sent again.
    pub(super) fn repeatable(self) -> Self {
        Self {
            is_repeatable: true,
            ..self
        }
    }

    pub(super) fn without_credentials(self) -> Self {
        Self {
            with_credentials: false,
            ..self
        }
    }

    /// Counts these statuses as an answer.
    pub(super) fn accept(self, statuses: &'a [StatusCode]) -> Self {
        Self {
            accepted: statuses,
            ..self
        }
    }
}

/// Why an attempt brought no answer.
enum Silence {
    Interrupted(Error),
    NotConnected(reqwest::Error),
    Broken(reqwest::Error),
    TooLate,
    TooLong,
    /// The node answered, but only that it is not ready.
    Busy(StatusCode),
}

impl Silence {
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() {
            Self::NotConnected(error)
        } else {
            Self::Broken(error)
        }
    }

    /// Whether the question may be asked again without harm.
    fn allows_another_attempt(&self, question: &Question<'_>) -> bool {
        match self {
            Self::Interrupted(_) | Self::TooLong => false,
            // A node that answers "busy" has done nothing. A node that does not answer may have.
            Self::NotConnected(_) | Self::Busy(_) => true,
            Self::Broken(_) | Self::TooLate => question.is_repeatable,
        }
    }
}

impl Transport {
    /// Prepares the transport. It sends nothing yet.
    pub(super) fn new(connection: &Connection) -> Result<Self> {
        let base = connection.base()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(Kind::Failed, "cannot prepare the network").because(error)
            })?;

        let (builder, target) = route(http_settings(connection, &base)?, connection, base)?;
        let http = builder.build().map_err(|error| {
            usage("the TLS settings cannot be used").because(error.without_url())
        })?;
        check_sendable(connection.credentials.as_ref())?;

        Ok(Self {
            http,
            runtime: Arc::new(BackgroundRuntime(Some(runtime))),
            base: target,
            connection: Arc::new(connection.clone()),
        })
    }

    /// The URL's scheme, `http` or `https`.
    pub(super) fn scheme(&self) -> &str {
        self.base.scheme()
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The node's URL, or its socket, for messages.
    pub(super) fn place(&self) -> String {
        match &self.connection.unix_socket {
            Some(socket) => format!("unix:{}", socket.display()),
            None => self.connection.url.trim_end_matches('/').to_owned(),
        }
    }

    /// Asks until an answer comes.
    pub(super) fn ask(&self, question: &Question<'_>, patience: Patience<'_>) -> Result<Reply> {
        self.attempts(question, patience)
            .map_err(|silence| self.silent(question, silence))
    }

    /// Sends a request that must not be carried out twice. Returns `None` if the node may have
    /// received it, but no answer came.
    pub(super) fn ask_once(
        &self,
        question: &Question<'_>,
        patience: Patience<'_>,
    ) -> Result<Option<Reply>> {
        match self.attempts(question, patience) {
            Ok(reply) => Ok(Some(reply)),
            Err(Silence::TooLate | Silence::Broken(_)) => Ok(None),
            Err(silence) => Err(self.silent(question, silence)),
        }
    }

    /// Repeats the request until an answer comes, the time is over, or a repetition could do harm.
    fn attempts(&self, question: &Question<'_>, patience: Patience<'_>) -> Result<Reply, Silence> {
        let limits = self.connection.limits;
        let end = Instant::now() + patience.total().unwrap_or(limits.patience);
        let mut pause = FIRST_PAUSE;
        let mut silent_since = Some(Instant::now());
        loop {
            patience.check().map_err(Silence::Interrupted)?;

            let left = end.saturating_duration_since(Instant::now());
            let limit = left.max(FIRST_PAUSE).min(limits.answer);
            let silence = match self.attempt(question, patience, limit) {
                Ok(reply)
                    if is_busy(reply.status) && !question.accepted.contains(&reply.status) =>
                {
                    Silence::Busy(reply.status)
                }
                Ok(reply) => return Ok(reply),
                Err(silence) => silence,
            };

            let is_over = Instant::now() + pause >= end;
            if is_over || !silence.allows_another_attempt(question) {
                return Err(silence);
            }

            // An operator who watches must not believe that the run hangs.
            if silent_since.is_some_and(|since| since.elapsed() >= TELL_AFTER) {
                silent_since = None;
                self.tell_of_silence(question, patience, end);
            }
            patience.pause(pause).map_err(Silence::Interrupted)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn tell_of_silence(&self, question: &Question<'_>, patience: Patience<'_>, end: Instant) {
        let Some(run) = patience.run() else {
            return;
        };

        let left = end.saturating_duration_since(Instant::now()).as_secs();
        let place = self.place_of(question);
        run.note(format!(
            "no usable answer from `{place}` yet: kbackup asks again for up to {left} seconds"
        ));
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

        let conversation = with_limit(limit, self.converse(question));
        let Some(run) = patience.run() else {
            return runtime.block_on(conversation);
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = run.cancelled().cancelled() => match run.check() {
                    Err(error) => Err(Silence::Interrupted(error)),
                    Ok(()) => Err(Silence::TooLate),
                },
                reply = conversation => reply,
            }
        })
    }

    async fn converse(&self, question: &Question<'_>) -> Result<Reply, Silence> {
        let request = self.request(question);
        let mut response = request.send().await.map_err(Silence::of)?;
        let (status, headers) = (response.status(), response.headers().clone());

        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(Silence::of)? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Silence::TooLong);
            }
            body.extend_from_slice(&piece);
        }

        Ok(Reply {
            status,
            headers,
            body,
            place: self.place_of(question),
        })
    }

    fn request(&self, question: &Question<'_>) -> RequestBuilder {
        let url = match self.base.join(question.path) {
            Ok(url) => url,
            Err(_) => self.base.clone(),
        };
        let mut request = self
            .http
            .request(question.method.clone(), url)
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            // Keeps the plugins from sending a browser's redirect where they mean "forbidden"
            // (http-api §2.2).
            .header("X-Requested-With", "XMLHttpRequest");
        if question.method != Method::GET {
            request = request.header(CONTENT_LENGTH, "0");
        }
        if !question.with_credentials {
            return request;
        }

        match &self.connection.credentials {
            Some(Credentials::Basic { user, password }) => {
                request.basic_auth(user, Some(password.expose_secret()))
            }
            Some(Credentials::Bearer(token)) => request.bearer_auth(token.expose_secret()),
            None => request,
        }
    }

    fn place_of(&self, question: &Question<'_>) -> String {
        format!("{}{}", self.place(), question.path)
    }

    /// The error for a question that got no answer.
    fn silent(&self, question: &Question<'_>, silence: Silence) -> Error {
        let place = self.place_of(question);
        match silence {
            Silence::Interrupted(error) => error,

            Silence::Busy(status) => Error::new(
                Kind::Unreachable,
                format!("the node is not ready: it keeps answering {status}"),
            )
            .on(place)
            .hint(
                "the node may be starting, or may have lost its cluster: read its log, \
                 or try again later",
            ),

            Silence::TooLong => Error::new(
                Kind::Failed,
                format!("the answer is longer than {MAX_ANSWER} bytes"),
            )
            .on(place)
            .hint(IS_THIS_A_NODE),

            Silence::TooLate => Error::new(Kind::Unreachable, "the node does not answer in time")
                .on(place)
                .hint("check whether the node is overloaded, and whether this is its URL"),

            Silence::NotConnected(error) | Silence::Broken(error) => {
                let hint = self.connection_hint(&error);
                Error::new(Kind::Unreachable, "the node cannot be reached")
                    .on(place)
                    .because(error)
                    .hint(hint)
            }
        }
    }

    fn connection_hint(&self, error: &reqwest::Error) -> &'static str {
        let uses_tls = self.base.scheme() == "https" && self.connection.unix_socket.is_none();
        if is_about_certificates(error) {
            "name the file of the authority that signed the node's certificate with `--ca-file`; \
             use a URL whose host name is in the certificate"
        } else if uses_tls {
            "check the address, and that the node runs and speaks TLS; \
             for a node with `Insecure: true`, use `http://`"
        } else {
            "check the address, and that the node runs without TLS; \
             for a node that is not `Insecure`, use `https://`"
        }
    }

    /// Fails, with the reason, unless the status is a success.
    pub(super) fn check_success(&self, reply: &Reply) -> Result<()> {
        let status = reply.status;
        if status.is_success() {
            return Ok(());
        }
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(self.denied(reply));
        }
        if status.is_redirection() {
            return Err(self.redirected(reply));
        }

        let error = Error::new(Kind::Failed, format!("the node answers {status}"))
            .on(&reply.place)
            .because(reply.detail());
        Err(if status == StatusCode::NOT_FOUND {
            error.hint(IS_THIS_A_NODE)
        } else {
            error
        })
    }

    fn denied(&self, reply: &Reply) -> Error {
        let were_shown = self.connection.credentials.is_some();
        let were_rejected = reply.status == StatusCode::UNAUTHORIZED
            && reply.headers.contains_key(WWW_AUTHENTICATE);
        let (what, hint) = match (were_shown, were_rejected) {
            (false, _) => (
                "the node asks for credentials",
                "give a user of the database (the user `ops` suffices) and its password, \
                 or a token",
            ),
            (true, true) => (
                "the node does not accept these credentials",
                "check user and password; a node with OAuth needs a token",
            ),
            (true, false) => ("these credentials do not suffice", NEEDED_ROLES),
        };

        Error::new(Kind::Denied, what).on(&reply.place).hint(hint)
    }

    fn redirected(&self, reply: &Reply) -> Error {
        let Some(target) = self.redirect_target(reply) else {
            return Error::new(Kind::Failed, "the answer is a redirect to nowhere")
                .on(&reply.place);
        };

        if target.origin() == self.base.origin() && target.path().starts_with("/ui/") {
            // The plugins' way to say 401 and 403 (http-api §2.2).
            return Error::new(Kind::Denied, "these credentials do not suffice")
                .on(&reply.place)
                .hint(NEEDED_ROLES);
        }

        let scheme = target.scheme();
        let host = target.host_str().unwrap_or("?");
        let host = match target.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Error::new(
            Kind::Refused,
            format!("the answer is a redirect to {scheme}://{host}, which is not followed"),
        )
        .on(&reply.place)
        .hint("give the node's own address; kbackup must not talk to another node")
    }

    fn redirect_target(&self, reply: &Reply) -> Option<Url> {
        self.base.join(reply.header(&LOCATION)?).ok()
    }
}

/// A runtime that is dropped without waiting for its tasks. Otherwise a name server that does not
/// answer would delay an interruption.
struct BackgroundRuntime(Option<Runtime>);

impl Drop for BackgroundRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn http_settings(connection: &Connection, base: &Url) -> Result<reqwest::ClientBuilder> {
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(0)
        .connect_timeout(connection.limits.connect)
        .user_agent(concat!("kbackup/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(authorities(connection, base)?);

    if connection.insecure_skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(identity) = identity(connection)? {
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// Decides where requests go: through the socket, or to the URL's host. If the operator expects
/// another name in the certificate, the requests name that one, and it resolves to the host.
fn route(
    builder: reqwest::ClientBuilder,
    connection: &Connection,
    base: Url,
) -> Result<(reqwest::ClientBuilder, Url)> {
    if let Some(socket) = &connection.unix_socket {
        return Ok((builder.unix_socket(socket.as_path()), base));
    }
    let Some(name) = &connection.server_name else {
        return Ok((builder, base));
    };

    let mut target = base.clone();
    target
        .set_host(Some(name))
        .map_err(|error| usage("the server name is no DNS name").because(error))?;
    if target.domain().is_none() {
        return Err(usage("the server name is no DNS name"));
    }

    let host = base.host_str().unwrap_or_default();
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok((
        builder.dns_resolver(Arc::new(FixedResolver { host })),
        target,
    ))
}

/// Resolves every name to the addresses of one host, because the certificate holds another name
/// than the URL.
struct FixedResolver {
    host: String,
}

impl reqwest::dns::Resolve for FixedResolver {
    fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            let addresses: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn check_sendable(credentials: Option<&Credentials>) -> Result<()> {
    match credentials {
        Some(Credentials::Basic { user, .. }) if user.contains(':') => {
            Err(usage("a user's name cannot hold a colon"))
        }
        Some(Credentials::Bearer(token))
            if HeaderValue::from_str(token.expose_secret()).is_err() =>
        {
            Err(usage("the token holds characters that cannot be sent"))
        }
        _ => Ok(()),
    }
}

const fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE
    )
}

async fn with_limit<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Silence>>,
) -> Result<T, Silence> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Silence::TooLate),
    }
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

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, what)
}
