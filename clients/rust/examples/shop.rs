//! The server of `clients/test.sh`: an order service that lists its executions.
//! Usage: shop [DIRECTORY]. It prints its address. With a directory for a store the tower layer wraps it;
//! without one it is the bare upstream of a proxy.
//!
//! `POST /orders` creates an order; `/slow` takes half a second; `/busy` answers 429 the first time;
//! `/closed` answers 503 and frees the key the first time; `/panic` panics. `GET /count`: `[[path, key,
//! body], …]`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use oncekey_http::{Contract, IdempotencyLayer, NotExecuted};
use serde_json::json;

type Executed = Arc<Mutex<Vec<[String; 3]>>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths = ["/orders", "/slow", "/busy", "/closed", "/panic"];
    let app = paths.into_iter().fold(Router::new(), |app, path| app.route(path, post(create)));
    let mut app = app.route("/count", get(count));
    if let Some(directory) = std::env::args().nth(1) {
        let mut contract = Contract::default();
        contract.headers = vec![HeaderName::from_static("idempotency-key")];
        app =
            app.layer(IdempotencyLayer::new(oncekey::Engine::open(&directory)?).contract(contract));
    }
    let app = app.with_state(Executed::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn create(
    State(executed): State<Executed>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let run = [uri.path().to_owned(), key.to_owned(), body];
    let (first, id) = {
        let mut executed = executed.lock().expect("no handler panics with it");
        let first = !executed.iter().any(|earlier| earlier[..2] == run[..2]);
        executed.push(run);
        (first, executed.len())
    };
    match uri.path() {
        "/slow" => tokio::time::sleep(Duration::from_millis(500)).await,
        "/busy" if first => return StatusCode::TOO_MANY_REQUESTS.into_response(),
        "/closed" if first => {
            // The layer reads the extension, the proxy the header.
            let outcome = [("oncekey-outcome", "not-executed")];
            return (StatusCode::SERVICE_UNAVAILABLE, outcome, Extension(NotExecuted))
                .into_response();
        }
        "/panic" => panic!("asked for"),
        _ => {}
    }
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}

async fn count(State(executed): State<Executed>) -> Response {
    Json(executed.lock().expect("no handler panics with it").clone()).into_response()
}
