//! What is served to people and programs. Read only.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tracing::{error, info};

use super::Agent;
use super::metrics::{OPEN_METRICS, PLAIN_TEXT, plain_text};
use crate::error::{Error, Kind, Result};

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
        .route("/status.json", get(status))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(agent)
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
    let wanted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let text = agent.metrics();
    if wanted.contains("application/openmetrics-text") {
        return ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response();
    }
    ([(CONTENT_TYPE, PLAIN_TEXT)], plain_text(&text)).into_response()
}
