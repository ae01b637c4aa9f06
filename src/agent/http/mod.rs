//! Serves the page, the status, the metrics and the health checks. Readers can change nothing.
//!
//! All answers come from the newest [`Snapshot`](super::published::Snapshot). So no reader waits
//! for the agent's loop, and the loop waits for no reader.

mod listener;
pub(super) mod tls;

use std::net::SocketAddr;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use self::listener::LimitedListener;
use super::metrics::{OPEN_METRICS, PLAIN_TEXT, open_metrics, plain_text};
use super::page::{self, PageView};
use super::published::Published;
use super::status::Status;
use super::verdict::Level;
use crate::error::{Error, Kind, Result};

/// A browser may load the page's own style sheet and icon and nothing else, and no other page may
/// frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The headers of every answer.
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

/// Serves until the process ends.
///
/// # Errors
/// [`Kind::Usage`] if the address cannot be used.
pub(super) async fn serve(address: SocketAddr, published: Published) -> Result<()> {
    let configuration = published.now().configuration.clone();
    let options = &configuration.agent;

    // The configuration was checked together with both files.
    let is_encrypted = options.listen_certificate_file.is_some();
    let scheme = if is_encrypted { "https" } else { "http" };

    let listener = TcpListener::bind(address).await.map_err(|error| {
        Error::new(Kind::Usage, "cannot listen")
            .on(address)
            .because(error)
            .hint("choose another address with `--listen`")
    })?;
    if let Ok(here) = listener.local_addr() {
        info!("the status is shown at {scheme}://{here}/");
    }
    if let Some(notice) = configuration.access.notice() {
        warn!("{notice}");
    }

    let listener = LimitedListener::new(listener, published.clone()).map_err(|error| {
        Error::new(Kind::Failed, "cannot listen")
            .on(address)
            .because(error)
    })?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes(published)).await {
            error!("the status is not shown any more: {error}");
        }
    });

    Ok(())
}

fn routes(published: Published) -> Router {
    let check_access = middleware::from_fn_with_state(published.clone(), check_access);

    Router::new()
        .route("/", get(front))
        .route("/status.json", get(status))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/{file}", get(file))
        .layer(check_access)
        // A supervisor needs no password for this. The answer says only that the agent lives.
        .route("/healthz", get(alive))
        .with_state(published)
        .layer(middleware::from_fn(allow_reading_only))
}

/// Refuses every method that would change something, and adds the headers of every answer.
async fn allow_reading_only(request: Request, next: Next) -> Response {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if is_reading {
        next.run(request).await
    } else {
        let allow = [(header::ALLOW, "GET, HEAD")];
        (StatusCode::METHOD_NOT_ALLOWED, allow).into_response()
    };

    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));

    response
}

async fn check_access(
    State(published): State<Published>,
    request: Request,
    next: Next,
) -> Response {
    let access = &published.now().configuration.access;

    match access.refuses(request.uri(), request.headers()) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

async fn front(State(published): State<Published>, uri: Uri) -> Response {
    let snapshot = published.now();
    let configuration = &snapshot.configuration;
    let query = uri.query().unwrap_or_default();

    let view = PageView {
        zone: &configuration.agent.time_zone,
        all: query.split('&').any(|word| word == "all"),
        live: query.split('&').any(|word| word == "live"),
        notice: configuration.access.notice(),
    };
    Html(page::page(&snapshot.known_status(), view)).into_response()
}

/// The page's style sheet and icons.
async fn file(Path(name): Path<String>) -> Response {
    if name == *page::STYLE_NAME {
        let headers = [
            (header::CONTENT_TYPE, "text/css; charset=utf-8"),
            (
                header::CACHE_CONTROL,
                "private, max-age=31536000, immutable",
            ),
        ];
        return (headers, page::STYLE).into_response();
    }

    for level in [Level::Safe, Level::Attention, Level::Danger] {
        if name == format!("icon-{level}.svg") {
            let headers = [(header::CONTENT_TYPE, "image/svg+xml")];
            return (headers, page::icon(level)).into_response();
        }
    }

    StatusCode::NOT_FOUND.into_response()
}

/// `kbackup.status/1`, as `kbackup status --json` prints it.
#[derive(Serialize)]
struct StatusDocument<'a> {
    schema: &'static str,
    #[serde(flatten)]
    status: &'a Status,
}

async fn status(State(published): State<Published>) -> Response {
    let status = published.now().known_status();

    Json(StatusDocument {
        schema: "kbackup.status/1",
        status: &status,
    })
    .into_response()
}

/// Whether the loop lives. A restart helps only against a loop that is stuck. A long run does not
/// stop the loop.
async fn alive(State(published): State<Published>) -> Response {
    if let Some(length) = published.now().stuck_for() {
        let text = format!("stuck for {} seconds\n", length.as_secs());
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }

    "alive\n".into_response()
}

async fn ready(State(published): State<Published>) -> Response {
    let status = published.now().known_status();

    let code = if status.repository.facts.is_some() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n", status.verdict.sentence)).into_response()
}

async fn metrics(State(published): State<Published>, headers: HeaderMap) -> Response {
    let snapshot = published.now();
    let text = open_metrics(&snapshot.known_status(), &snapshot.totals);

    if accepts_open_metrics(&headers) {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
    } else {
        ([(header::CONTENT_TYPE, PLAIN_TEXT)], plain_text(&text)).into_response()
    }
}

fn accepts_open_metrics(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT) else {
        return false;
    };

    accept
        .to_str()
        .is_ok_and(|accept| accept.contains("application/openmetrics-text"))
}
