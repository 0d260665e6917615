//! The presets of the contract, each over a socket, and every field that can be changed.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use oncekey_http::{Contract, IdempotencyLayer, KeyForm, Methods, Policy, Refusals};

use crate::support::{Gate, KEY, Reply, Server, Store, channel_body, response};

/// `/slow` waits at the gate, `/panic` panics, `/stream` streams; everything else answers.
async fn handler(request: Request, gate: Gate) -> Response {
    match request.uri().path() {
        "/slow" => gate.pass().await,
        "/panic" => panic!("this panic is part of the test"),
        "/stream" => {
            let (sender, body) = channel_body::<std::io::Error>();
            sender.send(Ok("one".into())).unwrap();
            let mut answer = response(200, body);
            answer.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            return answer;
        }
        _ => {}
    }
    let mut answer = response(201, "created");
    answer.headers_mut().insert("idempotent-replayed", "never".parse().unwrap());
    answer
}

struct Preset {
    server: Arc<Server>,
    gate: Gate,
    header: HeaderName,
    refusals: Refusals,
}

impl Preset {
    async fn start(contract: Contract) -> Self {
        let gate = Gate::new();
        let passing = gate.clone();
        let header = contract.headers[0].clone();
        let refusals = contract.refusals;
        let policy = Policy::new().required(true).max_request_body(1000);
        let configure = |layer: IdempotencyLayer| layer.contract(contract).policy(policy);
        let server =
            Server::with(Store::new(), configure, move |request| handler(request, passing.clone()));
        Self { server: Arc::new(server.await), gate, header, refusals }
    }

    async fn send(&self, target: &str, keys: &[&str], body: &str) -> Reply {
        self.try_send(target, keys, body).await.unwrap()
    }

    async fn try_send(
        &self,
        target: &str,
        keys: &[&str],
        body: &str,
    ) -> Result<Reply, hyper_util::client::legacy::Error> {
        let mut request = self.server.request(Method::POST, target);
        for key in keys {
            request = request.header(&self.header, *key);
        }
        self.server.send(request, body.to_owned()).await
    }

    /// Provokes every refusal, and returns their statuses in the order of the fields of `Statuses`.
    async fn refusals(&self) -> Vec<u16> {
        let invalid = self.send("/", &["a", "b"], "").await;
        let missing = self.send("/", &[], "").await;
        let too_large = self.send("/", &["large"], &"x".repeat(1001)).await;

        let unreadable = format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{}: k\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nno number\r\n",
            self.header
        );
        let unreadable = self.server.raw(unreadable.as_bytes()).await;
        let unreadable = String::from_utf8(unreadable).unwrap();
        assert!(unreadable.contains("idempotency_body_unreadable"), "{unreadable}");

        let first = {
            let (server, header) = (self.server.clone(), self.header.clone());
            let request = server.request(Method::POST, "/slow").header(header, "slow");
            tokio::spawn(async move { server.send(request, "").await.unwrap() })
        };
        self.gate.entered().await;
        let locked = self.send("/slow", &["slow"], "").await;
        self.gate.open(1);
        first.await.unwrap();
        let mismatch = self.send("/slow", &["slow"], "other").await;

        assert!(self.try_send("/panic", &["panic"], "").await.is_err());
        let unknown = self.send("/panic", &["panic"], "").await;
        let request = self.server.request(Method::POST, "/stream").header(&self.header, "stream");
        let streaming = self.server.open(request).await;
        let not_stored = self.send("/stream", &["stream"], "").await;
        drop(streaming);
        self.server.store.engine.close().unwrap();
        let unavailable = self.send("/", &["new"], "").await;

