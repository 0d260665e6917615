//! The orders API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Json, Router};
use oncekey_http::{Attempt, IdempotencyLayer, OutcomeUnknown, Policy, Recovery};
use oncekey_postgres::{CompleteAttemptIn, Options};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use crate::Result;

pub(crate) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, key text NOT NULL, item text NOT NULL)";

pub(crate) async fn serve(url: &str, address: &str, lease: Duration, name: &str) -> Result<()> {
    let engine = Options::new(url).create(true).lease(lease).instance_name(name).open()?;
    let shop = Arc::new(Shop { url: url.to_owned(), idle: Mutex::default() });
    shop.client().await?.batch_execute(TABLE).await?;
    // An order is there with its answer or not at all: an attempt that died left nothing, and may run again.
    let policy = Policy::new().required(true).recovery(Recovery::Retry);
    let app = Router::new()
        .route("/orders", get(count).post(create))
        .layer(IdempotencyLayer::new(engine).policy(policy))
        .with_state(shop);
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

/// The API's own connections to the database of the engine.
struct Shop {
    url: String,
    idle: Mutex<Vec<Client>>,
}

impl Shop {
    async fn client(&self) -> Result<Client> {
        let mut idle = self.idle.lock().await;
        // A connection that the database closed meanwhile is dropped: a request on it would fail.
        idle.retain(|client| !client.is_closed());
        if let Some(client) = idle.pop() {
            return Ok(client);
        }
        drop(idle);

        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// `POST /orders`. The body may name `processingMs`, for which the transaction stays open.
async fn create(
    State(shop): State<Arc<Shop>>,
    Extension(attempt): Extension<Attempt>,
    Json(order): Json<Value>,
) -> Result<Response<Body>, Failed> {
    let mut client = shop.client().await?;
    let mut transaction = client.transaction().await?;
    let key = String::from_utf8_lossy(attempt.key().key()).into_owned();
    let item = order["item"].as_str().unwrap_or_default();
    let insert = "INSERT INTO orders (key, item) VALUES ($1, $2) RETURNING id";
    let id: i64 = transaction.query_one(insert, &[&key, &item]).await?.get(0);
    tokio::time::sleep(Duration::from_millis(order["processingMs"].as_u64().unwrap_or(0))).await;
    let created = json!({"order": id, "item": item, "attempt": attempt.number()});
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/orders/{id}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(created.to_string()))?;
    let completed = attempt.complete_in(&mut transaction, response).await?;
    transaction.commit().await?;
    shop.idle.lock().await.push(client);
    Ok(completed.committed().map(Body::from))
}

/// `GET /orders`: the number of orders.
async fn count(State(shop): State<Arc<Shop>>) -> Result<Json<Value>, Failed> {
    let client = shop.client().await?;
    let count: i64 = client.query_one("SELECT count(*) FROM orders", &[]).await?.get(0);
    shop.idle.lock().await.push(client);
    Ok(Json(json!({"count": count})))
}

/// The transaction was not committed, or the answer to its commit was lost. The layer stores no answer, and the next
/// retry finds the order or makes it.
struct Failed(Box<dyn std::error::Error + Send + Sync>);

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response<Body> {
        let problem = json!({"error": self.0.to_string()});
        let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(problem)).into_response();
        response.extensions_mut().insert(OutcomeUnknown);
        response
    }
}
