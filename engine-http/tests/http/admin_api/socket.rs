//! The control socket, and an engine without a layer behind it.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use oncekey_http::{Admin, ControlSocket, IdempotencyLayer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::support::Store;

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
async fn health_needs_no_token_and_says_why_no_request_should_come() {
    let store = Store::new();
    let well = Admin::new(IdempotencyLayer::new(store.engine.clone()));
    let unwell = well.clone().unready(|| Some("draining"));
    let draining = json!({ "reason": "draining" });
    for (admin, path, status, body) in [
        (&well, "/healthz", 200, json!({})),
        (&well, "/readyz", 200, json!({})),
        (&unwell, "/healthz", 200, json!({})),
        (&unwell, "/readyz", 503, draining),
    ] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let router = admin.clone().guarded(oncekey_http::Access::new());
        let answer = router.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let said = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&said).unwrap(), body, "{path}");
    }
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

/// A path to a directory, from that of the process.
fn relative(directory: &std::path::Path) -> std::path::PathBuf {
    let up: std::path::PathBuf =
        std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    std::path::Path::join(&up, directory.strip_prefix("/").unwrap())
}

/// The process may change its directory, and others have another one.
#[tokio::test]
async fn relative_paths_are_kept_from_the_root() {
    let directory = tempfile::tempdir().unwrap();
    let engine = oncekey::Engine::open(directory.path().join("keys")).unwrap();
    let here = relative(directory.path());
    let whole = |name: &str| std::path::absolute(here.join(name)).unwrap();
    let admin = Admin::without_layer(engine).backups(here.join("backups"));
    let router =
        admin.clone().router(axum::middleware::map_request(async |request: Request| request));
    let request = Request::post("/backups").header("content-type", "application/json");
    let request = request.body(Body::from(json!({"name": "one"}).to_string())).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    let said = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said["path"], whole("backups/one").display().to_string());
    let socket = admin.control_socket(here.join("socket")).unwrap();
    assert_eq!(socket.path(), whole("socket"));
    let noted = oncekey::owner(directory.path().join("keys")).unwrap();
    assert_eq!(String::from_utf8(noted).unwrap(), ControlSocket::note(&whole("socket")));
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
