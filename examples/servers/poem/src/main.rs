//! Idempotency keys on poem: an endpoint around another.
//!
//! poem's own `TowerLayerCompatExt` hands a layer poem's requests, which are none of the crate `http`, so that
//! [`IdempotencyLayer`] cannot stand there: [`Idempotent`] converts them on the way in and back.
//!
//! ```text
//! cargo run -p oncekey-poem-example -- 127.0.0.1:8080 ./keys
//! curl -i http://127.0.0.1:8080/orders -H 'Idempotency-Key: k-1' -d tea
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use oncekey_http::{IdempotencyLayer, RequestBody};
use oncekey_testing::acceptance::Shop;
use poem::http::uri::Scheme;
use poem::listener::TcpAcceptor;
use poem::web::{Data, LocalAddr, RemoteAddr};
use poem::{Body, Endpoint, EndpointExt, Request, RequestParts, Response, Route, Server, handler};
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};

/// An endpoint with idempotency keys.
struct Idempotent<E> {
    endpoint: Arc<E>,
    layer: IdempotencyLayer,
}

impl<E> Idempotent<E> {
    fn new(endpoint: E, layer: IdempotencyLayer) -> Self {
        Self { endpoint: Arc::new(endpoint), layer }
    }
}

/// The body inside of poem's own.
type PoemBody = BoxBody<Bytes, std::io::Error>;

/// What poem knows of a connection and requests of the crate `http` do not.
#[derive(Clone)]
struct Connection(LocalAddr, RemoteAddr, Scheme);

impl<E: Endpoint + 'static> Endpoint for Idempotent<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let connection = Connection(
            request.local_addr().clone(),
            request.remote_addr().clone(),
            request.scheme().clone(),
        );
        let mut request = poem::http::Request::from(request).map(RequestBody::new);
        request.extensions_mut().insert(connection);

        let endpoint = self.endpoint.clone();
        let service = self.layer.layer(service_fn(
            move |request: poem::http::Request<RequestBody<PoemBody>>| {
                let endpoint = endpoint.clone();
                async move {
                    let (mut parts, body) = request.into_parts();
                    let Connection(local, remote, scheme) =
                        parts.extensions.remove().expect("it was inserted above");
                    let parts = RequestParts::from((parts, local, remote, scheme));
                    let request = Request::from_parts(
                        parts,
                        Body::from(body.map_err(std::io::Error::other).boxed()),
                    );
                    let response = endpoint.get_response(request).await;
                    Ok::<_, Infallible>(poem::http::Response::from(response))
                }
            },
        ));
        Ok(service.oneshot(request).await?.into())
    }
}

#[handler]
async fn order(request: &Request, body: Vec<u8>, Data(shop): Data<&Shop>) -> Response {
    let sold = shop.handle(request.uri().path(), &body).await;
    let status = poem::http::StatusCode::from_u16(sold.status).expect("the shop's are valid");
    let mut response = Response::builder().status(status);
    for (name, value) in sold.headers {
        response = response.header(name, value);
    }
    response.body(sold.body)
}

async fn serve(listener: TcpListener, layer: IdempotencyLayer, shop: Shop) -> std::io::Result<()> {
    let app = Idempotent::new(Route::new().at("*", order).data(shop), layer);
    Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?).run(app).await
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
    async fn poem_keeps_the_contract() {
        let (store, shop) = (InMemory::new(), Shop::new());
        let layer = IdempotencyLayer::new(store.engine().clone());
        let layer = layer.policy(Policy::new().max_request_body(MAX_REQUEST_BODY));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, layer, shop.clone()));
        tokio::task::spawn_blocking(move || accept(address, &shop)).await.unwrap();
    }
}
