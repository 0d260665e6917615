//! An orders API whose orders live in the same database as keys and responses: an order and its answer are one commit.
//! A campaign kills the API and checks that.
//!
//! `shop serve URL [ADDRESS]` serves at ADDRESS, 127.0.0.1:8080 by default. Then
//! `curl -i 127.0.0.1:8080/orders -H 'Idempotency-Key: 1' -H 'Content-Type: application/json' -d '{"item": "tea"}'`,
//! as often as you like, gives one order.
//!
//! `shop kill KILLS [URL] [SEED]` runs two such servers under clients that retry through both, kills the servers with
//! -9, stops one beyond its lease now and then, and looks at the orders in the end. It goes on in the
//! database that URL names, counting what earlier runs did there; without one it starts a PostgreSQL of its own.

mod campaign;
mod client;
mod server;

use std::time::Duration;

use oncekey_testing::postgres::PostgresServer;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "shop serve URL [ADDRESS] | shop kill KILLS [URL] [SEED]";

#[tokio::main]
async fn main() -> Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    match given[..] {
        ["serve", url] => server::serve(url, "127.0.0.1:8080", Duration::from_secs(15), "").await,
        ["serve", url, address] => server::serve(url, address, Duration::from_secs(15), "").await,
        // The campaign starts its servers with these arguments.
        ["serve", url, address, lease, name] => {
            server::serve(url, address, Duration::from_millis(lease.parse()?), name).await
        }
        ["kill", kills] => match PostgresServer::of_this_process() {
            Some(server) => campaign::run(&server.url("postgres"), kills.parse()?, None).await,
            None => Ok(()),
        },
        ["kill", kills, url] => campaign::run(url, kills.parse()?, None).await,
        ["kill", kills, url, seed] => campaign::run(url, kills.parse()?, Some(seed.parse()?)).await,
        _ => Err(USAGE.into()),
    }
}
