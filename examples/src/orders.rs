//! An order service whose `POST /api/v2/orders` may be sent twice: start it, then try the curl
//! lines that it prints.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use oncekey::Engine;
use oncekey_http::{Attempt, IdempotencyLayer, Policy, Recovery};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// A fifth less processor time for a request with a key than with the allocator of glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "An order service with idempotency keys.

POST /api/v2/orders creates an order and GET /api/v2/orders lists those that this process created.
A POST with the header X-Idempotency-Key runs once, however often it is sent, across crashes and
restarts. On start it prints curl lines to try.

  --listen ADDRESS       where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
  --store DIRECTORY|URL  what keeps keys and responses: a directory, for this process alone, or, with
                         the cargo feature `postgres`, the URL of a PostgreSQL that any number of
                         processes share, such as postgres://user@host/database
                         [default: ./orders-store]
  --ttl SECONDS          how long a response is replayed before its key is new again
                         [default: 86400, which is 24 hours]
  --recovery hold|retry  what becomes of a key whose request died half way, say by kill -9: hold
                         refuses it with 409 `idempotency_outcome_unknown` (at most once), retry runs
                         it again (at least once) [default: hold]
  --help                 this text
";

struct Arguments {
    listen: SocketAddr,
    store: String,
    ttl: Duration,
    recovery: Recovery,
}

impl Arguments {
    /// `None` asks for the help.
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut arguments = Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            store: "./orders-store".to_owned(),
            ttl: Duration::from_secs(24 * 60 * 60),
            recovery: Recovery::Hold,
        };
        while let Some(name) = given.next() {
            if matches!(name.as_str(), "--help" | "-h") {
                return Ok(None);
            }
            let value = given.next().ok_or_else(|| format!("{name} needs a value; see --help"))?;
            let wrong = |wanted| format!("{name} {value}: {wanted} is expected; see --help");
            match name.as_str() {
                "--listen" => {
                    let address = value.parse();
                    arguments.listen = address.map_err(|_| wrong("an address with a port"))?;
                }
                "--store" => arguments.store = value,
                "--ttl" => {
                    let seconds = value.parse().map_err(|_| wrong("a number of seconds"))?;
                    arguments.ttl = Duration::from_secs(seconds);
                }
                "--recovery" => {
                    arguments.recovery = match value.as_str() {
                        "hold" => Recovery::Hold,
                        "retry" => Recovery::Retry,
                        _ => return Err(wrong("hold or retry")),
                    }
                }
                _ => return Err(format!("{name} is unknown; see --help")),
            }
        }
        Ok(Some(arguments))
    }
}

/// The body of a POST.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    customer_id: String,
    items: Vec<Value>,
    /// Makes the handler slow.
    #[serde(default)]
    processing_ms: u64,
    /// Makes the handler fail after that time.
    outcome: Option<Outcome>,
}

#[derive(Deserialize)]
enum Outcome {
    #[serde(rename = "422")]
    Unprocessable,
    #[serde(rename = "500")]
    Internal,
    #[serde(rename = "panic")]
    Panic,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    order_id: String,
    status: &'static str,
    customer_id: String,
    items: Vec<Value>,
    attempt: u32,
}

/// What this process did. It is deliberately not persistent: what it lists was executed by this
/// process, not replayed from the store.
#[derive(Default)]
struct Orders {
    created: Mutex<Vec<Order>>,
    /// Runs of the handler, failed ones included.
    executions: AtomicU64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("orders: {error}");
            return ExitCode::FAILURE;
        }
    };
    match serve(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orders: {error}");
            let causes = std::iter::successors(error.source(), |cause| (*cause).source());
            causes.for_each(|cause| eprintln!("  because: {cause}"));
            ExitCode::FAILURE
        }
    }
}

/// Opens the store.
fn open(store: &str, ttl: Duration) -> Result<Engine, Failure> {
    if is_url(store) {
        return open_shared(store, ttl);
    }
    let options = oncekey::Options::new().ttl(ttl);
    options.open(store).map_err(|error| Failure::new(format!("cannot open {store}"), error))
}

/// The URL may hold a password: an error does not show it.
#[cfg(feature = "postgres")]
fn open_shared(url: &str, ttl: Duration) -> Result<Engine, Failure> {
    let options = oncekey_postgres::Options::new(url).create(true).ttl(ttl);
    options.open().map_err(|error| Failure::new("cannot open the database".to_owned(), error))
}

#[cfg(not(feature = "postgres"))]
fn open_shared(_: &str, _: Duration) -> Result<Engine, Failure> {
    let missing = std::io::Error::other(
        "this build lacks it: add `--features postgres` to cargo's arguments",
    );
    Err(Failure::new("cannot open the database".to_owned(), missing))
}

fn is_url(store: &str) -> bool {
    store.starts_with("postgres://") || store.starts_with("postgresql://")
}

