//! Idempotency keys on warp: the layer is around the filters, and hyper serves it.
//!
//! ```text
//! cargo run -p oncekey-warp-example -- 127.0.0.1:8080 ./keys
//! curl -i http://127.0.0.1:8080/orders -H 'Idempotency-Key: k-1' -d tea
//! ```

use std::error::Error;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use oncekey_http::{IdempotencyLayer, RequestBody};
use oncekey_testing::acceptance::{Shop, Sold};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use warp::Filter;
use warp::http::{Request, Response};

fn reply(sold: Sold) -> Response<Vec<u8>> {
    let mut response = Response::builder().status(sold.status);
    for (name, value) in sold.headers {
        response = response.header(name, value);
    }
    response.body(sold.body).expect("the shop makes valid heads")
}

async fn serve(listener: TcpListener, layer: IdempotencyLayer, shop: Shop) -> std::io::Result<()> {
    let orders = warp::path::full().and(warp::body::bytes()).then(
        move |path: warp::path::FullPath, body: bytes::Bytes| {
            let shop = shop.clone();
            async move { reply(shop.handle(path.as_str(), &body).await) }
        },
    );
    let service = ServiceBuilder::new()
        // hyper's body cannot be made from bytes, which the layer has read: this one can.
        .map_request(|request: Request<Incoming>| request.map(RequestBody::new))
        .layer(layer)
        .service(warp::service(orders));
    let service = TowerToHyperService::new(service);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a connection failed: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let engine = oncekey::Engine::open(arguments.next().unwrap_or_else(|| "./keys".to_owned()))?;
    let listener = TcpListener::bind(address).await?;
    Ok(serve(listener, IdempotencyLayer::new(engine), Shop::new()).await?)
}

#[cfg(test)]
mod tests {
    use oncekey_http::Policy;
    use oncekey_testing::InMemory;
    use oncekey_testing::acceptance::{MAX_REQUEST_BODY, accept};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn warp_keeps_the_contract() {
        let (store, shop) = (InMemory::new(), Shop::new());
        let layer = IdempotencyLayer::new(store.engine().clone());
        let layer = layer.policy(Policy::new().max_request_body(MAX_REQUEST_BODY));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, layer, shop.clone()));
        tokio::task::spawn_blocking(move || accept(address, &shop)).await.unwrap();
    }
}
