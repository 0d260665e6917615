//! The rights of each role, and the proofs that a browser must show.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http::Method;
use http::header::{COOKIE, SET_COOKIE};
use oncekey_http::{Admin, Caller, IdempotencyLayer};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::desk;
use crate::support::Store;

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
