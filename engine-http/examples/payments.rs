//! A payment in two steps that survives `kill -9` between them and finishes on the retry, with a
//! checkpoint: `POST /payments` charges a card at a provider, then books the payment.
//!
//! ```text
//! cargo run --example payments -- 127.0.0.1:8080 ./payments-store
//! curl -i http://127.0.0.1:8080/payments -H 'X-Idempotency-Key: p-1' -d '{"amount":100}'
//! ```
//!
//! A third argument stops every first attempt for good at that step, so that there is time to kill the
//! process: `before-charge`, `after-charge` or `after-checkpoint`. Start it again without, send the same
//! request, and look into the `ledger` file of the store's directory: one charge, one booking.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use oncekey_http::{Attempt, IdempotencyLayer, Policy, Recovery};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// What outlives this process: stands in for a payment provider that knows idempotency keys, and for the
/// accounts.
struct Ledger {
    path: PathBuf,
    /// Looking and writing are one step.
    lock: Mutex<()>,
}

impl Ledger {
    /// Writes a line, unless one that begins alike is there already; the one that is there in the end.
    async fn once(&self, begin: &str, rest: &str) -> std::io::Result<String> {
        let _locked = self.lock.lock().await;
        let known = match std::fs::read_to_string(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        if let Some(line) = known.lines().find(|line| line.starts_with(begin)) {
            return Ok(line.to_owned());
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        let line = format!("{begin} {rest}");
        writeln!(file, "{line}")?;
        file.sync_all()?;
        Ok(line)
    }
}

struct Payments {
    ledger: Ledger,
    stop_at: Option<String>,
}

impl Payments {
    /// Where a first attempt is stopped, so that it can be killed.
    async fn pass(&self, attempt: &Attempt, step: &str) {
        if attempt.number() == 1 && self.stop_at.as_deref() == Some(step) {
            println!("payments: stopped {step}");
            std::future::pending::<()>().await;
        }
    }

    async fn pay(&self, attempt: &Attempt, order: &str) -> Result<String, Box<dyn Error>> {
        let charge = match attempt.checkpoint()? {
            // An attempt before this one got so far, and said so.
            Some(charge) => String::from_utf8(charge.to_vec())?,
            None => {
                self.pass(attempt, "before-charge").await;
                // It may have been sent by an attempt that died before its checkpoint: the key is the
                // same, so the provider charges once.
                let key = attempt.downstream_key("charge");
                let number = attempt.number();
                let charge = self
                    .ledger
                    .once(&format!("charge {key}"), &format!("attempt {number}"))
                    .await?;
                self.pass(attempt, "after-charge").await;
                attempt.save_checkpoint(charge.as_bytes()).await?;
                charge
            }
        };
        self.pass(attempt, "after-checkpoint").await;
        let key = attempt.downstream_key("book");
        self.ledger.once(&format!("book {key}"), order).await?;
        Ok(charge)
    }
}

async fn pay(
    State(payments): State<Arc<Payments>>,
    Extension(attempt): Extension<Attempt>,
    order: String,
) -> Response {
    let from = match attempt.checkpoint() {
        Ok(Some(_)) => "its checkpoint",
        Ok(None) => "the start",
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    match payments.pay(&attempt, &order).await {
        Ok(charge) => {
            let paid = format!("paid in attempt {} from {from}: {charge}", attempt.number());
            (StatusCode::CREATED, paid).into_response()
        }
        // It is stored: whether it may be repeated is for a person to say.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let store = arguments.next().unwrap_or_else(|| "./payments-store".to_owned());
    let stop_at = arguments.next();

    std::fs::create_dir_all(&store)?;
    let engine = oncekey::Engine::open(Path::new(&store).join("keys"))?;
    let ledger = Ledger { path: Path::new(&store).join("ledger"), lock: Mutex::default() };
    let policy = Policy::new().required(true).recovery(Recovery::Retry);
    let app = Router::new()
        .route("/payments", post(pay))
        .layer(IdempotencyLayer::new(engine).policy(policy))
        .with_state(Arc::new(Payments { ledger, stop_at }));
    let listener = TcpListener::bind(address).await?;
    println!("payments: listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
