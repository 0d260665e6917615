//! Health, for every caller: the answers name no key.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::json;

use super::desk::{Desk, Shared};

/// `/healthz` is 200 while the process lives, `/readyz` while this server should get requests.
pub(crate) fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(async || Json(json!({}))))
        .route("/readyz", get(ready))
        .with_state(desk)
}

async fn ready(State(desk): Shared) -> Response {
    match desk.unready() {
        None => Json(json!({})).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "reason": reason }))).into_response()
        }
    }
}
