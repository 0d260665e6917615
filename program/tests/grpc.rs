//! Calls of gRPC through the proxy, from a real client to a real server: h2c on both sides.
#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request as HttpRequest;
use axum::routing::any;
use http::uri::PathAndQuery;
use text::{Text, refused, request};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Request, Response, Status, Streaming};

#[path = "../../engine-http/tests/http/text.rs"]
mod text;

/// Against a test that hangs.
const LONG: Duration = Duration::from_secs(60);

/// Messages as they are sent.
struct Messages(mpsc::UnboundedReceiver<String>);

impl futures_core::Stream for Messages {
    type Item = Result<String, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|message| message.map(Ok))
    }
}

/// The same for requests, which cannot fail.
struct Asked(mpsc::UnboundedReceiver<String>);

impl futures_core::Stream for Asked {
    type Item = String;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<String>> {
        self.0.poll_recv(context)
    }
}

#[derive(Clone)]
struct Service {
    runs: Arc<AtomicUsize>,
    /// A permit for each slow call that may end.
    gate: Arc<Semaphore>,
}

impl Service {
    async fn echo(self, request: Request<String>) -> Result<Response<String>, Status> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        match request.get_ref().as_str() {
            "slow" => self.gate.acquire().await.unwrap().forget(),
            "panic" => panic!("this panic is part of the test"),
            "who" => return Err(Status::unauthenticated("who are you?")),
            "broken" => return Err(Status::internal(format!("run {run} broke"))),
            "late" => return Err(Status::deadline_exceeded("whom I asked did not answer")),
            _ => {}
        }
        let mut response = Response::new(format!("run {run}: {}", request.get_ref()));
        response.metadata_mut().insert("x-run", run.into());
        Ok(response)
    }

    /// Answers each message before the next comes.
    async fn chat(self, request: Request<Streaming<String>>) -> Result<Response<Messages>, Status> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let (answers, receiver) = mpsc::unbounded_channel();
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                let _gone = answers.send(format!("you said {message}"));
            }
        });
        Ok(Response::new(Messages(receiver)))
    }

    /// As many messages as there are words. At the word `wait` nothing is sent before the gate opens.
    async fn words(self, request: Request<String>) -> Result<Response<Messages>, Status> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let (answers, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for word in request.get_ref().split(' ') {
                match word {
                    "wait" => self.gate.acquire().await.unwrap().forget(),
                    word => drop(answers.send(word.to_owned())),
                }
            }
        });
        Ok(Response::new(Messages(receiver)))
    }

    fn router(self) -> Router {
        let (echo, chat, words) = (self.clone(), self.clone(), self);
        let grpc = || tonic::server::Grpc::new(Text);
        Router::new()
            .route(
                "/test.Echo/Echo",
                any(move |request: HttpRequest| async move {
                    let call = tower::service_fn(move |request| echo.clone().echo(request));
                    grpc().unary(call, request).await
                }),
            )
            .route(
                "/test.Echo/Chat",
                any(move |request: HttpRequest| async move {
                    let call = tower::service_fn(move |request| chat.clone().chat(request));
                    grpc().streaming(call, request).await
                }),
            )
            .route(
                "/test.Echo/Words",
                any(move |request: HttpRequest| async move {
                    let call = tower::service_fn(move |request| words.clone().words(request));
                    grpc().server_streaming(call, request).await
                }),
            )
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A proxy before a server, and a client of it.
struct Calls {
    service: Service,
    upstream: SocketAddr,
    client: tonic::client::Grpc<tonic::transport::Channel>,
    proxy: Child,
    _store: tempfile::TempDir,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.proxy.kill().unwrap();
        self.proxy.wait().unwrap();
    }
}