        let mut statuses = Vec::new();
        for (reply, code) in [
            (invalid, "idempotency_key_invalid"),
            (missing, "idempotency_key_missing"),
            (too_large, "idempotency_body_too_large"),
            (locked, "idempotency_key_locked"),
            (mismatch, "idempotency_key_mismatch"),
            (unknown, "idempotency_outcome_unknown"),
            (not_stored, "idempotency_response_not_stored"),
            (unavailable, "idempotency_store_unavailable"),
        ] {
            match self.refusals {
                Refusals::StripeErrors => assert_stripe_error(&reply, code),
                _ => reply.assert_problem(reply.status, code),
            }
            statuses.push(reply.status);
        }
        let unreadable = unreadable.split(' ').nth(1).unwrap().parse().unwrap();
        statuses.insert(3, unreadable);
        statuses
    }
}

/// A refusal as Stripe's clients read it.
fn assert_stripe_error(reply: &Reply, code: &str) {
    assert_eq!(reply.headers["content-type"], "application/json", "{reply:?}");
    let (kind, stripes, retry) = match code {
        "idempotency_key_locked" => ("idempotency_error", "idempotency_key_in_use", "true"),
        "idempotency_store_unavailable" => ("api_error", code, "true"),
        "idempotency_key_mismatch"
        | "idempotency_outcome_unknown"
        | "idempotency_response_not_stored" => ("idempotency_error", code, "false"),
        _ => ("invalid_request_error", code, "false"),
    };
    let error = &reply.json()["error"];
    assert_eq!((error["type"].as_str(), error["code"].as_str()), (Some(kind), Some(stripes)));
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert_eq!(reply.headers["stripe-should-retry"], retry);
}

#[tokio::test]
async fn the_statuses_of_the_default() {
    let preset = Preset::start(Contract::default()).await;
    assert_eq!(preset.header, KEY);
    assert_eq!(preset.refusals().await, [400, 400, 413, 400, 409, 409, 409, 409, 503]);
}

#[tokio::test]
async fn the_statuses_of_the_ietf_draft() {
    let preset = Preset::start(Contract::ietf()).await;
    assert_eq!(preset.header, "idempotency-key");
    assert_eq!(preset.refusals().await, [400, 400, 413, 400, 409, 422, 409, 409, 503]);
}

#[tokio::test]
async fn the_statuses_of_stripe() {
    let preset = Preset::start(Contract::stripe()).await;
    assert_eq!(preset.header, "idempotency-key");
    assert_eq!(preset.refusals().await, [400, 400, 413, 400, 409, 400, 409, 409, 503]);
}

#[tokio::test]
async fn every_status_can_be_changed() {
    let mut contract = Contract::default();
    let statuses = &mut contract.statuses;
    let fields = [
        &mut statuses.key_invalid,
        &mut statuses.key_missing,
        &mut statuses.body_too_large,
        &mut statuses.body_unreadable,
        &mut statuses.locked,
        &mut statuses.mismatch,
        &mut statuses.outcome_unknown,
        &mut statuses.response_not_stored,
        &mut statuses.store_unavailable,
    ];
    for (status, field) in (450..).zip(fields) {
        *field = StatusCode::from_u16(status).unwrap();
    }
    let preset = Preset::start(contract).await;
    assert_eq!(preset.refusals().await, (450..459).collect::<Vec<_>>());
}

/// Without a marker, as in the default and the draft, a replay is the same in every header.
#[tokio::test]
async fn only_stripe_marks_replays() {
    for contract in [Contract::default(), Contract::ietf()] {
        let preset = Preset::start(contract).await;
        let first = preset.send("/", &["k"], "").await;
        preset.send("/", &["k"], "").await.assert_same(&first);
        assert_eq!(preset.server.runs(), 1);
    }
    let preset = Preset::start(Contract::stripe()).await;
    let first = preset.send("/", &["k"], "").await;
    assert_eq!(first.headers["idempotent-replayed"], "never");
    for _ in 0..2 {
        let mut replay = preset.send("/", &["k"], "").await;
        let marks: Vec<_> = replay.headers.get_all("idempotent-replayed").iter().collect();
        assert_eq!(marks, ["true"]);
        // The marker stands at the end or where the handler's stood; nothing else differs.
        replay.headers.insert("idempotent-replayed", HeaderValue::from_static("never"));
        replay.assert_same(&first);
    }
    // A refusal is no replay.
    let mismatch = preset.send("/", &["k"], "other").await;
    assert!(!mismatch.headers.contains_key("idempotent-replayed"));
    assert_eq!(preset.server.runs(), 1);
}