/// The store, for people: of a URL what stands behind user and password.
fn place(store: &str) -> &str {
    match store.rsplit_once('@') {
        Some((_, place)) if is_url(store) => place,
        _ => store,
    }
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let Arguments { listen, store, ttl, recovery } = arguments;
    let engine = open(&store, ttl)?;
    let policy = Policy::new().recovery(recovery);
    let layer = IdempotencyLayer::new(engine.clone()).policy(policy);
    let orders = Arc::new(Orders::default());
    let app = Router::new()
        .route("/api/v2/orders", get(list).post(create))
        .route("/api/v2/orders/{id}", get(show))
        .layer(layer.clone())
        .with_state(orders.clone());

    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| Failure::new(format!("cannot listen on {listen}"), error))?;
    let address = listener.local_addr()?;
    let waiting = engine.orphans()?.len();
    let stop = asked_to_stop()?;
    println!("orders: listening on http://{address}");
    println!(
        "orders: store {}, ttl {} s, {waiting} keys with unknown outcome",
        place(&store),
        ttl.as_secs()
    );
    print!("{}", instructions(address));

    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    // Handlers whose clients are gone still run; their retries shall find the responses.
    layer.drained().await;
    let stats = engine.stats();
    let report = engine.close()?;
    println!(
        "orders: closed: {} executed, {} replayed, {} locked, {} mismatched, {} left in flight",
        orders.executions.load(Ordering::Relaxed),
        stats.replayed,
        stats.locked,
        stats.mismatched,
        report.in_flight,
    );
    Ok(())
}

/// `POST /api/v2/orders`. `attempt` is there when the request has an idempotency key.
async fn create(
    State(orders): State<Arc<Orders>>,
    attempt: Option<Extension<Attempt>>,
    Json(new): Json<NewOrder>,
) -> Response {
    let execution = orders.executions.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(new.processing_ms)).await;
    match new.outcome {
        None => {}
        Some(Outcome::Unprocessable) => {
            let problem = json!({"error": "these items cannot be ordered together"});
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response();
        }
        Some(Outcome::Internal) => {
            let problem = json!({"error": "the warehouse does not answer"});
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(problem)).into_response();
        }
        Some(Outcome::Panic) => panic!("the request asked for a panic"),
    }
    let order = Order {
        order_id: order_id(execution),
        status: "CONFIRMED",
        customer_id: new.customer_id,
        items: new.items,
        attempt: attempt.map_or(1, |Extension(attempt)| attempt.number()),
    };
    orders.created.lock().await.push(order.clone());
    let location = format!("/api/v2/orders/{}", order.order_id);
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(order)).into_response()
}

/// `GET /api/v2/orders`: what this process executed.
async fn list(State(orders): State<Arc<Orders>>) -> Json<Value> {
    let created = orders.created.lock().await;
    Json(json!({
        "executions": orders.executions.load(Ordering::Relaxed),
        "count": created.len(),
        "orders": *created,
    }))
}

/// `GET /api/v2/orders/{id}`, where Location points to.
async fn show(State(orders): State<Arc<Orders>>, Path(id): Path<String>) -> Response {
    let created = orders.created.lock().await;
    match created.iter().find(|order| order.order_id == id) {
        Some(order) => Json(order).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Unlike those of any other run of this program, so that a second execution cannot hide.
fn order_id(execution: u64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("ord-{:x}-{execution}", now.as_micros())
}

/// Ends when the process is asked to stop. From this call on, not from the first poll, the request is
/// waited for instead of killing the process.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let asked = {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
    };
    #[cfg(not(unix))]
    let asked = async {
        // Without a handler the process is killed, as it would be without this function.
        let _ = tokio::signal::ctrl_c().await;
    };
    Ok(async {
        asked.await;
        println!("orders: stopping, as soon as what runs has ended; its responses are stored");
    })
}

/// An error with what was being done.
#[derive(Debug)]
struct Failure {
    doing: String,
    cause: Box<dyn Error>,
}

impl Failure {
    fn new(doing: String, cause: impl Error + 'static) -> Self {
        Self { doing, cause: Box::new(cause) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// The curl lines to try.
fn instructions(address: SocketAddr) -> String {
    let post = |key: &str, order: &str| {
        format!(
            "curl -i http://{address}/api/v2/orders -H 'Content-Type: application/json' \
             -H 'X-Idempotency-Key: {key}' -d '{order}'"
        )
    };
    let order = r#"{"customerId":"c-1","items":[{"sku":"tea","quantity":2}]}"#;
    let other = r#"{"customerId":"c-1","items":[{"sku":"tea","quantity":20}]}"#;
    let slow = r#"{"customerId":"c-2","items":[],"processingMs":2000}"#;
    let slower = r#"{"customerId":"c-3","items":[],"processingMs":20000}"#;
    let pid = std::process::id();
    format!(
        "
# 1. The first request creates an order: 201.
{first}

# 2. The same request again: the same response, and no second order.
{first}
curl http://{address}/api/v2/orders

# 3. Two at once: one gets 409 idempotency_key_locked, and after 2 seconds the other gets 201.
{slow} & sleep 1; {slow}; wait

# 4. The key of 1 with another order: 409 idempotency_key_mismatch, body differs.
{modified}

# 5. Kill the server in the middle of a request.
{killed} & sleep 1; kill -9 {pid}
#    Start it again with the same --store. The line of 1 still gives its response, and this one
#    gives 409 idempotency_outcome_unknown; with --recovery retry it runs again.
{killed}

",
        first = post("order-1", order),
        slow = post("order-2", slow),
        modified = post("order-1", other),
        killed = post("order-3", slower),
    )
}
