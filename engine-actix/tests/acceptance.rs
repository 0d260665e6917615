//! The acceptance suite of HTTP adapters against actix-web, over a socket.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test itself does")]

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use oncekey::Options;
use oncekey_actix::{Idempotent, Policy};
use oncekey_testing::SimDisk;
use oncekey_testing::acceptance::{MAX_REQUEST_BODY, Shop, accept};

async fn handle(request: HttpRequest, body: web::Bytes, shop: web::Data<Shop>) -> HttpResponse {
    let sold = shop.handle(request.path(), &body).await;
    let mut response = HttpResponse::build(StatusCode::from_u16(sold.status).unwrap());
    for (name, value) in sold.headers {
        response.insert_header((name, value));
    }
    response.body(sold.body)
}

#[test]
fn actix_web_keeps_the_contract() {
    let options = Options::new().segment_bytes(4 << 20).disk(Arc::new(SimDisk::new()));
    let engine = options.open("/store").unwrap();
    let policy = Policy::new().max_request_body(MAX_REQUEST_BODY);
    let idempotent = Idempotent::new(engine.clone()).policy(policy);
    let shop = Shop::new();
    let served = shop.clone();
    let wrapped = idempotent.clone();
    let (tell, told) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        rt::System::new().block_on(async move {
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(web::Data::new(served.clone()))
                    .wrap(wrapped.clone())
                    .default_service(web::to(handle))
            });
            let server = server.workers(2).disable_signals().bind("127.0.0.1:0").unwrap();
            let address = server.addrs()[0];
            let running = server.run();
            tell.send((address, running.handle())).unwrap();
            running.await.unwrap();
        });
    });
    let (address, handle) = told.recv().unwrap();
    accept(address, &shop);
    assert_eq!(idempotent.idempotency().stats().abandoned, 1, "the panic of one row");
    drop(handle.stop(false));
    server.join().unwrap();
    engine.close().unwrap();
}
