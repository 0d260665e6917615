//! Charges for the clients of Stripe: `POST /v1/charges` under `Contract::stripe()`, as a client library of
//! Stripe sends it. `examples/stripe_client.py` is such a client.
//!
//! Arguments: the address to listen on, and the directory of the store. A description makes trouble: `slow`
//! takes a second, `broken` answers 500, `panic` panics.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use oncekey_http::{Contract, IdempotencyLayer};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

/// How often a charge was executed.
static RUNS: AtomicU64 = AtomicU64::new(0);

#[derive(Deserialize)]
struct Charge {
    amount: u64,
    currency: String,
    #[serde(default)]
    description: String,
}

async fn charge(Form(charge): Form<Charge>) -> Response {
    let run = RUNS.fetch_add(1, Ordering::SeqCst) + 1;
    match charge.description.as_str() {
        "slow" => tokio::time::sleep(Duration::from_secs(1)).await,
        "broken" => {
            let error =
                json!({"error": {"type": "api_error", "message": format!("run {run} broke")}});
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(error)).into_response();
        }
        "panic" => panic!("the request asked for a panic"),
        _ => {}
    }
    let charge = json!({
        "id": format!("ch_{run}"),
        "object": "charge",
        "amount": charge.amount,
        "currency": charge.currency,
        "description": charge.description,
    });
    Json(charge).into_response()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let store = arguments.next().unwrap_or_else(|| "./charges-store".to_owned());
    let layer = IdempotencyLayer::new(oncekey::Engine::open(store)?).contract(Contract::stripe());
    let app = Router::new()
        .route("/v1/charges", post(charge))
        .route("/runs", get(async || RUNS.load(Ordering::SeqCst).to_string()))
        .layer(layer);
    let listener = TcpListener::bind(address).await?;
    println!("charges: listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
