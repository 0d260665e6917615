//! What operators ask for below `/api/v1`: who may, what they get, and what is written down.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use oncekey::{Begin, Fingerprint, Key};
use oncekey_http::{Access, Admin, Caller, ControlSocket, IdempotencyLayer, StoredResponse};
use oncekey_testing::postgres;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::support::{Store, left_out};

/// A guarded router over a store, with files of its own.
struct Desk {
    store: Store,
    router: Router,
    directory: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the code of a refusal.
    fn refused(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap().to_owned())
    }
}

fn desk(configure: impl FnOnce(Admin, &Path) -> Admin) -> Desk {
    let store = Store::new();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let access = Access::new()
        .operator_token_file(file("operator"))
        .and_then(|access| access.viewer_token_file(file("viewer")))
        .unwrap()
        .hosts(["ops.example"]);
    let admin = Admin::new(IdempotencyLayer::new(store.engine.clone())).audit_log(file("audit"));
    let peer: SocketAddr = "192.0.2.7:1".parse().unwrap();
    let router = configure(admin, directory.path())
        .guarded(access)
        .layer(axum::Extension(ConnectInfo(peer)));
    Desk { store, router, directory }
}

impl Desk {
    fn token(&self, role: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(role)).unwrap().trim().to_owned()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/api/v1/{path}"));
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header(HOST, "127.0.0.1:9465");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token("operator"));
        self.send(Method::GET, path, &[("authorization", &bearer)], Value::Null).await
    }

    async fn post(&self, role: &str, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.token(role));
        let headers = [("authorization", &bearer[..]), ("content-type", "application/json")];
        self.send(Method::POST, path, &headers, body).await
    }

    /// Leaves an orphan behind, with a checkpoint: as it is listed.
    async fn orphan(&self, key: &str) -> Value {
        let key = Key::new("t", key).unwrap();
        let begun = self.store.engine.begin(&key, Fingerprint::builder().finish()).await.unwrap();
        let Begin::Claimed(claim) = begun else { panic!("{begun:?}") };
        claim.checkpoint(b"\0saved").await.unwrap();
        drop(claim);
        // What becomes of a dropped claim is told to nobody.
        let named = json!(key.key().escape_ascii().to_string());
        let mut orphan = loop {
            let listed = self.get("orphans").await.json();
            let orphans = listed["orphans"].as_array().unwrap();
            if let Some(orphan) = orphans.iter().find(|orphan| orphan["key"] == named) {
                break orphan.clone();
            }
        };
        let token = orphan["token"].as_str().unwrap();
        orphan["confirm"] = json!(token[token.len() - 4..]);
        orphan["reason"] = json!("never charged");
        orphan
    }

    fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.path().join("audit")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

const CHANGES: [&str; 9] = [
    "orphans/release",
    "orphans/complete",
    "orphans/resolve",
    "backups",
    "backups/x/verify",
    "fold",
    "sweep",
    "reload",
    "session/link",
];

#[tokio::test]
async fn nothing_is_told_without_a_token() {
    let desk = desk(|admin, _| admin);
    for path in ["info", "stats", "orphans", "keys?key=k", "series", "config", "no/such", "jobs/1"]
    {
        let answer = desk.send(Method::GET, path, &[], Value::Null).await;
        assert_eq!(answer.refused(), (401, "unauthorized".to_owned()), "{path}");
    }
    for path in CHANGES {
        let json = [("content-type", "application/json")];
        let answer = desk.send(Method::POST, path, &json, json!({})).await;
        assert_eq!(answer.refused(), (401, "unauthorized".to_owned()), "{path}");
    }
    assert_eq!(desk.get("no/such").await.status, 404);
    let info = desk.get("info").await.json();
    assert_eq!(
        (&info["role"], &info["csrf"], &info["pid"]),
        (&json!("operator"), &json!(null), &json!(std::process::id()))
    );
}

#[tokio::test]
async fn a_viewer_looks_and_a_read_only_server_is_only_read() {
    for (desk, role, code) in [
        (desk(|admin, _| admin), "viewer", "forbidden"),
        (desk(|admin, _| admin.read_only(true)), "operator", "read_only"),
    ] {
        let orphan = desk.orphan("k").await;
        for path in CHANGES {
            let answer = desk.post(role, path, orphan.clone()).await;
            assert_eq!(answer.refused(), (403, code.to_owned()), "{path}");
        }
        assert_eq!(desk.get("orphans").await.json()["total"], 1);
        assert_eq!(desk.audit(), Vec::<Value>::new());
    }
}

