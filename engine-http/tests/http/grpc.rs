//! Calls of gRPC with a key, from a real client.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use http::uri::PathAndQuery;
use oncekey_http::{IdempotencyLayer, NotExecuted, Policy};
use tonic::{Code, Status};

use crate::support::{Gate, Server, Store};
use crate::text::{Text, refused, request};

/// The words of a request, one message each.
struct Words(std::vec::IntoIter<String>);

impl futures_core::Stream for Words {
    type Item = Result<String, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next().map(Ok))
    }
}

#[derive(Clone)]
struct Service {
    runs: Arc<AtomicUsize>,
    gate: Gate,
}

impl Service {
    async fn echo(
        self,
        request: tonic::Request<String>,
    ) -> Result<tonic::Response<String>, Status> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        match request.get_ref().as_str() {
            "slow" => self.gate.pass().await,
            "panic" => panic!("this panic is part of the test"),
            "who" => return Err(Status::unauthenticated("who are you?")),
            "broken" => return Err(Status::internal(format!("run {run} broke"))),
            _ => {}
        }
        let mut response = tonic::Response::new(format!("run {run}: {}", request.get_ref()));
        response.metadata_mut().insert("x-run", run.into());
        if request.get_ref() == "nothing" {
            response.extensions_mut().insert(NotExecuted);
        }
        Ok(response)
    }

    async fn words(
        self,
        request: tonic::Request<String>,
    ) -> Result<tonic::Response<Words>, Status> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let words: Vec<_> = request.get_ref().split(' ').map(str::to_owned).collect();
        Ok(tonic::Response::new(Words(words.into_iter())))
    }
}

struct Calls {
    server: Server,
    service: Service,
    client: tonic::client::Grpc<tonic::transport::Channel>,
}

impl Calls {
    async fn start(policy: Policy) -> Self {
        let service = Service { runs: Arc::default(), gate: Gate::new() };
        let (unary, streaming) = (service.clone(), service.clone());
        let store = Store::new();
        let layer = IdempotencyLayer::new(store.engine.clone()).policy(policy);
        let app = Router::new()
            .route(
                "/test.Echo/Echo",
                any(move |request: Request| {
                    let service = unary.clone();
                    async move {
                        let call = tower::service_fn(move |r| service.clone().echo(r));
                        tonic::server::Grpc::new(Text).unary(call, request).await
                    }
                }),
            )
            .route(
                "/test.Echo/Words",
                any(move |request: Request| {
                    let service = streaming.clone();
                    async move {
                        let call = tower::service_fn(move |r| service.clone().words(r));
                        tonic::server::Grpc::new(Text).server_streaming(call, request).await
                    }
                }),
            )
            .layer(layer.clone());
        let server = Server::serve(store, layer, app).await;
        let endpoint = tonic::transport::Endpoint::new(format!("http://{}", server.address));
        let client = tonic::client::Grpc::new(endpoint.unwrap().connect().await.unwrap());
        Self { server, service, client }
    }

    async fn call(&self, key: &str, text: &str) -> Result<tonic::Response<String>, Status> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Echo/Echo");
        client.unary(request(key, text.to_owned()), path, Text).await
    }

    /// The messages of a streaming call.
    async fn stream(&self, key: &str, text: &str) -> Result<Vec<String>, Status> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/test.Echo/Words");
        let mut stream =
            client.server_streaming(request(key, text.to_owned()), path, Text).await?.into_inner();
        let mut words = Vec::new();
        while let Some(word) = stream.message().await? {
            words.push(word);
        }
        Ok(words)
    }

    fn runs(&self) -> usize {
        self.service.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_retried_unary_call_gets_the_first_message_and_status() {
    let calls = Calls::start(Policy::new()).await;
    let first = calls.call("k", "hello").await.unwrap();
    assert_eq!(first.get_ref(), "run 1: hello");
    for _ in 0..2 {
        let again = calls.call("k", "hello").await.unwrap();
        assert_eq!(again.get_ref(), first.get_ref());
        assert_eq!(again.metadata().get("x-run"), first.metadata().get("x-run"));
    }
    assert_eq!(calls.runs(), 1);
    // Without a key each call runs.
    calls.call("", "hello").await.unwrap();
    assert_eq!(calls.runs(), 2);
    refused(calls.call("k", "other").await, Code::AlreadyExists, "idempotency_key_mismatch: ");
    assert_eq!(calls.runs(), 2);
}

#[tokio::test]
async fn a_duplicate_is_aborted_with_a_hint_when_to_retry() {
    let calls = Arc::new(Calls::start(Policy::new()).await);
    let first = tokio::spawn({
        let calls = calls.clone();
        async move { calls.call("k", "slow").await }
    });
    calls.service.gate.entered().await;
    let duplicate = calls.call("k", "slow").await;
    let pushback = duplicate.as_ref().unwrap_err().metadata().get("grpc-retry-pushback-ms");
    let pushback: u64 = pushback.unwrap().to_str().unwrap().parse().unwrap();
    assert!((100..=500).contains(&pushback), "{pushback}");
    refused(duplicate, Code::Aborted, "idempotency_key_locked: ");
    calls.service.gate.open(1);
    assert_eq!(first.await.unwrap().unwrap().get_ref(), "run 1: slow");
    assert_eq!(calls.call("k", "slow").await.unwrap().get_ref(), "run 1: slow");
}

#[tokio::test]
async fn an_unknown_outcome_and_an_unstored_stream_are_failed_preconditions() {
    let calls = Calls::start(Policy::new()).await;
    calls.call("panic", "panic").await.unwrap_err();
    refused(
        calls.call("panic", "panic").await,
        Code::FailedPrecondition,
        "idempotency_outcome_unknown: ",
    );
    assert_eq!(calls.stream("stream", "one two three").await.unwrap(), ["one", "two", "three"]);
    refused(
        calls.stream("stream", "one two three").await,
        Code::FailedPrecondition,
        "idempotency_response_not_stored: ",
    );
    // A stream of one message is as good as a unary call.
    for _ in 0..2 {
        assert_eq!(calls.stream("short", "one").await.unwrap(), ["one"]);
    }
    assert_eq!(calls.runs(), 3);
}

#[tokio::test]
async fn a_failed_call_is_stored_unless_it_says_that_nothing_happened() {
    let calls = Calls::start(Policy::new()).await;
    for _ in 0..2 {
        refused(calls.call("broken", "broken").await, Code::Internal, "run 1 broke");
    }
    for _ in 0..2 {
        refused(calls.call("who", "who").await, Code::Unauthenticated, "who are you?");
    }
    for run in [4, 5] {
        let answer = calls.call("nothing", "nothing").await.unwrap();
        assert_eq!(answer.into_inner(), format!("run {run}: nothing"));
    }
    assert_eq!(calls.runs(), 5);
}

#[tokio::test]
async fn other_refusals_are_statuses_of_grpc_too() {
    let calls = Calls::start(Policy::new().required(true).max_request_body(100)).await;
    refused(calls.call("", "x").await, Code::InvalidArgument, "idempotency_key_missing: ");
    let long = "k".repeat(256);
    refused(calls.call(&long, "x").await, Code::InvalidArgument, "idempotency_key_invalid: ");
    let large = "x".repeat(101);
    refused(calls.call("k", &large).await, Code::ResourceExhausted, "idempotency_body_too_large: ");
    calls.server.store.engine.close().unwrap();
    refused(calls.call("k", "x").await, Code::Unavailable, "idempotency_store_unavailable: ");
    assert_eq!(calls.runs(), 0);
}
