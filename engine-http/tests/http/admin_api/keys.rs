//! Keys and their responses.

use http::Method;
use http::header::CONTENT_TYPE;
use oncekey::{Begin, Fingerprint, Key};
use oncekey_http::StoredResponse;
use oncekey_testing::postgres;
use serde_json::{Value, json};

use super::desk;

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
