//! Panics, clients that go away, stores that fail, attempts that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use oncekey::{Fingerprint, Key};
use oncekey_http::{
    Attempt, CheckpointError, IdempotencyLayer, NotExecuted, NotStored, OutcomeUnknown, Policy,
    Recovery,
};
use oncekey_testing::{Fault, HeldDisk, OpKind, SimDisk};
use tokio::io::AsyncWriteExt;

use crate::support::{Gate, KEY, Server, Store, channel_body, left_out, response};

/// Fails until it is cleared, on the segment that the journal writes to: others are being prepared
/// by another thread at the same time.
fn journal_fails(kind: OpKind) -> Fault {
    Fault::at_kind(kind, 0).on_path("journal-0000.seg").errno(Fault::EIO).forever()
}

async fn created(_: Request) -> Response {
    response(201, "created")
}

/// A client that is told *outcome unknown* may ask again at once, of any process.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_unknown_waits_until_that_is_durable() {
    for panics in [false, true] {
        let held = HeldDisk::new(SimDisk::new(), "journal");
        let disk = held.clone();
        let gate = Gate::new();
        let passing = gate.clone();
        let store = Store::with(|options| options.disk(Arc::new(disk)));
        let server = Server::with(
            store,
            |layer| layer,
            move |_| {
                let gate = passing.clone();
                async move {
                    gate.pass().await;
                    assert!(!panics, "the handler fails");
                    let mut response = response(502, "it broke off");
                    response.extensions_mut().insert(OutcomeUnknown);
                    response
                }
            },
        );
        let server = Arc::new(server.await);
        server.store.engine.sweep().unwrap();
        let asked = server.clone();
        let answer = tokio::spawn(async move {
            let request = asked.request(http::Method::POST, "/orders").header(KEY, "k");
            asked.send(request, "a").await.map(|reply| reply.status).ok()
        });
        gate.entered().await;
        held.hold();
        gate.open(1);
        held.wait_for_sync();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let told_before = answer.is_finished();
        held.release();
        assert!(!told_before, "told before it is so");
        assert_eq!(answer.await.unwrap(), (!panics).then_some(502));
        server.post("k", "a").await.assert_problem(409, "idempotency_outcome_unknown");
    }
}

/// The connection breaks as it does without the layer, and the state of the key is known at once.
#[tokio::test]
async fn after_a_panic_the_outcome_is_unknown() {
    let server = Server::start(|request: Request| async move {
        assert_eq!(request.uri().path(), "/fine", "this panic is part of the test");
        response(200, "")
    })
    .await;
    for key in ["k-1", "k-2"] {
        let request = server.request(http::Method::POST, "/orders").header(KEY, key);
        assert!(server.send(request, "body").await.is_err(), "the connection is closed");
        server.post(key, "body").await.assert_problem(409, "idempotency_outcome_unknown");
        server.post(key, "other").await.assert_problem(409, "idempotency_key_mismatch");
    }
    assert_eq!(server.runs(), 2);
    assert_eq!(server.layer.stats().abandoned, 2);
    assert_eq!(server.store.engine.orphans().unwrap().len(), 2);
}

/// An `Attempt` that outlives its handler does not keep the claim alive.
#[tokio::test]
async fn after_a_panic_the_key_is_not_locked_by_what_the_handler_left_behind() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |request: Request| {
        sender.send(request.extensions().get::<Attempt>().unwrap().clone()).unwrap();
        async { panic!("this panic is part of the test") }
    })
    .await;
    let request = server.request(http::Method::POST, "/orders").header(KEY, "k");
    assert!(server.send(request, "").await.is_err());
    let attempt = receiver.recv().await.unwrap();
    server.post("k", "").await.assert_problem(409, "idempotency_outcome_unknown");
    assert_eq!((attempt.number(), server.runs()), (1, 1));
}

#[tokio::test]
async fn after_a_response_body_that_fails_the_outcome_is_unknown() {
    let server = Server::start(|_| async {
        let (sender, body) = channel_body();
        sender.send(Ok("half".into())).unwrap();
        sender.send(Err(std::io::Error::other("the disk is gone"))).unwrap();
        response(200, body)
    })
    .await;
    let request =
        format!("POST /orders HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nContent-Length: 0\r\n\r\n");
    let answer = server.raw(request.as_bytes()).await;
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", answer.escape_ascii());
    server.post("k", "").await.assert_problem(409, "idempotency_outcome_unknown");
    assert_eq!(server.runs(), 1);
}

