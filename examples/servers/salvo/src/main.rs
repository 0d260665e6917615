//! Idempotency keys on salvo: a hoop, and before it one that lets a handler go on when its client is gone.
//!
//! ```text
//! cargo run -p oncekey-salvo-example -- 127.0.0.1:8080 ./keys
//! curl -i http://127.0.0.1:8080/orders -H 'Idempotency-Key: k-1' -d tea
//! ```

use std::error::Error;

use oncekey_http::IdempotencyLayer;
use oncekey_testing::acceptance::Shop;
use salvo::conn::tcp::TcpAcceptor;
use salvo::http::{ReqBody, StatusCode};
use salvo::prelude::*;
use tokio::net::TcpListener;

/// salvo drops the rest of a request with its connection, and then the outcome of an operation is unknown
/// though its client only lost patience. The hoops and the handler behind this one run in a task of their own.
#[handler]
async fn detached(
    request: &mut Request,
    depot: &mut Depot,
    response: &mut Response,
    rest: &mut FlowCtrl,
) {
    let (mut owned, mut owned_depot) = (std::mem::take(request), std::mem::take(depot));
    let mut owned_rest = std::mem::take(rest);
    let task = tokio::spawn(async move {
        let mut response = Response::new();
        owned_rest.call_next(&mut owned, &mut owned_depot, &mut response).await;
        response
    });
    match task.await {
        Ok(answer) => *response = answer,
        // To salvo it looks as a panic without this hoop does. A task that the end of the runtime cut off has no
        // answer, and no client.
        Err(ended) => {
            if let Ok(panic) = ended.try_into_panic() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[handler]
async fn order(request: &mut Request, depot: &mut Depot, response: &mut Response) {
    let shop = depot.get_typed::<Shop>().expect("a hoop injects it").clone();
    let path = request.uri().path().to_owned();
    let body = request.payload().await.cloned().unwrap_or_default();
    let sold = shop.handle(&path, &body).await;
    response.status_code(StatusCode::from_u16(sold.status).expect("the shop's are valid"));
    for (name, value) in sold.headers {
        response.add_header(name, value, true).expect("the shop makes valid heads");
    }
    response.body(sold.body);
}

async fn serve(listener: TcpListener, layer: IdempotencyLayer, shop: Shop) -> std::io::Result<()> {
    let orders = Router::with_path("{**path}")
        .hoop(detached)
        .hoop(TowerLayerCompat::compat::<ReqBody>(layer))
        .hoop(salvo::affix_state::inject(shop))
        .goal(order);
    let acceptor = TcpAcceptor::try_from(listener)?;
    Server::new(acceptor).serve(orders).await;
    Ok(())
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
    async fn salvo_keeps_the_contract() {
        let (store, shop) = (InMemory::new(), Shop::new());
        let layer = IdempotencyLayer::new(store.engine().clone());
        let layer = layer.policy(Policy::new().max_request_body(MAX_REQUEST_BODY));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, layer, shop.clone()));
        tokio::task::spawn_blocking(move || accept(address, &shop)).await.unwrap();
    }
}
