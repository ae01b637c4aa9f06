//! What is served to people and programs. Read only.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tracing::{error, info};

use super::Agent;
use super::metrics::{OPEN_METRICS, PLAIN_TEXT, plain_text};
use super::page::{self, View};
use super::status::Level;
use crate::error::{Error, Kind, Result};

/// Nothing but the page's own style sheet and icon is taken, and nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What every answer says of itself.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Serves until the process ends.
///
/// # Errors
/// [`Kind::Usage`] where the address cannot be had.
pub(super) async fn serve(address: SocketAddr, agent: Arc<Agent>) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
        Error::new(Kind::Usage, "cannot listen").on(address).because(error).hint("choose another address with `--listen`")
    })?;
    if let Ok(here) = listener.local_addr() {
        info!("the status is shown at http://{here}/");
    }
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes(agent)).await {
            error!("the status is not shown any more: {error}");
        }
    });
    Ok(())
}

fn routes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/status.json", get(status))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/{file}", get(file))
        .with_state(agent)
        .layer(middleware::from_fn(say_how))
}

/// Refuses whatever would change something, and says of every answer how it may be used.
async fn say_how(request: Request, next: Next) -> Response {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response =
        if is_reading { next.run(request).await } else { (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response() };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn front(State(agent): State<Arc<Agent>>, uri: Uri) -> Response {
    let asked = |word: &str| uri.query().is_some_and(|query| query.split('&').any(|part| part == word));
    let configuration = agent.configuration();
    let view = View { zone: &configuration.agent.time_zone, all: asked("all"), live: asked("live"), notice: None };
    Html(page::page(&agent.status(), view)).into_response()
}

/// What the page is made of beside its text.
async fn file(Path(name): Path<String>) -> Response {
    let kept = [(header::CACHE_CONTROL, "private, max-age=31536000, immutable")];
    if name == *page::STYLE_NAME {
        return ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], kept, page::STYLE).into_response();
    }
    match [Level::Safe, Level::Attention, Level::Danger].into_iter().find(|level| name == format!("icon-{level}.svg")) {
        Some(level) => ([(header::CONTENT_TYPE, "image/svg+xml")], page::icon(level)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn status(State(agent): State<Arc<Agent>>) -> Response {
    Json(agent.status()).into_response()
}

/// The loop goes round: nothing else can be helped by a restart.
async fn alive() -> &'static str {
    "alive\n"
}

async fn ready(State(agent): State<Arc<Agent>>) -> Response {
    let status = agent.status();
    let code = if status.repository.facts.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, status.verdict.sentence + "\n").into_response()
}

async fn metrics(State(agent): State<Arc<Agent>>, headers: HeaderMap) -> Response {
    let wanted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let text = agent.metrics();
    if wanted.contains("application/openmetrics-text") {
        return ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response();
    }
    ([(header::CONTENT_TYPE, PLAIN_TEXT)], plain_text(&text)).into_response()
}
