//! The calls of operators below `/api/v1`: their rights, their answers, and the audit log.

mod access;
mod console;
mod keys;
mod orphans;
mod socket;
mod upkeep;

use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use http::Method;
use http::header::HOST;
use oncekey::{Begin, Fingerprint, Key};
use oncekey_http::{Access, Admin, IdempotencyLayer};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::Store;

/// A guarded router over a store, with files of its own.
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) router: Router,
    pub(crate) directory: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the code of a refusal.
    pub(crate) fn refused(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap().to_owned())
    }
}

pub(crate) fn desk(configure: impl FnOnce(Admin, &Path) -> Admin) -> Desk {
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
    pub(crate) fn token(&self, role: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(role)).unwrap().trim().to_owned()
    }

    pub(crate) async fn send(
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

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token("operator"));
        self.send(Method::GET, path, &[("authorization", &bearer)], Value::Null).await
    }

    pub(crate) async fn post(&self, role: &str, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {}", self.token(role));
        let headers = [("authorization", &bearer[..]), ("content-type", "application/json")];
        self.send(Method::POST, path, &headers, body).await
    }

    /// Leaves an orphan with a checkpoint behind, and returns it as it is listed.
    pub(crate) async fn orphan(&self, key: &str) -> Value {
        let key = Key::new("t", key).unwrap();
        let begun = self.store.engine.begin(&key, Fingerprint::builder().finish()).await.unwrap();
        let Begin::Claimed(claim) = begun else { panic!("{begun:?}") };
        claim.checkpoint(b"\0saved").await.unwrap();
        drop(claim);
        // No caller is told when the drop of a claim is done.
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

    pub(crate) fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.directory.path().join("audit")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}
