//! The router for operators, over a socket.

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::post;
use oncekey::{Engine, Stats};
use oncekey_http::{Admin, IdempotencyLayer, Policy};
use serde_json::{Value, json};

use crate::support::{KEY, Reply, Server, Store, left_out, response};

async fn operators_only(request: Request, next: Next) -> Result<Response, StatusCode> {
    match request.headers().get("authorization") {
        Some(token) if token == "operator" => Ok(next.run(request).await),
        _ => Err(StatusCode::UNAUTHORIZED),
    }
}

async fn orders(request: Request) -> Response {
    assert_ne!(request.uri().path(), "/panic", "this panic is part of the test");
    response(201, "a secret response")
}

async fn start(configure: impl FnOnce(Admin) -> Admin) -> Server {
    let store = Store::new();
    let policy = Policy::new().scope(|request| {
        request.headers.get("x-tenant").map(|tenant| tenant.as_bytes().to_vec()).unwrap_or_default()
    });
    let layer = IdempotencyLayer::new(store.engine.clone()).policy(policy);
    let admin = configure(Admin::new(layer.clone())).router(from_fn(operators_only));
    let app = Router::new()
        .route("/orders", post(orders))
        .route("/panic", post(orders))
        .layer(layer.clone())
        .nest("/admin", admin);
    Server::serve(store, layer, app).await
}

async fn get(server: &Server, target: &str) -> Value {
    let request = server.request(Method::GET, target).header("authorization", "operator");
    let reply = server.send(request, "").await.unwrap();
    assert_eq!(reply.status, 200, "{target}: {reply:?}");
    reply.json()
}

async fn act(server: &Server, target: &str, body: Value) -> Reply {
    let request = server.request(Method::POST, target).header("authorization", "operator");
    let request = request.header("content-type", "application/json");
    server.send(request, body.to_string()).await.unwrap()
}

/// Leaves an orphan behind.
async fn panic(server: &Server, key: &[u8]) {
    let key = http::HeaderValue::from_bytes(key).unwrap();
    let request =
        || server.request(Method::POST, "/panic").header(KEY, &key).header("x-tenant", "t 1");
    assert!(server.send(request(), "").await.is_err());
    // A retry waits until the orphan is on disk; a list does not.
    let retry = server.send(request(), "").await.unwrap();
    retry.assert_problem(409, "idempotency_outcome_unknown");
}

async fn retry(server: &Server, key: &str) -> Result<Reply, hyper_util::client::legacy::Error> {
    let request = server.request(Method::POST, "/panic").header(KEY, key).header("x-tenant", "t 1");
    server.send(request, "").await
}

#[tokio::test]
async fn nothing_is_reached_without_the_callers_authentication() {
    let server = start(|admin| admin.backups("/nowhere")).await;
    for (method, target) in [
        (Method::GET, "/admin/stats"),
        (Method::GET, "/admin/orphans"),
        (Method::GET, "/admin/keys?key=k"),
        (Method::POST, "/admin/orphans/release"),
        (Method::POST, "/admin/orphans/complete"),
        (Method::POST, "/admin/backups"),
        (Method::GET, "/admin/no/such/path"),
        (Method::DELETE, "/admin/stats"),
    ] {
        let request = server.request(method.clone(), target).header("authorization", "guest");
        let reply = server.send(request, "{}").await.unwrap();
        assert_eq!((reply.status, reply.body.len()), (401, 0), "{method} {target}");
    }
}

