//! What is served to people and programs. Read only.

mod door;
mod guard;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tracing::{error, info, warn};

use self::door::Door;
pub(super) use self::guard::Guard;
use super::Agent;
use super::metrics::{OPEN_METRICS, PLAIN_TEXT, plain_text};
use super::page::{self, View};
use super::status::{Level, Status};
use crate::error::{Error, Kind, Result};

/// Nothing but the page's own style sheet and icon is taken, and nobody may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What every answer says of itself.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// A loop that has not gone round for so long will not any more: it waits for nothing but its own
/// small files.
const STUCK: Duration = Duration::from_secs(120);

/// Serves until the process ends.
///
/// # Errors
/// [`Kind::Usage`] where the address cannot be had, or certificate and key cannot be used.
pub(super) async fn serve(address: SocketAddr, agent: Arc<Agent>) -> Result<()> {
    let configuration = agent.configuration();
    let scheme = match (
        &configuration.agent.listen_certificate_file,
        &configuration.agent.listen_key_file,
    ) {
        (Some(certificate), Some(key)) => door::check(certificate, key).map(|()| "https")?,
        _ => "http",
    };
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| {
            Error::new(Kind::Usage, "cannot listen")
                .on(address)
                .because(error)
                .hint("choose another address with `--listen`")
        })?;
    if let Ok(here) = listener.local_addr() {
        info!("the status is shown at {scheme}://{here}/");
    }
    if let Some(notice) = configuration.guard.notice() {
        warn!("{notice}");
    }
    let door = Door::open(listener, Arc::clone(&agent)).map_err(|error| {
        Error::new(Kind::Failed, "cannot listen")
            .on(address)
            .because(error)
    })?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(door, routes(agent)).await {
            error!("the status is not shown any more: {error}");
        }
    });
    Ok(())
}

fn routes(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/", get(front))
        .route("/status.json", get(status))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/{file}", get(file))
        .layer(middleware::from_fn_with_state(Arc::clone(&agent), guarded))
        // Tells nothing but that it lives, to whoever restarts it.
        .route("/healthz", get(alive))
        .with_state(agent)
        .layer(middleware::from_fn(say_how))
}

/// Refuses whatever would change something, and says of every answer how it may be used.
async fn say_how(request: Request, next: Next) -> Response {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if is_reading {
        next.run(request).await
    } else {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            [(header::ALLOW, "GET, HEAD")],
        )
            .into_response()
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn guarded(State(agent): State<Arc<Agent>>, request: Request, next: Next) -> Response {
    match agent
        .configuration()
        .guard
        .refuses(request.uri(), request.headers())
    {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

async fn front(State(agent): State<Arc<Agent>>, uri: Uri) -> Response {
    let asked = |word: &str| {
        uri.query()
            .is_some_and(|query| query.split('&').any(|part| part == word))
    };
    let configuration = agent.configuration();
    let view = View {
        zone: &configuration.agent.time_zone,
        all: asked("all"),
        live: asked("live"),
        notice: configuration.guard.notice(),
    };
    Html(page::page(&agent.status(), view)).into_response()
}

/// What the page is made of beside its text.
async fn file(Path(name): Path<String>) -> Response {
    let kept = [(
        header::CACHE_CONTROL,
        "private, max-age=31536000, immutable",
    )];
    if name == *page::STYLE_NAME {
        return (
            [(header::CONTENT_TYPE, "text/css; charset=utf-8")],
            kept,
            page::STYLE,
        )
            .into_response();
    }
    match [Level::Safe, Level::Attention, Level::Danger]
        .into_iter()
        .find(|level| name == format!("icon-{level}.svg"))
    {
        Some(level) => {
            ([(header::CONTENT_TYPE, "image/svg+xml")], page::icon(level)).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `kbackup.status/1`, as `kbackup status --json` prints it.
#[derive(Serialize)]
struct Document {
    schema: &'static str,
    #[serde(flatten)]
    status: Status,
}

async fn status(State(agent): State<Arc<Agent>>) -> Response {
    Json(Document {
        schema: "kbackup.status/1",
        status: agent.status(),
    })
    .into_response()
}

/// Whether the loop goes round: nothing else can be helped by a restart. A run that takes its time
/// does not stop it.
async fn alive(State(agent): State<Arc<Agent>>) -> Response {
    let stuck = agent.stuck_for();
    if stuck > STUCK {
        let text = format!("stuck for {} seconds\n", stuck.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    "alive\n".into_response()
}

async fn ready(State(agent): State<Arc<Agent>>) -> Response {
    let status = agent.status();
    let code = if status.repository.facts.is_some() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, status.verdict.sentence + "\n").into_response()
}

async fn metrics(State(agent): State<Arc<Agent>>, headers: HeaderMap) -> Response {
    let wanted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or_default();
    let text = agent.metrics();
    if wanted.contains("application/openmetrics-text") {
        return ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response();
    }
    ([(header::CONTENT_TYPE, PLAIN_TEXT)], plain_text(&text)).into_response()
}