impl Calls {
    /// The server is not there before [`serve`](Self::serve).
    async fn unserved(more: &[&str]) -> Self {
        let (upstream, listen, store) = (free_port(), free_port(), tempfile::tempdir().unwrap());
        let proxy = Command::new(env!("CARGO_BIN_EXE_oncekey"))
            .args(["proxy", "--no-control", "--listen", &listen.to_string()])
            .args(["--upstream", &format!("h2c://{upstream}"), "--store"])
            .arg(store.path().join("keys"))
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(listen).is_err() {
            tokio::task::yield_now().await;
        }
        let endpoint = tonic::transport::Endpoint::new(format!("http://{listen}")).unwrap();
        let client = tonic::client::Grpc::new(endpoint.connect().await.unwrap());
        let service = Service { runs: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
        Self { service, upstream, client, proxy, _store: store }
    }

    async fn start(more: &[&str]) -> Self {
        let calls = Self::unserved(more).await;
        calls.serve().await;
        calls
    }

    async fn serve(&self) {
        let listener = tokio::net::TcpListener::bind(self.upstream).await.unwrap();
        let router = self.service.clone().router();
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    async fn ready(&self) -> tonic::client::Grpc<tonic::transport::Channel> {
        let mut client = self.client.clone();
        client.ready().await.unwrap();
        client
    }

    async fn call(&self, key: &str, text: &str) -> Result<Response<String>, Status> {
        let path = PathAndQuery::from_static("/test.Echo/Echo");
        let call = request(key, text.to_owned());
        let mut client = self.ready().await;
        tokio::time::timeout(LONG, client.unary(call, path, Text)).await.unwrap()
    }

    async fn words(&self, key: &str, text: &str) -> Result<Vec<String>, Status> {
        let path = PathAndQuery::from_static("/test.Echo/Words");
        let call = request(key, text.to_owned());
        let mut client = self.ready().await;
        let mut stream = client.server_streaming(call, path, Text).await?.into_inner();
        let mut words = Vec::new();
        while let Some(word) = stream.message().await? {
            words.push(word);
        }
        Ok(words)
    }

    fn runs(&self) -> usize {
        self.service.runs.load(Ordering::SeqCst)
    }

    /// Waits until this many calls reached the server.
    async fn ran(&self, runs: usize) {
        let reached = async {
            while self.runs() < runs {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, reached).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_unary_call_gets_the_first_message_and_its_trailers() {
    let calls = Calls::start(&[]).await;
    let first = calls.call("k", "hello").await.unwrap();
    assert_eq!(first.get_ref(), "run 1: hello");
    for _ in 0..2 {
        // A client of gRPC reads success from the trailers.
        let again = calls.call("k", "hello").await.unwrap();
        assert_eq!(again.get_ref(), first.get_ref());
        assert_eq!(again.metadata().get("x-run"), first.metadata().get("x-run"));
    }
    assert_eq!(calls.runs(), 1);
    calls.call("", "hello").await.unwrap();
    assert_eq!(calls.runs(), 2, "without a key each call runs");
    refused(calls.call("k", "other").await, Code::AlreadyExists, "idempotency_key_mismatch: ");
    refused(calls.call("broken", "broken").await, Code::Internal, "run 3 broke");
    refused(calls.call("broken", "broken").await, Code::Internal, "run 3 broke");
    assert_eq!(calls.runs(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_aborted_and_the_first_call_runs_on() {
    let calls = Arc::new(Calls::start(&["--answer-within", "200ms"]).await);
    let slow = calls.clone();
    let first = tokio::spawn(async move { slow.call("k", "slow").await });
    calls.ran(1).await;
    let duplicate =
        refused(calls.call("k", "slow").await, Code::Aborted, "idempotency_key_locked: ");
    assert!(duplicate.metadata().contains_key("grpc-retry-pushback-ms"), "{duplicate:?}");
    // The first client does not wait longer than `answer-within` either.
    let late = refused(first.await.unwrap(), Code::Aborted, "idempotency_key_locked: ");
    assert!(late.metadata().contains_key("grpc-retry-pushback-ms"), "{late:?}");
    calls.service.gate.add_permits(1);
    let replayed = async {
        loop {
            match calls.call("k", "slow").await {
                Ok(answer) => return answer,
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status:?}"),
            }
        }
    };
    let replayed = tokio::time::timeout(LONG, replayed).await.unwrap();
    assert_eq!((replayed.get_ref().as_str(), calls.runs()), ("run 1: slow", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_statuses_of_grpc() {
    let calls = Calls::unserved(&["--scope", "header:x-tenant"]).await;
    refused(calls.call("k", "hello").await, Code::InvalidArgument, "idempotency_scope_missing: ");
    drop(calls);
    let calls = Calls::unserved(&["--give-up-after", "300ms"]).await;
    let down = refused(calls.call("k", "hello").await, Code::Unavailable, "upstream_unreachable: ");
    assert!(down.metadata().contains_key("grpc-retry-pushback-ms"), "{down:?}");
    refused(calls.call("", "hello").await, Code::Unavailable, "upstream_unreachable: ");
    calls.serve().await;
    assert_eq!(calls.call("k", "hello").await.unwrap().get_ref(), "run 1: hello");
    // The server does not say how the call ended, so it never runs again.
    for _ in 0..2 {
        let answer = calls.call("panic", "panic").await;
        refused(answer, Code::FailedPrecondition, "idempotency_outcome_unknown: ");
    }
    assert_eq!(calls.runs(), 2);
    for _ in 0..2 {
        let answer = calls.call("slow", "slow").await;
        refused(answer, Code::FailedPrecondition, "idempotency_outcome_unknown: ");
    }
    refused(calls.call("", "slow").await, Code::DeadlineExceeded, "upstream_timeout: ");
    // Statuses that a server sends itself: some free the key, others leave it unknown.
    let runs = calls.runs();
    for _ in 0..2 {
        refused(calls.call("who", "who").await, Code::Unauthenticated, "who are you?");
    }
    assert_eq!(calls.runs(), runs + 2);
    refused(calls.call("late", "late").await, Code::DeadlineExceeded, "whom I asked");
    let again = calls.call("late", "late").await;
    refused(again, Code::FailedPrecondition, "idempotency_outcome_unknown: ");
    assert_eq!(calls.runs(), runs + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_pass_without_a_key_message_by_message() {
    let calls = Calls::start(&[]).await;
    let (say, said) = mpsc::unbounded_channel();
    let path = PathAndQuery::from_static("/test.Echo/Chat");
    say.send("one".to_owned()).unwrap();
    let mut client = calls.ready().await;
    let chat = client.streaming(request("", Asked(said)), path, Text);
    let mut answers = tokio::time::timeout(LONG, chat).await.unwrap().unwrap().into_inner();
    for (heard, next) in [("one", Some("two")), ("two", Some("three")), ("three", None)] {
        let answer = tokio::time::timeout(LONG, answers.message()).await.unwrap().unwrap();
        assert_eq!(answer, Some(format!("you said {heard}")));
        next.into_iter().for_each(|next| say.send(next.to_owned()).unwrap());
    }
    drop(say);
    assert_eq!(tokio::time::timeout(LONG, answers.message()).await.unwrap().unwrap(), None);

    assert_eq!(calls.words("", "a b c").await.unwrap(), ["a", "b", "c"]);
    assert_eq!(calls.words("", "a b c").await.unwrap(), ["a", "b", "c"]);
    assert_eq!(calls.runs(), 3);
    // A stream with a key runs once and is not kept. A stream of one message is treated like a unary call.
    assert_eq!(calls.words("k", "a b c").await.unwrap(), ["a", "b", "c"]);
    let again = calls.words("k", "a b c").await;
    refused(again, Code::FailedPrecondition, "idempotency_response_not_stored: ");
    for _ in 0..2 {
        assert_eq!(calls.words("one", "a").await.unwrap(), ["a"]);
    }
    assert_eq!(calls.runs(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_in_a_call_leaves_its_outcome_unknown() {
    let idle = Duration::from_millis(300);
    let calls = Calls::start(&["--body-idle", "300ms"]).await;
    // Before the message, and before the end.
    for text in ["wait", "one wait"] {
        let runs = calls.runs();
        for _ in 0..2 {
            let answer = tokio::time::timeout(LONG, calls.words(text, text)).await.unwrap();
            refused(answer, Code::FailedPrecondition, "idempotency_outcome_unknown: ");
        }
        assert_eq!(calls.runs(), runs + 1);
    }
    // A stream is quiet for as long as it likes.
    let open = async {
        calls.ran(3).await;
        tokio::time::sleep(idle * 3).await;
        // The two calls that were given up wait there, too.
        calls.service.gate.add_permits(3);
    };
    let streamed = tokio::time::timeout(LONG, calls.words("stream", "one two wait three"));
    let (words, ()) = tokio::join!(streamed, open);
    assert_eq!(words.unwrap().unwrap(), ["one", "two", "three"]);
    let again = calls.words("stream", "one two wait three").await;
    refused(again, Code::FailedPrecondition, "idempotency_response_not_stored: ");
    assert_eq!(calls.runs(), 3);
}
