//! Policies route by route, and what a handler can say about its own execution.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderName, Method};
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use oncekey::{Key, Lookup};
use oncekey_http::{
    Attempt, IdempotencyLayer, NotExecuted, NotStored, Policy, Recovery, Stored, StoredResponse,
    Ttl,
};

use crate::support::{Gate, KEY, PATIENCE, Server, Store, left_out, response};

const HOUR: Duration = Duration::from_secs(3600);

/// Answers with the status that its path names.
async fn by_path(request: Request) -> Response {
    response(request.uri().path()[1..].parse().unwrap(), "text")
}

/// How often the handler runs for two equal requests to each status.
async fn runs_for(stored: Stored, statuses: &[u16]) -> Vec<usize> {
    let policy = Policy::new().stored(stored);
    let server = Server::with(Store::new(), |layer| layer.policy(policy), by_path).await;
    let mut runs = Vec::new();
    for status in statuses {
        let before = server.runs();
        for _ in 0..2 {
            let request = server.request(Method::POST, &format!("/{status}"));
            let reply = server.send(request.header(KEY, format!("k-{status}")), "").await.unwrap();
            assert_eq!(reply.status, *status);
        }
        runs.push(server.runs() - before);
    }
    runs
}

#[tokio::test]
async fn which_responses_are_stored_is_a_policy() {
    let statuses = [200, 302, 404, 408, 429, 500];
    assert_eq!(runs_for(Stored::EveryResponse, &statuses).await, [1, 1, 1, 1, 2, 1]);
    let after_errors = Stored::AtLeastOnceAfterServerErrors;
    assert_eq!(runs_for(after_errors, &statuses).await, [1, 1, 1, 2, 2, 2]);
    let unless_successful = Stored::AtLeastOnceUnlessSuccessful;
    assert_eq!(runs_for(unless_successful, &statuses).await, [1, 1, 2, 2, 2, 2]);
    let only_404 = Stored::AtLeastOnceUnless(Arc::new(|response| response.status == 404));
    assert_eq!(runs_for(only_404, &statuses).await, [2, 2, 1, 2, 2, 2]);
}

/// The TTL of the policy counts from completion. A TTL of the response comes before it.
#[tokio::test]
async fn the_ttl_is_that_of_the_response_or_the_policy_or_the_engine() {
    if left_out("clock of the test's own") {
        return;
    }
    let handler = |request: Request| async move {
        let mut answer = response(201, "created");
        match request.uri().path() {
            "/minute" => _ = answer.extensions_mut().insert(Ttl(Duration::from_secs(60))),
            "/no-time" => _ = answer.extensions_mut().insert(Ttl(Duration::ZERO)),
            "/two-hours" => _ = answer.extensions_mut().insert(Ttl(2 * HOUR)),
            "/large" => {
                answer.extensions_mut().insert(NotStored);
                answer.extensions_mut().insert(Ttl(Duration::from_secs(60)));
            }
            _ => {}
        }
        answer
    };
    let default = Server::start(handler).await;
    let policy = Policy::new().ttl(HOUR);
    let hourly = Server::with(Store::new(), |layer| layer.policy(policy), handler).await;
    let policy = Policy::new().ttl(Duration::ZERO);
    let at_once = Server::with(Store::new(), |layer| layer.policy(policy), handler).await;
    for (server, path, ttl) in [
        (&default, "/default", 24 * HOUR),
        (&default, "/no-time", Duration::from_millis(1)),
        (&at_once, "/at-once", Duration::from_millis(1)),
        (&default, "/minute", HOUR / 60),
        (&hourly, "/hourly", HOUR),
        (&hourly, "/minute", HOUR / 60),
        (&hourly, "/two-hours", 2 * HOUR),
        (&hourly, "/large", HOUR / 60),
    ] {
        let before = server.runs();
        let send = || server.send(server.request(Method::POST, path).header(KEY, path), "");
        send().await.unwrap();
        server.store.clock.advance(ttl - Duration::from_millis(1));
        send().await.unwrap();
        assert_eq!(server.runs(), before + 1, "{path} is live");
        server.store.clock.advance(Duration::from_millis(1));
        send().await.unwrap();
        assert_eq!(server.runs(), before + 2, "{path} expired");
    }
}