#[tokio::test]
async fn ten_wrong_tokens_shut_an_address_out() {
    let desk = desk(|admin, _| admin);
    let wrong = [("authorization", "Bearer wrong")];
    for _ in 0..9 {
        assert_eq!(desk.send(Method::GET, "info", &wrong, Value::Null).await.status, 401);
    }
    let json_type = [("content-type", "application/json")];
    let answer = desk.send(Method::POST, "session", &json_type, json!({"token": "wrong"})).await;
    assert_eq!(answer.status, 401, "to sign in is a try as well");
    let shut = desk.get("info").await;
    assert_eq!(
        shut.refused(),
        (429, "too_many_tries".to_owned()),
        "the right token comes too late"
    );
    assert!(shut.headers.contains_key("retry-after"));
    let token = json!({"token": desk.token("operator")});
    assert_eq!(desk.send(Method::POST, "session", &json_type, token).await.status, 429);
}

#[tokio::test]
async fn another_host_is_refused() {
    let desk = desk(|admin, _| admin);
    let bearer = format!("Bearer {}", desk.token("operator"));
    for (host, status) in [("evil.example", 421), ("ops.example:9465", 200), ("[::1]:9465", 200)] {
        let headers = [("host", host), ("authorization", &bearer[..])];
        let answer = desk.send(Method::GET, "info", &headers, Value::Null).await;
        assert_eq!(answer.status, status, "{host}");
    }
    let headers = [("host", "evil.example"), ("content-type", "application/json")];
    let answer = desk.send(Method::POST, "session", &headers, json!({"token": "x"})).await;
    assert_eq!(answer.status, 421);
}

