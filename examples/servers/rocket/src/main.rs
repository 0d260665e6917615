//! Idempotency keys on Rocket, which takes no tower layers: a data guard on the contract without a server.
//!
//! ```text
//! cargo run -p oncekey-rocket-example -- 127.0.0.1:8080 ./keys
//! curl -i http://127.0.0.1:8080/orders -H 'Idempotency-Key: k-1' -d tea
//! ```

mod idempotent;

use std::error::Error;
use std::net::SocketAddr;

use http_body_util::Full;
use idempotent::{Answer, Idempotent};
use oncekey_http::Idempotency;
use oncekey_testing::acceptance::Shop;
use rocket::http::uri::Origin;
use rocket::{Build, Rocket, State, get, post, put, routes};

/// Runs once for each idempotency key.
#[post("/<_..>", data = "<request>")]
async fn create(request: Idempotent, uri: &Origin<'_>, shop: &State<Shop>) -> Answer {
    order(request, uri, shop).await
}

#[put("/<_..>", data = "<request>")]
async fn replace(request: Idempotent, uri: &Origin<'_>, shop: &State<Shop>) -> Answer {
    order(request, uri, shop).await
}

#[get("/<_..>", data = "<request>")]
async fn read(request: Idempotent, uri: &Origin<'_>, shop: &State<Shop>) -> Answer {
    order(request, uri, shop).await
}

async fn order(request: Idempotent, uri: &Origin<'_>, shop: &Shop) -> Answer {
    // The operation goes on when its client is gone: it owns what it needs.
    let (path, shop) = (uri.path().to_string(), shop.clone());
    request
        .run(async move |body| {
            let sold = shop.handle(&path, &body).await;
            let mut response = http::Response::builder().status(sold.status);
            for (name, value) in sold.headers {
                response = response.header(name, value);
            }
            response.body(Full::from(sold.body)).expect("the shop makes valid heads")
        })
        .await
}

fn server(address: SocketAddr, idempotency: Idempotency, shop: Shop) -> Rocket<Build> {
    let config = rocket::Config {
        address: address.ip(),
        port: address.port(),
        log_level: rocket::config::LogLevel::Off,
        ..rocket::Config::release_default()
    };
    rocket::custom(config)
        .manage(idempotency)
        .manage(shop)
        .mount("/", routes![create, replace, read])
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let engine = oncekey::Engine::open(arguments.next().unwrap_or_else(|| "./keys".to_owned()))?;
    let idempotency = Idempotency::new(engine.clone()).timer(tokio::time::sleep);
    server(address.parse()?, idempotency.clone(), Shop::new()).launch().await?;
    // Rocket waits for its connections, not for the operations whose clients are gone.
    idempotency.drained().await;
    engine.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use oncekey_http::Policy;
    use oncekey_testing::InMemory;
    use oncekey_testing::acceptance::{MAX_REQUEST_BODY, accept};
    use rocket::fairing::AdHoc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn rocket_keeps_the_contract() {
        let (store, shop) = (InMemory::new(), Shop::new());
        let idempotency = Idempotency::new(store.engine().clone()).timer(tokio::time::sleep);
        let policy = Policy::new().max_request_body(MAX_REQUEST_BODY);
        let server =
            server(SocketAddr::from(([127, 0, 0, 1], 0)), idempotency.policy(policy), shop.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let server = server.attach(AdHoc::on_liftoff("port", move |rocket| {
            let config = rocket.config();
            tell.send(SocketAddr::new(config.address, config.port)).unwrap();
            Box::pin(async {})
        }));
        tokio::spawn(server.launch());
        tokio::task::spawn_blocking(move || accept(told.recv().unwrap(), &shop)).await.unwrap();
    }
}