#[tokio::test]
async fn dropped_headers_are_sent_once_and_not_replayed() {
    let names = ["set-cookie", "x-trace"].map(HeaderName::from_static);
    let policy = Policy::new().drop_headers(names);
    let server = Server::with(
        Store::new(),
        |layer| layer.policy(policy),
        |_| async {
            let mut answer = response(201, "created");
            for (name, value) in
                [("set-cookie", "a=1"), ("x-kept", "1"), ("set-cookie", "b=2"), ("x-trace", "t")]
            {
                answer.headers_mut().append(name, value.parse().unwrap());
            }
            answer
        },
    )
    .await;
    let first = server.post("k", "").await;
    assert_eq!(first.headers.get_all("set-cookie").iter().count(), 2);
    assert!(first.headers.contains_key("x-trace"));
    let retry = server.post("k", "").await;
    assert!(!retry.headers.contains_key("set-cookie") && !retry.headers.contains_key("x-trace"));
    assert_eq!(retry.headers["x-kept"], "1");
    assert_eq!((retry.status, &retry.body), (first.status, &first.body));
    // The dropped headers are not in the store either.
    let Lookup::Completed(recorded) = server.store.engine.get(&Key::new("", "k").unwrap()).unwrap()
    else {
        panic!("the operation was completed");
    };
    let stored = StoredResponse::decode(recorded.response().unwrap().to_vec()).unwrap();
    assert!(!stored.headers().contains_key("set-cookie"));
}

/// Waits until this number of duplicates waits in the engine.
async fn waiting(server: &Server, duplicates: u64) {
    let wait = async {
        while server.store.engine.stats().waiters < duplicates {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("duplicates wait");
}

#[tokio::test]
async fn duplicates_can_wait_for_the_response() {
    let (server, gate) = Server::gated(Policy::new().wait(HOUR)).await;
    let first = server.post_later("k", "");
    gate.entered().await;
    let duplicates: Vec<_> = (0..3).map(|_| server.post_later("k", "")).collect();
    waiting(&server, 3).await;
    // Another request is refused at once: there is nothing to wait for.
    server.post("k", "other").await.assert_problem(409, "idempotency_key_mismatch");
    gate.open(1);
    let first = first.await.unwrap();
    assert_eq!(first.status, 201);
    for duplicate in duplicates {
        duplicate.await.unwrap().assert_same(&first);
    }
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn a_wait_has_an_end() {
    let (server, gate) = Server::gated(Policy::new().wait(Duration::from_millis(1))).await;
    let first = server.post_later("k", "");
    gate.entered().await;
    server.post("k", "").await.assert_problem(409, "idempotency_key_locked");
    gate.open(1);
    let first = first.await.unwrap();
    server.post("k", "").await.assert_same(&first);
    assert_eq!(server.runs(), 1);
}

/// A waiter whose client goes away waits no longer, and the handler does not notice.
#[tokio::test]
async fn a_waiter_that_goes_away_leaves_nothing_behind() {
    let (server, gate) = Server::gated(Policy::new().wait(HOUR)).await;
    let first = server.post_later("k", "");
    gate.entered().await;
    let request =
        format!("POST /orders HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nContent-Length: 0\r\n\r\n");
    let mut stream = server.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    waiting(&server, 1).await;
    drop(stream);
    server.cancelled().await;
    gate.open(1);
    let first = first.await.unwrap();
    server.post("k", "").await.assert_same(&first);
    assert_eq!(server.runs(), 1);
}

/// When the first request says that nothing happened, one of the waiting ones runs, and the others
/// get its response.
#[tokio::test]
async fn after_not_executed_one_waiter_runs() {
    let gate = Gate::new();
    let passing = gate.clone();
    let runs = Arc::new(AtomicUsize::new(0));
    let policy = Policy::new().wait(HOUR);
    let server = Server::with(
        Store::new(),
        |layer| layer.policy(policy),
        move |_| {
            let (gate, run) = (passing.clone(), runs.fetch_add(1, Ordering::SeqCst));
            async move {
                gate.pass().await;
                let mut answer = response(if run == 0 { 503 } else { 201 }, "");
                if run == 0 {
                    answer.extensions_mut().insert(NotExecuted);
                }
                answer
            }
        },
    );
    let server = Arc::new(server.await);
    let first = server.post_later("k", "");
    gate.entered().await;
    let waiters: Vec<_> = (0..3).map(|_| server.post_later("k", "")).collect();
    waiting(&server, 3).await;
    gate.open(2);
    assert_eq!(first.await.unwrap().status, 503);
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().status, 201);
    }
    assert_eq!(server.runs(), 2);
}

/// Two layers around two routes of one router, and one of them as a `route_layer`.
#[tokio::test]
async fn every_route_can_have_its_own_policy() {
    let store = Store::new();
    let layer = IdempotencyLayer::new(store.engine.clone());
    let strict = layer.clone().policy(Policy::new().required(true));
    let free = layer.clone().policy(Policy::new().stored(Stored::AtLeastOnceAfterServerErrors));
    let fail = || async { response(500, "failed") };
    let app = Router::new()
        .route("/strict", post(fail).route_layer(strict))
        .route("/free", post(fail).layer(free))
        .route("/none", post(fail));
    let server = Server::serve(store, layer, app).await;
    let send = async |path: &str, key: Option<&str>| {
        let mut request = server.request(Method::POST, path);
        if let Some(key) = key {
            request = request.header(KEY, key);
        }
        server.send(request, "").await.unwrap()
    };
    send("/strict", None).await.assert_problem(400, "idempotency_key_missing");
    assert_eq!(send("/free", None).await.status, 500);
    for path in ["/strict", "/free", "/none"] {
        for _ in 0..2 {
            assert_eq!(send(path, Some(path)).await.status, 500);
        }
    }
    let stats = server.store.engine.stats();
    assert_eq!((stats.claimed, stats.completed, stats.aborted, stats.replayed), (3, 1, 2, 1));
    // They share engine and counters.
    assert_eq!((server.layer.stats().key_refused, server.layer.stats().not_executed), (1, 2));
    send("/free", Some("/strict")).await.assert_problem(409, "idempotency_key_mismatch");
}

/// The inner layer would find the key locked by the outer one, which would store that answer.
#[tokio::test]
async fn of_two_layers_around_a_handler_the_outer_one_decides() {
    let store = Store::new();
    let outer = IdempotencyLayer::new(store.engine.clone());
    let inner = IdempotencyLayer::new(store.engine.clone()).policy(Policy::new().required(true));
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let handler = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        response(201, "created")
    };
    let app = Router::new().route("/", post(handler).layer(inner)).layer(outer.clone());
    let server = Server::serve(store, outer, app).await;
    let send = || server.send(server.request(Method::POST, "/").header(KEY, "k"), "");
    let first = send().await.unwrap();
    assert_eq!(first.status, 201);
    send().await.unwrap().assert_same(&first);
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    // Without a key the outer layer passes the request on, and the inner one decides.
    let bare = server.send(server.request(Method::POST, "/"), "").await.unwrap();
    bare.assert_problem(400, "idempotency_key_missing");
}