#[tokio::test]
async fn stripe_knows_keys_on_post_alone() {
    let preset = Preset::start(Contract::stripe()).await;
    for (method, runs) in [(Method::DELETE, 2), (Method::PUT, 4), (Method::POST, 5)] {
        for _ in 0..2 {
            let request = preset.server.request(method.clone(), "/").header(&preset.header, "k");
            assert_eq!(preset.server.send(request, "").await.unwrap().status, 201);
        }
        assert_eq!(preset.server.runs(), runs, "{method}");
    }
}

#[tokio::test]
async fn the_ietf_preset_takes_quoted_strings() {
    let preset = Preset::start(Contract::ietf()).await;
    let longest = "k".repeat(255);
    for (spellings, runs) in [
        (vec![r#""k-1""#.to_owned(), "k-1".to_owned(), r#" "k-1" "#.to_owned()], 1),
        (vec![format!("\"{longest}\""), longest], 2),
        (vec![r#""a \"b\" \\""#.to_owned()], 3),
    ] {
        let first = preset.send("/", &[&spellings[0]], "").await;
        assert_eq!(first.status, 201);
        for spelling in &spellings {
            preset.send("/", &[spelling], "").await.assert_same(&first);
        }
        assert_eq!(preset.server.runs(), runs, "{spellings:?}");
    }
    let key = oncekey::Key::new("", r#"a "b" \"#).unwrap();
    let stored = preset.server.store.engine.get(&key).unwrap();
    assert!(matches!(stored, oncekey::Lookup::Completed(_)), "{stored:?}");

    let too_long = "k".repeat(256);
    let quoted = format!("\"{too_long}\"");
    for bad in [&quoted, &too_long, r#""k"#, r#"""#, r#""""#, r#"" ""#, r#""k";a"#, r#""\k""#] {
        preset.send("/", &[bad], "").await.assert_problem(400, "idempotency_key_invalid");
    }
    preset.send("/", &[r#""a""#, "a"], "").await.assert_problem(400, "idempotency_key_invalid");
    assert_eq!(preset.server.runs(), 3);
}

#[tokio::test]
async fn the_default_takes_quotes_as_they_are() {
    let preset = Preset::start(Contract::default()).await;
    for (run, key) in ["k", r#""k""#, r#""k"#].into_iter().enumerate() {
        assert_eq!(preset.send("/", &[key], "").await.status, 201);
        assert_eq!(preset.server.runs(), run + 1);
    }
}

#[tokio::test]
async fn refusals_can_point_to_a_documentation() {
    let mut contract = Contract::ietf();
    assert_eq!(contract.documentation, None);
    contract.documentation = Some("https://example.org/keys?a=\"b\"".to_owned());
    let preset = Preset::start(contract).await;
    let missing = preset.send("/", &[], "").await;
    assert_eq!(missing.json()["type"], "https://example.org/keys?a=\"b\"");
    assert_eq!(missing.json()["title"], "Bad Request");
}

#[tokio::test]
async fn fields_of_a_preset_can_be_changed() {
    let mut contract = Contract::stripe();
    contract.headers = vec![HeaderName::from_static("x-request-id")];
    contract.key_form = KeyForm::StringOrVerbatim;
    contract.methods = Methods::Unsafe;
    contract.replay_marker = None;
    let preset = Preset::start(contract).await;
    let request = || preset.server.request(Method::DELETE, "/");
    let first = preset.server.send(request().header("x-request-id", "k"), "").await.unwrap();
    let retry = preset.server.send(request().header("x-request-id", "\"k\""), "").await.unwrap();
    retry.assert_same(&first);
    assert_eq!(preset.server.runs(), 1);
}