/// `OutcomeUnknown` wins over every other marker of the response.
/// The server breaks the connection off, so that the client does not take the rest of another response for the body.
#[tokio::test]
async fn after_a_response_body_of_another_length_than_announced_the_outcome_is_unknown() {
    for (status, announced, unknown) in
        [(200, "5", false), (200, "6", true), (200, "4", true), (304, "6", false)]
    {
        let server = Server::start(move |_| async move {
            let mut answer = response(status, if status == 304 { "" } else { "hello" });
            answer.headers_mut().insert("content-length", announced.parse().unwrap());
            answer
        })
        .await;
        let request =
            format!("POST /orders HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nConnection: close\r\n\r\n");
        let first = server.raw(request.as_bytes()).await;
        let retry = server.raw(request.as_bytes()).await;
        let code = b"idempotency_outcome_unknown";
        let told = retry.windows(code.len()).any(|part| part == code);
        assert_eq!(told, unknown, "{}", retry.escape_ascii());
        if announced == "6" && unknown {
            assert_eq!(first, b"", "{}", first.escape_ascii());
        }
        assert_eq!((server.runs(), server.layer.stats().abandoned), (1, u64::from(unknown)));
    }
}

#[tokio::test]
async fn after_a_response_that_says_so_the_outcome_is_unknown() {
    for (status, path) in [(502, "/plain"), (401, "/free"), (200, "/stream")] {
        let server = Server::start(move |request: Request| async move {
            let mut answer = response(status, "the upstream broke off");
            answer.extensions_mut().insert(OutcomeUnknown);
            match request.uri().path() {
                "/free" => drop(answer.extensions_mut().insert(NotExecuted)),
                "/stream" => drop(answer.extensions_mut().insert(NotStored)),
                _ => {}
            }
            answer
        })
        .await;
        let post = async || {
            let request = server.request(Method::POST, path).header(KEY, "k");
            server.send(request, "").await.unwrap()
        };
        let first = post().await;
        assert_eq!((first.status, &first.body[..]), (status, &b"the upstream broke off"[..]));
        post().await.assert_problem(409, "idempotency_outcome_unknown");
        assert_eq!((server.runs(), server.layer.stats().abandoned), (1, 1));
        assert_eq!(server.store.engine.orphans().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_the_handler() {
    let (server, gate) = Server::gated(Policy::new()).await;
    let mut stream = server.connect().await;
    let request =
        format!("POST /orders HTTP/1.1\r\nHost: x\r\n{KEY}: k\r\nContent-Length: 4\r\n\r\nbody");
    stream.write_all(request.as_bytes()).await.unwrap();
    gate.entered().await;
    drop(stream);
    server.cancelled().await;
    assert_eq!(server.layer.stats().running, 1);
    server.post("k", "body").await.assert_problem(409, "idempotency_key_locked");
    gate.open(1);
    server.layer.drained().await;
    assert_eq!(server.layer.stats().running, 0);
    let retry = server.post("k", "body").await;
    assert_eq!((retry.status, &retry.body[..]), (201, &b"created"[..]));
    assert_eq!(server.runs(), 1);
}

#[tokio::test]
async fn when_the_store_is_unavailable_nothing_runs() {
    if left_out("disk of the test's own") {
        return;
    }
    let server = Server::start(created).await;
    let stored = server.post("stored", "").await;
    server.store.disk.inject(journal_fails(OpKind::Sync));
    for _ in 0..2 {
        let reply = server.post("k", "").await;
        reply.assert_problem(503, "idempotency_store_unavailable");
        assert_eq!(reply.headers["retry-after"], "1");
    }
    server.post("another", "").await.assert_problem(503, "idempotency_store_unavailable");
    assert_eq!((server.runs(), server.layer.stats().store_unavailable), (1, 3));
    // Stored responses are replayed all the same, and requests without a key are served.
    server.post("stored", "").await.assert_same(&stored);
    let request = server.request(http::Method::POST, "/orders");
    assert_eq!(server.send(request, "").await.unwrap().status, 201);

    server.store.disk.clear_faults();
    server.store.engine.reopen().unwrap();
    // The claim may have reached the disk, and the engine cannot know that no handler used it.
    server.post("k", "").await.assert_problem(409, "idempotency_outcome_unknown");
    assert_eq!(server.post("another", "").await.status, 201);
    server.post("stored", "").await.assert_same(&stored);
}

#[tokio::test]
async fn when_the_store_is_closed_nothing_runs() {
    let server = Server::start(created).await;
    server.store.engine.close().unwrap();
    server.post("k", "").await.assert_problem(503, "idempotency_store_unavailable");
    assert_eq!(server.runs(), 0);
}

/// A server whose store fails while the handler runs, and the response that it sent.
async fn response_not_recorded(failing: OpKind) -> Server {
    let (server, gate) = Server::gated(Policy::new()).await;
    let first = server.post_later("k", "");
    gate.entered().await;
    server.store.disk.inject(journal_fails(failing));
    gate.open(1);
    let first = first.await.unwrap();
    assert_eq!((first.status, &first.body[..]), (201, &b"created"[..]));
    assert_eq!(server.layer.stats().complete_failed, 1);
    server.post("k", "").await.assert_problem(503, "idempotency_store_unavailable");
    server.store.disk.clear_faults();
    server.store.engine.reopen().unwrap();
    Arc::into_inner(server).unwrap()
}

#[tokio::test]
async fn a_response_that_was_not_recorded_is_sent_and_then_unknown() {
    if left_out("disk of the test's own") {
        return;
    }
    let server = response_not_recorded(OpKind::Write).await;
    server.post("k", "").await.assert_problem(409, "idempotency_outcome_unknown");
    assert_eq!(server.runs(), 1);
}

/// The write reached the disk, but its sync failed.
#[tokio::test]
async fn a_response_that_was_recorded_after_all_is_replayed() {
    if left_out("disk of the test's own") {
        return;
    }
    let server = response_not_recorded(OpKind::Sync).await;
    let retry = server.post("k", "").await;
    assert_eq!((retry.status, &retry.body[..]), (201, &b"created"[..]));
    assert_eq!(server.runs(), 1);
}

/// Another caller stores other things under the same keys.
#[tokio::test]
async fn a_stored_response_that_can_not_be_decoded_is_not_executed_again() {
    let server = Server::start(created).await;
    let key = Key::new("", "k").unwrap();
    let fingerprint = Fingerprint::builder()
        .part("method", "POST")
        .part("target", "/orders")
        .part("authority", "x")
        .part("body", "")
        .finish();
    let begin = server.store.engine.begin(&key, fingerprint).wait().unwrap();
    let oncekey::Begin::Claimed(claim) = begin else { panic!("the key is new") };
    claim.complete(b"not a response").wait().unwrap();
    server.post("k", "").await.assert_problem(409, "idempotency_response_not_stored");
    assert_eq!((server.runs(), server.layer.stats().undecodable), (0, 1));
}

fn retrying(layer: IdempotencyLayer) -> IdempotencyLayer {
    layer.policy(Policy::new().recovery(Recovery::Retry))
}

/// A handler that saves a checkpoint and panics, until its third attempt.
#[tokio::test]
async fn with_retry_a_dead_attempt_is_taken_over_with_its_checkpoint() {
    let server = Server::with(Store::new(), retrying, |request: Request| async move {
        let attempt = request.extensions().get::<Attempt>().unwrap().clone();
        let number = attempt.number();
        if number < 3 {
            let before = attempt.checkpoint().unwrap();
            let before = before.map(|data| data.to_vec()).unwrap_or_default();
            attempt.save_checkpoint(&[&before[..], b"+"].concat()).await.unwrap();
            panic!("attempt {number} is meant to panic");
        }
        response(201, attempt.checkpoint().unwrap().unwrap().to_vec())
    })
    .await;
    for _ in 0..2 {
        let request = server.request(http::Method::POST, "/orders").header(KEY, "k");
        assert!(server.send(request, "").await.is_err());
    }
    let third = server.post("k", "").await;
    assert_eq!((third.status, &third.body[..]), (201, &b"++"[..]));
    server.post("k", "").await.assert_same(&third);
    assert_eq!(server.runs(), 3);
}

/// An attempt that took over cannot vouch for the one before it.
#[tokio::test]
async fn with_retry_not_executed_leaves_the_outcome_unknown() {
    let runs = Arc::new(AtomicUsize::new(0));
    let server = Server::with(Store::new(), retrying, move |request: Request| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        async move {
            let number = request.extensions().get::<Attempt>().unwrap().number() as usize;
            assert_eq!(number, run + 1);
            assert_ne!(number, 1, "the first attempt is meant to panic");
            let mut answer = response(503, "closed");
            answer.extensions_mut().insert(NotExecuted);
            answer
        }
    })
    .await;
    let request = server.request(http::Method::POST, "/orders").header(KEY, "k");
    assert!(server.send(request, "").await.is_err());
    for _ in 0..2 {
        assert_eq!(server.post("k", "").await.status, 503);
    }
    assert_eq!(server.store.engine.orphans().unwrap().len(), 1);
    assert_eq!(server.runs(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_retry_one_of_many_takes_over() {
    let server = Server::with(Store::new(), retrying, |request: Request| async move {
        let attempt = request.extensions().get::<Attempt>().unwrap();
        assert_ne!(attempt.number(), 1, "the first attempt is meant to panic");
        response(201, "created")
    })
    .await;
    let server = Arc::new(server);
    for round in 0..20 {
        let key = format!("k-{round}");
        let request = server.request(http::Method::POST, "/orders").header(KEY, &key);
        assert!(server.send(request, "").await.is_err());
        let retries: Vec<_> = (0..8).map(|_| server.post_later(&key, "")).collect();
        for retry in retries {
            let reply = retry.await.unwrap();
            if reply.status != 201 {
                reply.assert_problem(409, "idempotency_key_locked");
            }
        }
        assert_eq!(server.runs(), 2 * (round + 1));
    }
}

#[tokio::test]
async fn an_attempt_that_has_answered_saves_no_checkpoint() {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |request: Request| {
        sender.send(request.extensions().get::<Attempt>().unwrap().clone()).unwrap();
        async { response(201, "created") }
    })
    .await;
    assert_eq!(server.post("k", "").await.status, 201);
    let attempt = receiver.recv().await.unwrap();
    assert_eq!(attempt.number(), 1);
    assert!(matches!(attempt.checkpoint(), Err(CheckpointError::Ended)));
    let error = attempt.save_checkpoint(b"too late").await.unwrap_err();
    assert!(matches!(error, CheckpointError::Ended));
}
