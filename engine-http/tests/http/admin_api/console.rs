//! The page of the console, and where it is mounted.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::header::{AUTHORIZATION, HOST};
use oncekey_http::{Admin, IdempotencyLayer};
use tower::ServiceExt;

use super::desk;
use crate::support::Store;

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
