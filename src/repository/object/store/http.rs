//! Sends single HTTP requests for the library: with kbackup's own TLS, time limits and counts.
//!
//! The library asks for a client by [`Connector`]. It also sends requests for credentials this way,
//! to other hosts: those are not counted.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use tokio::time::{Sleep, timeout};

use super::answer::{self, Answer};
use super::options::{Limits, StoreOptions};
use super::requests::{Counter, RequestKind};
use crate::error::{Error, Kind, Result};
use crate::trust::{authorities_in, machine_authorities};

/// An upload that is slower than this many bytes in a second counts as hanging.
const SLOWEST_UPLOAD: u64 = 64 * 1024;
/// The text of an error is short.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Stores close connections that nobody uses.
const IDLE: Duration = Duration::from_secs(20);

tokio::task_local! {
    /// What happens during one attempt, for the code that judges its result.
    static EXCHANGE: RefCell<Exchange>;
}

/// What one attempt heard from the store.
#[derive(Debug)]
pub(super) struct Exchange {
    kind: RequestKind,
    /// The store's last answer, if it was no success.
    pub(super) answer: Option<Answer>,
    /// Whether the last request was one for credentials.
    pub(super) asked_for_credentials: bool,
}

/// Runs one attempt, and returns what it heard beside its result.
pub(super) async fn observed<T>(
    kind: RequestKind,
    attempt: impl Future<Output = T>,
) -> (T, Exchange) {
    let exchange = RefCell::new(Exchange {
        kind,
        answer: None,
        asked_for_credentials: false,
    });

    let scope = async {
        let result = attempt.await;
        let heard = EXCHANGE.with(|exchange| {
            let mut exchange = exchange.borrow_mut();
            Exchange {
                kind,
                answer: exchange.answer.take(),
                asked_for_credentials: exchange.asked_for_credentials,
            }
        });
        (result, heard)
    };
    EXCHANGE.scope(exchange, scope).await
}

/// Makes clients for the library.
#[derive(Debug)]
pub(super) struct Connector {
    sender: Arc<Sender>,
}

#[derive(Debug)]
struct Sender {
    through_proxies: reqwest::Client,
    direct: reqwest::Client,
    /// The end of the host's name in requests for objects, as opposed to those for credentials.
    host: String,
    limits: Limits,
    counter: Arc<Counter>,
}

impl Connector {
    /// A connector for a store whose hosts end with `host`.
    pub(super) fn new(host: &str, options: &StoreOptions, counter: &Arc<Counter>) -> Result<Self> {
        counter.count_over_http();
        Ok(Self {
            sender: Arc::new(Sender {
                through_proxies: client(options, |builder| builder)?,
                direct: client(options, reqwest::ClientBuilder::no_proxy)?,
                host: host.to_owned(),
                limits: options.limits,
                counter: Arc::clone(counter),
            }),
        })
    }
}

fn client(
    options: &StoreOptions,
    route: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client> {
    let authorities = match &options.ca_file {
        Some(path) => authorities_in(path)?,
        None => machine_authorities(),
    };
    let builder = reqwest::Client::builder()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(options.limits.connect)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("kbackup/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(authorities);

    route(builder).build().map_err(|error| {
        Error::new(Kind::Usage, "the TLS settings cannot be used").because(error.without_url())
    })
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(Arc::clone(&self.sender))))
    }
}

#[derive(Debug)]
struct Service(Arc<Sender>);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or_default();
        let for_objects = host.ends_with(&self.0.host);
        self.0.begins(for_objects);

        let response = self.0.send(request).await?;
        let (parts, body) = response.into_parts();
        let body = BodyWithLimit::new(body, self.0.limits.answer);
        if !for_objects {
            return Ok(Response::from_parts(parts, HttpResponseBody::new(body)));
        }

        self.0
            .counter
            .answered(answer::clock_difference(&parts.headers));
        if parts.status.is_success() {
            return Ok(Response::from_parts(parts, HttpResponseBody::new(body)));
        }

        // The library shows an answer only as text, so it is read here.
        let body = beginning(HttpResponseBody::new(body)).await;
        let answer = Answer::read(parts.status, &parts.headers, &body);
        note(|exchange| exchange.answer = Some(answer));
        Ok(Response::from_parts(parts, HttpResponseBody::from(body)))
    }
}

impl Sender {
    fn begins(&self, for_objects: bool) {
        note(|exchange| {
            exchange.answer = None;
            exchange.asked_for_credentials = !for_objects;
            if for_objects {
                self.counter.requested(exchange.kind);
            }
        });
    }

    /// Sends a request, and waits for the beginning of its answer.
    async fn send(&self, request: HttpRequest) -> Result<Response<reqwest::Body>, HttpError> {
        let (parts, body) = request.into_parts();
        let size = body.content_length();
        let url = parts
            .uri
            .to_string()
            .parse()
            .map_err(|error| HttpError::new_boxed(HttpErrorKind::Unknown, Box::new(error)))?;

        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if size > 0 {
            *request.body_mut() = Some(reqwest::Body::wrap(body));
        }

        let client = if is_near(request.url()) {
            &self.direct
        } else {
            &self.through_proxies
        };
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        let limit = self.limits.answer + Duration::from_secs(size / SLOWEST_UPLOAD);
        match timeout(limit, client.execute(request)).await {
            Ok(Ok(response)) => Ok(response.into()),
            Ok(Err(error)) => Err(http_error(error)),
            Err(_) => Err(too_late()),
        }
    }
}

/// Changes what is known of the attempt that runs.
fn note(change: impl FnOnce(&mut Exchange)) {
    // Outside an attempt, nobody wants to know.
    let _ = EXCHANGE.try_with(|exchange| change(&mut exchange.borrow_mut()));
}

/// Whether the host is this machine or its hypervisor, which no proxy reaches.
fn is_near(url: &reqwest::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback() || address.is_link_local(),
        Some(url::Host::Ipv6(address)) => address.is_loopback() || address.is_unique_local(),
        Some(url::Host::Domain(name)) => {
            matches!(name, "localhost" | "metadata" | "metadata.google.internal")
        }
        None => false,
    }
}

fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

fn too_late() -> HttpError {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
    HttpError::new(HttpErrorKind::Timeout, error)
}

/// The beginning of an answer that says what is wrong. What cannot be read is left out.
async fn beginning(body: HttpResponseBody) -> Bytes {
    let mut pieces = body.bytes_stream();
    let mut beginning = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        beginning.extend_from_slice(&piece);
        if beginning.len() >= LONGEST_ANSWER {
            break;
        }
    }

    beginning.truncate(LONGEST_ANSWER);
    Bytes::from(beginning)
}

/// The body of an answer. Each piece has to come in time.
struct BodyWithLimit {
    body: reqwest::Body,
    limit: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl BodyWithLimit {
    const fn new(body: reqwest::Body, limit: Duration) -> Self {
        Self {
            body,
            limit,
            alarm: None,
        }
    }
}

impl Body for BodyWithLimit {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(piece) = Pin::new(&mut self.body).poll_frame(context) {
            self.alarm = None;
            return Poll::Ready(piece.map(|piece| piece.map_err(http_error)));
        }

        let limit = self.limit;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match alarm.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(too_late()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