#[tokio::test]
async fn a_browser_changes_nothing_without_the_value_of_its_session() {
    let desk = desk(|admin, _| admin);
    let json_type = ("content-type", "application/json");
    let token = json!({"token": desk.token("operator")});
    let cross = [json_type, ("sec-fetch-site", "cross-site")];
    assert_eq!(desk.send(Method::POST, "session", &cross, token.clone()).await.status, 403);
    let signed_in = desk.send(Method::POST, "session", &[json_type], token).await;
    let cookie = signed_in.headers[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = ("cookie", cookie.split(';').next().unwrap());
    let csrf = signed_in.json()["csrf"].as_str().unwrap().to_owned();
    let csrf = ("oncekey-csrf", &csrf[..]);
    let info = desk.send(Method::GET, "info", &[cookie], Value::Null).await.json();
    assert_eq!(info["csrf"], json!(csrf.1));

    let orphan = desk.orphan("k").await;
    for headers in [
        &[cookie, json_type][..],
        &[cookie, json_type, ("oncekey-csrf", "wrong")],
        &[cookie, csrf, ("content-type", "text/plain")],
        &[cookie, csrf],
        &[cookie, csrf, json_type, ("sec-fetch-site", "same-site")],
        &[cookie, csrf, json_type, ("sec-fetch-site", "cross-site")],
    ] {
        let answer = desk.send(Method::POST, "orphans/release", headers, orphan.clone()).await;
        assert_eq!(answer.refused(), (403, "csrf".to_owned()), "{headers:?}");
    }
    assert_eq!(
        (desk.get("orphans").await.json()["total"].clone(), desk.audit().len()),
        (json!(1), 0)
    );
    let good = [cookie, csrf, json_type, ("sec-fetch-site", "same-origin")];
    assert_eq!(desk.send(Method::POST, "orphans/release", &good, orphan).await.status, 200);

    assert_eq!(desk.send(Method::DELETE, "session", &[cookie], Value::Null).await.status, 403);
    assert_eq!(
        desk.send(Method::DELETE, "session", &[cookie, csrf], Value::Null).await.status,
        200
    );
    assert_eq!(desk.send(Method::GET, "info", &[cookie], Value::Null).await.status, 401);
}

#[tokio::test]
async fn a_link_signs_one_browser_in() {
    let desk = desk(|admin, _| admin);
    let link = desk.post("operator", "session/link", json!({})).await.json();
    let token = json!({"token": link["token"]});
    let json_type = [("content-type", "application/json")];
    let first = desk.send(Method::POST, "session", &json_type, token.clone()).await;
    assert_eq!(first.json()["role"], "operator");
    assert_eq!(desk.send(Method::POST, "session", &json_type, token).await.status, 401);
}

#[tokio::test]
async fn an_orphan_is_resolved_with_a_reason_and_written_down() {
    let desk = desk(|admin, _| admin);
    let orphan = desk.orphan("first").await;
    for (member, value, code) in [
        ("reason", json!("no"), "reason"),
        ("reason", json!(null), "invalid"),
        ("confirm", json!("xxxx"), "confirm"),
        ("confirm", json!(""), "confirm"),
    ] {
        let mut wrong = orphan.clone();
        wrong[member] = value;
        let answer = desk.post("operator", "orphans/release", wrong).await;
        assert_eq!(answer.json()["code"], code, "{member}");
    }
    assert_eq!(desk.audit().len(), 0, "nothing was changed, nothing is written");
    let released = desk.post("operator", "orphans/release", orphan.clone()).await;
    assert_eq!(released.json(), json!({"released": true}));
    let again = desk.post("operator", "orphans/release", orphan).await;
    assert_eq!(again.refused(), (409, "conflict".to_owned()), "another caller was first");

    let mut second = desk.orphan("second").await;
    second["status"] = json!(201);
    second["bodyBase64"] = json!("AP8=");
    let completed = desk.post("operator", "orphans/complete", second).await;
    assert_eq!(completed.json(), json!({"completed": true, "responseKept": true}));

    let audit = desk.audit();
    let lines: Vec<_> = audit
        .iter()
        .map(|line| {
            let text = |member: &str| line[member].as_str().unwrap_or_default().to_owned();
            (text("action"), text("key"), text("result").split(':').next().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("release", "first", "asked"),
        ("release", "first", "done"),
        ("release", "first", "asked"),
        ("release", "first", "refused"),
        ("complete", "second", "asked"),
        ("complete", "second", "done"),
    ];
    let expected = expected.map(|(action, key, result)| (action.into(), key.into(), result.into()));
    assert_eq!(lines, expected);
    for line in &audit {
        assert_eq!((&line["who"], &line["peer"]), (&json!("operator token"), &json!("192.0.2.7")));
        assert_eq!((&line["reason"], &line["scope"]), (&json!("never charged"), &json!("t")));
    }
}

#[tokio::test]
async fn nothing_is_changed_when_it_cannot_be_written_down() {
    let desk = desk(|admin, directory| admin.audit_log(directory.join("no/such/directory")));
    let orphan = desk.orphan("k").await;
    let answer = desk.post("operator", "orphans/release", orphan).await;
    assert_eq!(answer.refused(), (503, "audit_failed".to_owned()));
    assert_eq!(desk.get("orphans").await.json()["total"], 1);
    assert_eq!(desk.post("operator", "fold", json!({})).await.status, 503);
}

#[tokio::test]
async fn many_orphans_are_resolved_each_for_itself() {
    let desk = desk(|admin, _| admin);
    let mut list = Vec::new();
    for key in ["a", "b", "c"] {
        let mut orphan = desk.orphan(key).await;
        orphan["action"] = json!("release");
        list.push(orphan);
    }
    list[1]["confirm"] = json!("nope");
    list[2]["action"] = json!("complete");
    list[2]["status"] = json!(204);
    list.push(json!({"action": "explode", "key": "d"}));
    let answer = desk.post("operator", "orphans/resolve", json!(list)).await.json();
    let results = answer.as_array().unwrap();
    assert_eq!((&results[0]["key"], &results[0]["released"]), (&json!("a"), &json!(true)));
    assert_eq!((&results[1]["key"], &results[1]["code"]), (&json!("b"), &json!("confirm")));
    assert_eq!(results[2]["completed"], true);
    assert_eq!((&results[3]["code"], results.len()), (&json!("invalid"), 4));
    assert_eq!(desk.get("orphans").await.json()["total"], 1);
    let answer = desk.post("operator", "orphans/resolve", json!(vec![json!({}); 1001])).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn responses_are_shown_to_operators_where_that_is_allowed() {
    for shown in [false, true] {
        let desk = desk(|admin, _| admin.show_responses(shown));
        let key = Key::new("t", "k").unwrap();
        let begun = desk.store.engine.begin(&key, Fingerprint::builder().finish()).await.unwrap();
        let Begin::Claimed(claim) = begun else { panic!("{begun:?}") };
        let headers = http::HeaderMap::from_iter([(CONTENT_TYPE, "text/html".parse().unwrap())]);
        let response = StoredResponse::new(http::StatusCode::CREATED, &headers, "<script>");
        claim.complete(&response.encode().unwrap()).await.unwrap();
        let path = "keys/response?scope=t&key=k";
        let answer = desk.get(path).await;
        if !shown {
            assert_eq!(answer.refused(), (403, "not_shown".to_owned()));
            continue;
        }
        assert_eq!((answer.status, &answer.body[..]), (200, &b"<script>"[..]));
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert!(answer.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
        assert!(answer.headers["oncekey-response"].to_str().unwrap().contains("201"));
        let viewer = format!("Bearer {}", desk.token("viewer"));
        let answer = desk.send(Method::GET, path, &[("authorization", &viewer)], Value::Null).await;
        assert_eq!(answer.refused(), (403, "forbidden".to_owned()));
        assert_eq!(desk.get("keys/response?scope=t&key=other").await.status, 404);
    }
}

#[tokio::test]
async fn a_checkpoint_is_bytes() {
    let desk = desk(|admin, _| admin);
    desk.orphan("k").await;
    let answer = desk.get("orphans/checkpoint?scope=t&key=k").await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\0saved"[..]));
    assert_eq!(desk.get("orphans/checkpoint?scope=t&key=other").await.status, 404);
}

#[tokio::test]
async fn the_course_of_the_statistics_is_told() {
    let desk = desk(|admin, _| admin.measure("answer", || Some(42.5)));
    let _orphan = desk.orphan("k").await;
    // The second sample is the first row.
    let series = loop {
        let series = desk.get("series?window=1m").await.json();
        if series["answer"].as_array().is_some_and(|column| !column.is_empty()) {
            break series;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&series["stepMs"], &series["answer"][0]), (&json!(1000), &json!(42.5)));
    let columns = series.as_object().unwrap().values().filter_map(Value::as_array);
    let lengths: std::collections::BTreeSet<_> = columns.map(Vec::len).collect();
    assert_eq!(lengths.len(), 1, "as many figures of each: {series}");
    assert_eq!(desk.get("series?window=25h").await.status, 400);
}

#[tokio::test]
async fn all_keys_are_listed_page_by_page() {
    let desk = desk(|admin, _| admin);
    let mut expected = std::collections::BTreeSet::new();
    for number in 0..25 {
        let name = format!("k{number}");
        desk.orphan(&name).await;
        expected.insert(name);
    }
    let (mut after, mut seen) = (String::new(), std::collections::BTreeSet::new());
    loop {
        let page =
            desk.get(&format!("keys/list?limit=7&state=orphaned&scope=t{after}")).await.json();
        for key in page["keys"].as_array().unwrap() {
            assert_eq!((&key["state"], &key["scope"]), (&json!("orphaned"), &json!("t")));
            assert!(seen.insert(key["key"].as_str().unwrap().to_owned()), "listed twice: {key}");
        }
        match page["after"].as_str() {
            Some(place) => after = format!("&after={place}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
    let of = async |query: &str| {
        let page = desk.get(&format!("keys/list?limit=1000&{query}")).await.json();
        page["keys"].as_array().unwrap().len()
    };
    assert_eq!(
        (of("prefix=k2").await, of("scope=other").await, of("state=completed").await),
        (6, 0, 0)
    );
    for bad in ["state=x", "after=1", "limit=x"] {
        assert_eq!(desk.get(&format!("keys/list?{bad}")).await.status, 400, "{bad}");
    }
    assert!(desk.get("expiry").await.json().is_array());
}

#[tokio::test]
async fn backups_are_jobs() {
    if left_out("backup of the engine") {
        return;
    }
    // The engine writes to a disk in memory, so what is there is listed by hand.
    let desk = desk(|admin, directory| admin.backups(directory.join("backups")));
    assert_eq!(desk.get("backups").await.json(), json!({"backups": []}));
    let begun = desk.post("operator", "backups", json!({"name": "now"})).await;
    assert_eq!(begun.status, 202);
    let job = format!("jobs/{}", begun.json()["job"].as_str().unwrap());
    let ended = loop {
        let job = desk.get(&job).await.json();
        if job["state"] != "running" {
            break job;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&ended["kind"], &ended["name"], &ended["state"]),
        (&json!("backup"), &json!("now"), &json!("done"))
    );
    assert_eq!(desk.post("operator", "backups", json!({"name": "../now"})).await.status, 400);
    assert_eq!(desk.post("operator", "backups/absent/verify", json!({})).await.status, 404);
    assert_eq!(desk.get("jobs/99").await.status, 404);
    let actions: Vec<_> = desk.audit().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["backup", "backup"]);
}

#[tokio::test]
async fn a_real_backup_is_listed_and_verified() {
    let directory = tempfile::tempdir().unwrap();
    let engine = oncekey::Engine::open(directory.path().join("store")).unwrap();
    let backups = directory.path().join("backups");
    let admin = Admin::new(IdempotencyLayer::new(engine)).backups(&backups);
    let app = admin.router(tower::layer::util::Identity::new());
    let ask = async |method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(format!("/api/v1/{path}"));
        let request =
            request.header(AUTHORIZATION, "Bearer x").header(CONTENT_TYPE, "application/json");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()
    };
    for (path, body) in [("backups", json!({"name": "now"})), ("backups/now/verify", json!({}))] {
        let job = ask(Method::POST, path, body).await["job"].clone();
        let job = format!("jobs/{}", job.as_str().unwrap());
        let ended = loop {
            let job = ask(Method::GET, &job, Value::Null).await;
            if job["state"] != "running" {
                break job;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(ended["state"], "done", "{ended}");
    }
    let listed = ask(Method::GET, "backups", Value::Null).await;
    let backup = &listed["backups"][0];
    assert_eq!((&backup["name"], &backup["whole"]), (&json!("now"), &json!(true)));
    assert_eq!(backup["verified"]["result"], json!({"records": 0, "damage": []}));
    assert!(backup["bytes"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn an_embedder_says_what_is_done() {
    let desk = desk(|admin, _| {
        admin
            .about("store", "./keys")
            .configuration(|| json!({"toml": "store = \"***\""}))
            .on_reload(async || Err(vec!["line 1".to_owned(), "line 2".to_owned()]))
            .on_drain(async || Ok(()))
    });
    assert_eq!(desk.get("info").await.json()["store"], "./keys");
    assert_eq!(desk.get("config").await.json()["toml"], "store = \"***\"");
    let reload = desk.post("operator", "reload", json!({})).await;
    assert_eq!((reload.refused().0, &reload.json()["error"]), (409, &json!("line 1; line 2")));
    assert_eq!(desk.post("operator", "drain", json!({})).await.json(), json!({"draining": true}));
    for (action, member) in [("fold", "folded"), ("sweep", "swept"), ("reopen", "reopened")] {
        let answer = desk.post("operator", action, json!({})).await.json();
        assert!(answer.get(member).is_some(), "{action}: {answer}");
    }
    let bare = self::desk(|admin, _| admin);
    assert_eq!(bare.post("operator", "reload", json!({})).await.status, 501);
    assert_eq!(bare.get("config").await.status, 404);
}

#[tokio::test]
async fn behind_an_embedders_authentication_there_are_roles_too() {
    async fn known(mut request: Request, next: Next) -> Response {
        if request.headers().contains_key(COOKIE) {
            request.extensions_mut().insert(Caller::viewer("ada"));
        }
        next.run(request).await
    }
    let store = Store::new();
    let admin = Admin::new(IdempotencyLayer::new(store.engine.clone()));
    let app = Router::new().nest("/admin", admin.router(from_fn(known)));
    let ask = async |headers: &[(&str, &str)], method: Method, path: &str| {
        let mut request = Request::builder().method(method).uri(format!("/admin/api/v1/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = app.clone().oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let json_type = ("content-type", "application/json");
    let (_, viewer) = ask(&[("cookie", "x")], Method::GET, "info").await;
    assert_eq!((&viewer["role"], &viewer["name"]), (&json!("viewer"), &json!("ada")));
    let csrf = viewer["csrf"].as_str().unwrap().to_owned();
    let csrf = ("oncekey-csrf", &csrf[..]);
    let refused = ask(&[("cookie", "x"), json_type, csrf], Method::POST, "fold").await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("forbidden")));
    let refused = ask(&[json_type], Method::POST, "fold").await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("csrf")), "as a browser might");
    assert_eq!(ask(&[json_type, csrf], Method::POST, "fold").await.0, 200);
    let bearer = ("authorization", "Bearer theirs");
    assert_eq!(ask(&[json_type, bearer], Method::POST, "fold").await.0, 200);
}

#[tokio::test]
async fn the_control_socket_is_for_its_user() {
    use std::os::unix::fs::PermissionsExt;
    let store = Store::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let admin = Admin::new(IdempotencyLayer::new(store.engine.clone()));
    // A process that was killed left its socket behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = admin.control_socket(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stream = tokio::net::UnixStream::connect(socket.path()).await.unwrap();
    let request = "GET /api/v1/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"role\":\"operator\""),
        "{answer}"
    );
    assert!(answer.contains("\"name\":\"uid "), "{answer}");
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_store_notes_its_control_socket_as_long_as_that_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let (keys, path) = (directory.path().join("keys"), directory.path().join("control.sock"));
    let engine = oncekey::Engine::open(&keys).unwrap();
    assert_eq!(oncekey::owner(&keys), None);
    let admin = Admin::without_layer(engine.clone());
    let noted = || oncekey::owner(&keys).map(|note| String::from_utf8(note).unwrap());
    let socket = admin.clone().control_socket(&path).unwrap();
    assert_eq!(noted(), Some(ControlSocket::note(&path)));
    drop(socket);
    assert_eq!(noted(), None);
    let socket = admin.clone().control_socket(&path).unwrap();
    engine.close().unwrap();
    assert_eq!(std::fs::read(keys.join("LOCK")).unwrap(), b"");
    drop(socket);
    assert!(admin.control_socket(&path).unwrap_err().to_string().contains("closed"));
    assert!(!path.exists());
}

#[tokio::test]
async fn an_engine_without_a_layer_has_no_figures_of_one_and_shows_bytes_as_they_are() {
    let store = Store::new();
    let key = oncekey::Key::new("", "raw").unwrap();
    let begun = store.engine.begin(&key, oncekey::Fingerprint::builder().finish());
    let oncekey::Begin::Claimed(claim) = begun.wait().unwrap() else { panic!() };
    claim.complete(b"\0no HTTP").wait().unwrap();
    let admin = Admin::without_layer(store.engine.clone()).show_responses(true);
    let router = admin.router(axum::middleware::map_request(async |request: Request| request));
    let get = async |path: &str| {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(answer.headers().get("oncekey-response").is_none());
        to_bytes(answer.into_body(), usize::MAX).await.unwrap()
    };
    let stats: Value = serde_json::from_slice(&get("/stats").await).unwrap();
    assert_eq!((&stats["layer"], &stats["engine"]["completed"]), (&Value::Null, &json!(1)));
    assert_eq!(&get("/api/v1/keys/response?key=raw").await[..], b"\0no HTTP");
}

#[test]
fn a_store_has_one_place_for_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("keys");
    let before = ControlSocket::default_path(&store).unwrap();
    std::fs::create_dir(&store).unwrap();
    let dotted = directory.path().join(".").join("keys");
    assert_eq!(ControlSocket::default_path(&dotted).unwrap(), before);
    assert_ne!(ControlSocket::default_path(directory.path()).unwrap(), before);
    let note = ControlSocket::note(&before);
    let expected = format!("pid {}\ncontrol unix:{}\n", std::process::id(), before.display());
    assert_eq!(note, expected);
}

#[tokio::test]
async fn the_console_is_a_page_that_asks_for_a_token() {
    let desk = desk(|admin, _| admin.console());
    let get = |path: &'static str, host: &'static str| {
        let request = Request::builder().uri(path).header(HOST, host).body(Body::empty()).unwrap();
        desk.router.clone().oneshot(request)
    };
    let page = get("/", "localhost:9465").await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["cache-control"], "no-store");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    assert_eq!(page.headers()["cross-origin-opener-policy"], "same-origin");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"));
    let body = to_bytes(page.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(text.contains("data-login=\"token\"") && text.contains("data-api=\"api/v1/\""));
    let named = text.split("src=\"app-").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let path: &'static str = format!("/app-{named}").leak();
    let code = get(path, "127.0.0.1").await.unwrap();
    assert_eq!(code.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(code.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    for path in ["/", path] {
        assert_eq!(get(path, "evil.example").await.unwrap().status(), 421, "{path}");
    }
    let told = desk.get("info").await;
    assert_eq!(told.headers["cache-control"], "no-store");
    assert_eq!(told.json()["health"], "ok");
}

#[tokio::test]
async fn without_a_console_there_is_no_page() {
    let desk = desk(|admin, _| admin.unready(|| Some("draining")));
    let request = Request::builder().uri("/").header(HOST, "localhost").body(Body::empty());
    let answer = desk.router.clone().oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(desk.get("info").await.json()["health"], "draining");
}

#[tokio::test]
async fn an_embedder_mounts_the_console_behind_its_own_authentication() {
    let store = Store::new();
    let layer = IdempotencyLayer::new(store.engine.clone());
    let operators_only =
        from_fn(async |request: Request, next: Next| match request.headers().get(AUTHORIZATION) {
            Some(_) => next.run(request).await,
            None => http::StatusCode::UNAUTHORIZED.into_response(),
        });
    let router = Admin::new(layer).console().router(operators_only);
    let app = Router::new().nest("/admin/idempotency", router);
    let get = |path: &'static str, known: bool| {
        let request = Request::builder().uri(path);
        let request = if known { request.header(AUTHORIZATION, "yes") } else { request };
        app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    assert_eq!(get("/admin/idempotency/console/", false).await.unwrap().status(), 401);
    let page = get("/admin/idempotency/console/", true).await.unwrap();
    let text = to_bytes(page.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains("data-login=\"own\"") && text.contains("data-api=\"../api/v1/\""));
    let beside = get("/admin/idempotency/api/v1/info", true).await.unwrap();
    assert_eq!(beside.status(), 200, "where the page looks for it");
    // Without the slash the relative URLs of the page would lead elsewhere.
    let redirect = get("/admin/idempotency/console", true).await.unwrap();
    assert_eq!(
        (redirect.status().as_u16(), &redirect.headers()["location"]),
        (307, &"console/".parse().unwrap())
    );
}

#[tokio::test]
async fn keys_are_listed_a_page_at_a_time_and_picked() {
    let desk = desk(|admin, _| admin);
    let engine = &desk.store.engine;
    for number in 0..7 {
        let key = Key::new("a b", format!("order-{number}")).unwrap();
        let begun = engine.begin(&key, Fingerprint::builder().finish()).await.unwrap();
        let Begin::Claimed(claim) = begun else { panic!("{begun:?}") };
        let response =
            StoredResponse::new(http::StatusCode::CREATED, &http::HeaderMap::new(), "body");
        claim.complete(&response.encode().unwrap()).await.unwrap();
    }
    desk.orphan("lost").await;
    let (mut met, mut after) = (Vec::new(), String::new());
    loop {
        let page = desk.get(&format!("keys/list?limit=3{after}")).await.json();
        met.extend(page["keys"].as_array().unwrap().clone());
        match page["after"].as_str() {
            Some(place) => after = format!("&after={place}"),
            None => break,
        }
    }
    assert_eq!(met.len(), 8);
    let completed = met.iter().find(|key| key["key"] == "order-3").unwrap();
    assert_eq!((&completed["scope"], &completed["state"]), (&json!("a%20b"), &json!("completed")));
    assert_eq!(completed["response"], json!({ "status": 201, "bodyBytes": 4 }));
    for (query, count) in [
        ("state=completed", 7),
        ("state=orphaned", 1),
        ("state=inFlight", 0),
        ("scope=a%20b&prefix=order-", 7),
        ("scope=t", 1),
        ("prefix=x", 0),
    ] {
        let page = desk.get(&format!("keys/list?{query}")).await.json();
        assert_eq!(page["keys"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(page["after"], Value::Null);
    }
    for bad in ["state=lost", "after=7", "limit=many"] {
        let refused = desk.get(&format!("keys/list?{bad}")).await;
        assert_eq!(refused.refused(), (400, "invalid".to_owned()), "{bad}");
    }
    engine.fold().unwrap();
    let expiry = desk.get("expiry").await.json();
    let records =
        expiry.as_array().unwrap().iter().map(|bucket| bucket["records"].as_u64().unwrap());
    // A database keeps an entry for the orphan too.
    assert_eq!(records.sum::<u64>(), if postgres::is_chosen() { 8 } else { 7 });
}
