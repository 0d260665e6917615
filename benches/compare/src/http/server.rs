//! The servers that the load meets: one handler behind nothing, behind the layer, behind a recipe. Each is a
//! process of its own, so that its CPU time is told from the client's.

use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use oncekey::Engine;
use oncekey_benches::Result;
use oncekey_http::{Contract, IdempotencyLayer};

use super::REPLAYED;
use super::order::{Wanted, receipt};
use super::recipes::{PostgresRecipe, RedisRecipe, keyed};
use crate::engines::raw::Raw;
use crate::work::Work;

/// Serves `side` until the process is ended, and writes its address to the file `address` once it listens.
/// `store` is a directory, the socket of Redis, or how PostgreSQL is found.
///
/// # Errors
/// A store that cannot be opened; those of the socket.
pub fn serve(side: &str, store: &str, address: &Path, response: usize) -> Result<()> {
    let engine = match side {
        "oncekey" | "oncekey-mimalloc" => Some(Engine::open(store)?),
        "oncekey-postgres" => Some(oncekey_postgres::Options::new(store).create(true).open()?),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let receipt = receipt(response);
        let handler = async move |Json(wanted): Json<Wanted>| Json(wanted.order(receipt.clone()));
        let app: Router = Router::new().route("/orders", post(handler));
        let work = Work::new(response);
        let app = match (side, engine) {
            ("raw", _) => {
                let recipe = Arc::new(Raw::create(Path::new(store), &work)?);
                app.layer(from_fn_with_state(recipe, keyed::<Arc<Raw>>))
            }
            ("redis", _) => {
                let recipe = RedisRecipe::connect(Path::new(store), &work).await?;
                app.layer(from_fn_with_state(recipe, keyed::<RedisRecipe>))
            }
            ("postgres", _) => {
                let recipe = PostgresRecipe::connect(store, &work).await?;
                app.layer(from_fn_with_state(recipe, keyed::<PostgresRecipe>))
            }
            (_, Some(engine)) => {
                let layer = IdempotencyLayer::new(engine.clone()).contract(contract()?);
                let settle = async move || settle(engine).await;
                // Routes that are added after a layer are not behind it.
                app.layer(layer).route("/settle", get(settle))
            }
            (_, None) => app,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        // Renamed, so that it is there in full or not at all.
        let writing = address.with_extension("new");
        std::fs::write(&writing, listener.local_addr()?.to_string())?;
        std::fs::rename(&writing, address)?;
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        Ok(axum::serve(listener, app).await?)
    })
}

/// The default, with the marker that the client looks for.
fn contract() -> Result<Contract> {
    let (name, mark) = REPLAYED.split_once(": ").ok_or("a header without a value")?;
    let mut contract = Contract::default();
    contract.replay_marker =
        Some((HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(mark)?));
    Ok(contract)
}

/// Ends what requests leave to be done later. A store of another process has nothing of it.
async fn settle(engine: Engine) -> StatusCode {
    let settled =
        tokio::task::spawn_blocking(move || match engine.fold().and_then(|_| engine.sweep()) {
            Err(error) if error.kind() != oncekey::ErrorKind::Unsupported => Err(error),
            _ => Ok(()),
        });
    match settled.await {
        Ok(Ok(())) => StatusCode::OK,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
