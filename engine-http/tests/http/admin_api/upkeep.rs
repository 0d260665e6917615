//! Statistics, backups, and the additions of an embedder.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use oncekey_http::{Admin, IdempotencyLayer};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::desk;
use crate::support::left_out;

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
async fn backups_are_jobs() {
    if left_out("backup of the engine") {
        return;
    }
    // The engine writes to a disk in memory, so the test lists its files by hand.
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