#[tokio::test]
async fn stats_are_those_of_engine_and_layer() {
    if left_out("count of orphans at each moment") {
        return;
    }
    let server = start(|admin| admin).await;
    for key in ["k", "k", ""] {
        server.post(key, "").await;
    }
    panic(&server, b"dead").await;
    let stats = get(&server, "/admin/stats").await;
    assert_eq!((&stats["engine"]["claimed"], &stats["engine"]["replayed"]), (&json!(2), &json!(1)));
    assert_eq!((&stats["engine"]["orphans"], &stats["engine"]["full"]), (&json!(1), &json!(false)));
    assert_eq!(
        (&stats["engine"]["openBytes"].is_u64(), &stats["engine"]["oldestClaimMs"]),
        (&true, &json!(null))
    );
    assert_eq!(stats["engine"].as_object().unwrap().len(), Stats::default().fields().len());
    assert_eq!(
        (&stats["layer"]["keyRefused"], &stats["layer"]["abandoned"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn orphans_are_listed_and_resolved_by_their_token() {
    if left_out("clock of the test's own") {
        return;
    }
    let server = start(|admin| admin).await;
    for key in [&b"first"[..], b"second", b"\xff 100%"] {
        panic(&server, key).await;
        server.store.clock.advance(std::time::Duration::from_secs(1));
    }
    let listed = get(&server, "/admin/orphans?limit=2").await;
    assert_eq!((&listed["total"], listed["orphans"].as_array().unwrap().len()), (&json!(3), 2));
    let listed = get(&server, "/admin/orphans").await;
    let orphans = listed["orphans"].as_array().unwrap();
    let keys: Vec<_> = orphans.iter().map(|orphan| orphan["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["first", "second", "%FF%20100%25"]);
    assert_eq!((&orphans[0]["scope"], &orphans[0]["attempt"]), (&json!("t%201"), &json!(1)));
    assert_eq!((&orphans[0]["ageMs"], &orphans[2]["ageMs"]), (&json!(3000), &json!(1000)));

    // After the release the next request runs, and panics again.
    let released = act(&server, "/admin/orphans/release", orphans[0].clone()).await;
    assert_eq!(released.json(), json!({"released": true}));
    assert!(retry(&server, "first").await.is_err());
    // The orphan is of another attempt now, so the token that was listed no longer fits.
    let again = act(&server, "/admin/orphans/release", orphans[0].clone()).await;
    assert_eq!(again.status, 409, "{again:?}");

    // Completed: the next request gets that response.
    let mut completing = orphans[1].clone();
    completing["status"] = json!(201);
    completing["headers"] = json!([["x-from", "operator"], ["x-from", "hand"]]);
    completing["body"] = json!("order 7");
    for status in [99, 100, 101, 199, 600] {
        let mut unfinished = completing.clone();
        unfinished["status"] = json!(status);
        assert_eq!(act(&server, "/admin/orphans/complete", unfinished).await.status, 400);
    }
    let completed = act(&server, "/admin/orphans/complete", completing.clone()).await;
    assert_eq!(completed.json(), json!({"completed": true, "responseKept": true}));
    let reply = retry(&server, "second").await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (201, &b"order 7"[..]));
    assert_eq!(reply.headers.get_all("x-from").iter().count(), 2);
    assert_eq!(act(&server, "/admin/orphans/complete", completing).await.status, 409);

    let released = act(&server, "/admin/orphans/release", orphans[2].clone()).await;
    assert_eq!(released.status, 200, "a key that is no text: {released:?}");
    assert_eq!(get(&server, "/admin/orphans").await["total"], 1);
}

#[tokio::test]
async fn a_key_is_looked_up_without_telling_its_response() {
    let server = start(|admin| admin).await;
    server.post("done", "").await;
    panic(&server, b"a&b").await;
    let done = get(&server, "/admin/keys?key=done").await;
    assert_eq!(done["state"], "completed");
    assert_eq!(done["response"], json!({"status": 201, "bodyBytes": "a secret response".len()}));
    let day = done["expiresAtMs"].as_u64().unwrap() - done["completedAtMs"].as_u64().unwrap();
    assert_eq!(day, 24 * 60 * 60 * 1000);
    let dead = get(&server, "/admin/keys?scope=t%201&key=a%26b").await;
    assert_eq!((&dead["state"], &dead["key"]), (&json!("orphaned"), &json!("a&b")));
    assert_eq!(get(&server, "/admin/keys?scope=t&key=done").await, json!({"state": "absent"}));
    for bad in ["/admin/keys", "/admin/keys?key=", "/admin/keys?key=%4", "/admin/orphans?limit=x"] {
        let request = server.request(Method::GET, bad).header("authorization", "operator");
        let reply = server.send(request, "").await.unwrap();
        assert_eq!(reply.status, 400, "{bad}");
        assert!(!reply.json()["error"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_backup_is_taken_where_it_is_set_up() {
    if left_out("backup of the engine") {
        return;
    }
    let server = start(|admin| admin).await;
    let body = json!({"name": "now"});
    assert_eq!(act(&server, "/admin/backups", body.clone()).await.status, 404);

    // The backup goes to the engine's own disk, in memory, where the test can open it.
    let server = start(|admin| admin.backups("/backups")).await;
    let first = server.post("k", "").await;
    let taken = act(&server, "/admin/backups", body.clone()).await;
    assert_eq!(taken.json(), json!({"path": "/backups/now"}), "{taken:?}");
    assert_eq!(act(&server, "/admin/backups", body).await.status, 400, "it is there already");
    assert_eq!(act(&server, "/admin/backups", json!({"name": "../now"})).await.status, 400);
    let copy: Engine = server.store.reopen_at("/backups/now");
    let key = oncekey::Key::new("", "k").unwrap();
    assert!(matches!(copy.get(&key).unwrap(), oncekey::Lookup::Completed(_)));
    server.post("k", "").await.assert_same(&first);
}