/// Answers with everything that it knows of its attempt, or panics in its first.
async fn tell(request: Request) -> Response {
    let attempt = request.extensions().get::<Attempt>().unwrap();
    let told = format!(
        "{} {} {} {}",
        attempt.number(),
        attempt.token(),
        attempt.downstream_key("charge"),
        attempt.downstream_key("ship"),
    );
    if attempt.number() == 1 && request.uri().path() == "/panic" {
        attempt.save_checkpoint(told.as_bytes()).await.unwrap();
        panic!("this panic is part of the test");
    }
    let before = attempt.checkpoint().unwrap();
    let before = before.map(|data| String::from_utf8_lossy(&data).into_owned());
    response(201, format!("{told}\n{}", before.unwrap_or_default()))
}

#[tokio::test]
async fn downstream_keys_are_the_same_in_every_attempt_and_tokens_are_not() {
    let retrying = |layer: IdempotencyLayer| layer.policy(Policy::new().recovery(Recovery::Retry));
    let server = Server::with(Store::new(), retrying, tell).await;
    let request = || server.request(Method::POST, "/panic").header(KEY, "k");
    assert!(server.send(request(), "").await.is_err());
    let reply = server.send(request(), "").await.unwrap();
    let told = String::from_utf8(reply.body.to_vec()).unwrap();
    let (second, first) = told.split_once('\n').unwrap();
    let [first, second] = [first, second].map(|told| told.split(' ').collect::<Vec<_>>());
    assert_eq!((first[0], second[0]), ("1", "2"));
    assert_ne!(first[1], second[1], "each attempt has its token");
    assert_eq!(first[2..], second[2..]);
    assert_ne!(first[2], first[3], "each step has its key");
    let other = server.post("other", "").await;
    assert!(!String::from_utf8_lossy(&other.body).contains(first[2]));
}

/// As an extractor of axum, and not there for a request without a key.
#[tokio::test]
async fn a_handler_takes_its_attempt_as_an_extension() {
    let store = Store::new();
    let layer = IdempotencyLayer::new(store.engine.clone());
    let handler = |attempt: Option<Extension<Attempt>>| async move {
        let key = attempt.map(|Extension(attempt)| attempt.key().key().to_vec());
        response(200, key.unwrap_or_default())
    };
    let app = Router::new().route("/", post(handler)).layer(layer.clone());
    let server = Server::serve(store, layer, app).await;
    let keyed = server.request(Method::POST, "/").header(KEY, "k-1");
    assert_eq!(server.send(keyed, "").await.unwrap().body, "k-1");
    let bare = server.send(server.request(Method::POST, "/"), "").await.unwrap();
    assert!(bare.body.is_empty());
}
