//! The suite that adapters of other frameworks pass, too, against axum.

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use oncekey_http::Policy;
use oncekey_testing::acceptance::{MAX_REQUEST_BODY, Shop, accept};

use crate::support::{Server, Store};

#[tokio::test(flavor = "multi_thread")]
async fn axum_keeps_the_contract() {
    let shop = Shop::new();
    let served = shop.clone();
    let policy = Policy::new().max_request_body(MAX_REQUEST_BODY);
    let server = Server::with(
        Store::new(),
        |layer| layer.policy(policy),
        move |request: Request| {
            let shop = served.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
                let sold = shop.handle(&path, &body).await;
                let mut response = Response::builder().status(sold.status);
                for (name, value) in sold.headers {
                    response = response.header(name, value);
                }
                response.body(Bytes::from(sold.body).into()).unwrap()
            }
        },
    );
    let server = server.await;
    let address = server.address;
    tokio::task::spawn_blocking(move || accept(address, &shop)).await.unwrap();
}
