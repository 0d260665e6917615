//! Handlers behind the HTTP layer over PostgreSQL: `complete_in`, and answers that say *unknown*.

#![allow(clippy::unwrap_used)]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use common::{cluster, runtime};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key, Lookup};
use oncekey_http::{Attempt, IdempotencyLayer, OutcomeUnknown, RequestBody, Ttl};
use oncekey_postgres::CompleteAttemptIn;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};
use tower_layer::Layer;
use tower_service::Service;

type Body = Full<Bytes>;

/// What a handler does with its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Commit,
    CommitAndPanic,
    CommitAndForget,
    RollBack,
    Unknown,
    Panic,
}

/// Orders something, in a database that it shares with the layer.
#[derive(Clone)]
struct Shop {
    does: Does,
    client: Arc<Mutex<Client>>,
}

impl Shop {
    async fn order(self, attempt: Attempt) -> Response<Body> {
        let mut client = self.client.lock().await;
        match self.does {
            Does::Unknown => {
                let mut response = Response::new(Body::from("who knows"));
                response.extensions_mut().insert(OutcomeUnknown);
                return response;
            }
            Does::Panic => panic!("the handler fails"),
            _ => {}
        }
        let mut transaction = client.transaction().await.unwrap();
        transaction.execute("INSERT INTO orders VALUES (1)", &[]).await.unwrap();
        let mut response = Response::builder().status(201).header("x-order", "7");
        response.extensions_mut().unwrap().insert(Ttl(std::time::Duration::from_secs(3_600)));
        let response = response.body(Bytes::from("ordered")).unwrap();
        let completed = attempt.complete_in(&mut transaction, response.clone()).await.unwrap();
        let twice = attempt.complete_in(&mut transaction, response).await.unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Closed);
        if self.does == Does::RollBack {
            transaction.rollback().await.unwrap();
            drop(completed.rolled_back());
            return Response::builder().status(402).body(Body::from("no money")).unwrap();
        }
        transaction.commit().await.unwrap();
        match self.does {
            Does::CommitAndForget => {
                drop(completed);
                Response::new(Body::from("something else"))
            }
            Does::CommitAndPanic => {
                drop(completed.committed());
                panic!("too late to undo it");
            }
            _ => completed.committed().map(Body::from),
        }
    }
}

impl Service<Request<RequestBody<Body>>> for Shop {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Body>>) -> Self::Future {
        let attempt = request.extensions().get::<Attempt>().unwrap().clone();
        let shop = self.clone();
        Box::pin(async move { Ok(shop.order(attempt).await) })
    }
}

/// The answer of a layer over this engine; `None` when the handler panicked.
async fn post(engine: &Engine, shop: Shop, key: &str) -> Option<(u16, Option<String>, Bytes)> {
    let mut service = IdempotencyLayer::new(engine.clone()).layer(shop);
    let request = Request::post("/orders").header("idempotency-key", key);
    let request = request.body(RequestBody::new(Body::from("two of these"))).unwrap();
    let answer = tokio::spawn(async move { service.call(request).await.unwrap() }).await.ok()?;
    let (parts, body) = answer.into_parts();
    let header = parts.headers.get("x-order").map(|value| value.to_str().unwrap().to_owned());
    let body = body.collect().await.ok().unwrap().to_bytes();
    Some((parts.status.as_u16(), header, body))
}

/// Runs a test on two engines, with an empty table of orders.
fn shop(test: impl AsyncFnOnce([Engine; 2], Arc<Mutex<Client>>)) {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    cluster.raw(&database).run("CREATE TABLE orders (number int NOT NULL)");
    let engines = [(); 2].map(|()| cluster.options(&database, "").open().unwrap());
    let url = cluster.url(&database);
    runtime().block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        test(engines, Arc::new(Mutex::new(client))).await;
    });
}

#[test]
fn the_order_and_the_answer_are_one_commit_and_retries_get_it_from_every_process() {
    shop(async |[one, other], client| {
        let run = |does, engine, key| post(engine, Shop { does, client: client.clone() }, key);
        let ordered = Some((201, Some("7".to_owned()), Bytes::from("ordered")));
        assert_eq!(run(Does::Commit, &one, "commit").await, ordered);
        // A panic behind the commit, or a handler that forgets to say so, changes nothing of it.
        assert_eq!(run(Does::CommitAndPanic, &one, "panic").await, None);
        let forgot = run(Does::CommitAndForget, &one, "forget").await.unwrap();
        assert_eq!(forgot.2, "something else");
        for key in ["commit", "panic", "forget"] {
            for engine in [&other, &one] {
                assert_eq!(run(Does::Commit, engine, key).await, ordered, "{key}");
            }
        }
        // After a rollback the layer stores the answer of the handler as usual.
        let refused = run(Does::RollBack, &one, "back").await;
        assert_eq!(refused.as_ref().unwrap().0, 402);
        assert_eq!(run(Does::Commit, &other, "back").await, refused);
        let orders = client.lock().await.query_one("SELECT count(*) FROM orders", &[]).await;
        assert_eq!(orders.unwrap().get::<_, i64>(0), 3);
        let Lookup::Completed(recorded) = one.get(&Key::new("", "commit").unwrap()).unwrap() else {
            panic!("completed")
        };
        let kept = recorded.expires_at().duration_since(recorded.completed_at()).unwrap();
        assert_eq!(kept.as_secs(), 3_600, "the TTL of the response");
        assert_eq!(one.stats().in_flight, 0);
    });
}

/// http.md: a retry that is sent after an answer is never told *locked*, at any process.
#[test]
fn whoever_was_told_unknown_finds_the_key_so_at_every_process() {
    shop(async |[one, other], client| {
        for round in 0..40 {
            let key = format!("k{round}");
            let does = if round % 2 == 0 { Does::Unknown } else { Does::Panic };
            let told = post(&one, Shop { does, client: client.clone() }, &key).await;
            assert_eq!(told.is_some(), does == Does::Unknown);
            let other_request = Fingerprint::builder().part("body", "else").finish();
            let key = Key::new("", &key).unwrap();
            match other.get(&key).unwrap() {
                Lookup::Orphaned(orphan) => orphan.release().await.unwrap(),
                found => panic!("round {round}: {found:?}"),
            }
            assert!(matches!(one.begin(&key, other_request).await.unwrap(), Begin::Claimed(_)));
        }
    });
}
