//! Spans of requests, as a collector of OpenTelemetry gets them: OTLP over HTTP, read byte by byte.
#![cfg(feature = "otel")]
#![allow(missing_docs, clippy::unwrap_used)]

mod messages;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::any;
use messages::{Span, spans};
use tokio::sync::mpsc;

/// Against a test that hangs.
const LONG: Duration = Duration::from_secs(60);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A request that a server got: its path, headers and body.
type Got = mpsc::UnboundedReceiver<(Uri, HeaderMap, Bytes)>;

/// A server that gives each answer of a list, then 201.
async fn server(mut answers: Vec<StatusCode>) -> (SocketAddr, Got) {
    let (got, receiver) = mpsc::unbounded_channel();
    answers.reverse();
    let answers = std::sync::Arc::new(std::sync::Mutex::new(answers));
    let answer = any(move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
        // After the test there is no receiver left.
        let _ = got.send((uri, headers, body));
        answers.lock().unwrap().pop().unwrap_or(StatusCode::CREATED)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, receiver)
}

/// A proxy that is killed with the test.
struct Proxy {
    process: Child,
    listen: SocketAddr,
    _files: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    fn start(upstream: SocketAddr, traces: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = files.path().join("oncekey.toml");
        let text = format!(
            "listen = [\"{listen}\"]\n[upstream]\nurls = [\"http://{upstream}\"]\n\
             [[route]]\npath = \"/v1/{{id}}\"\n[traces]\n{traces}\n"
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_oncekey"))
            .args(["proxy", "--no-control", "--config"])
            .arg(&config)
            .arg("--store")
            .arg(files.path().join("keys"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut proxy = Self { process, listen, _files: files };
        while TcpStream::connect(listen).is_err() {
            assert!(proxy.process.try_wait().unwrap().is_none(), "the proxy ended");
            std::thread::yield_now();
        }
        proxy
    }

    /// The status of a POST.
    async fn post(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = tokio::net::TcpStream::connect(self.listen).await.unwrap();
        let request = format!("{head}Content-Length: 2\r\n\r\n{{}}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Ends the proxy, which then sends its last spans.
    async fn stop(mut self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let ended = tokio::task::spawn_blocking(move || self.process.wait().unwrap());
        assert!(tokio::time::timeout(LONG, ended).await.unwrap().unwrap().success());
    }
}

/// `[traces]` as docs/operations.md has it.
fn page() -> &'static str {
    let page = include_str!("../../../docs/operations.md");
    page.split("```toml\n[traces]\n").nth(1).unwrap().split("```").next().unwrap()
}

/// All that the collector got so far.
fn collected(got: &mut Got) -> Vec<Span> {
    let mut all = Vec::new();
    while let Ok((uri, headers, body)) = got.try_recv() {
        assert_eq!(uri.path(), "/v1/traces");
        assert_eq!(headers["content-type"], "application/x-protobuf");
        all.extend(spans(&body));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_of_its_caller_and_asks_the_upstream_in_another() {
    let ((collector, mut told), (upstream, mut asked)) =
        (server(vec![StatusCode::OK; 9]).await, server(Vec::new()).await);
    let traces = page().replace("127.0.0.1:4318", &collector.to_string());
    let proxy = Proxy::start(upstream, &traces.replace("one_in = 100", "one_in = 1"));
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("Idempotency-Key", "k"), ("traceparent", &*parent), ("tracestate", "a=b")];
    for _ in 0..2 {
        assert_eq!(proxy.post("/v1/7?secret=1", &headers).await, 201);
    }
    // A request without a trace, and one whose trace is not recorded.
    assert_eq!(proxy.post("/other", &[("tracestate", "a=b")]).await, 201);
    let unrecorded = parent.replace("-01", "-00");
    assert_eq!(proxy.post("/other", &[("traceparent", &unrecorded)]).await, 201);
    proxy.stop().await;

    let all = collected(&mut told);
    let [client, ran, replayed, other_client, other] = &all[..] else { panic!("{all:#?}") };
    for span in [client, ran, replayed] {
        assert_eq!(span.trace, TRACE);
        assert!(
            span.service.contains(&"service.name=payments-proxy".to_owned()),
            "{:?}",
            span.service
        );
    }
    assert_eq!((&*ran.parent, &*replayed.parent, &client.parent), (CALLER, CALLER, &ran.id));
    assert_eq!((ran.kind, replayed.kind, client.kind), (2, 2, 3));
    assert_eq!((&*ran.name, &*client.name, &*other.name), ("POST /v1/{id}", "POST", "POST *"));
    assert!(ran.took >= client.took && client.took > 0, "{all:#?}");
    for attribute in ["http.route=/v1/{id}", "http.response.status_code=201", "oncekey.attempt=1"] {
        assert!(ran.has(attribute), "{attribute}: {ran:#?}");
    }
    assert!(ran.has("oncekey.outcome=executed") && replayed.has("oncekey.outcome=replayed"));
    assert!(client.has(&format!("oncekey.upstream=http://{upstream}")), "{client:#?}");
    assert!(all.iter().all(|span| span.status == 0), "{all:#?}");
    assert!(other.parent.is_empty() && other.trace.len() == 32 && other.trace != TRACE);
    assert_eq!((&other_client.trace, &other_client.parent), (&other.trace, &other.id));
    // Neither paths, queries nor keys.
    let shown = format!("{all:?}");
    assert!(!shown.contains("secret") && !shown.contains("/v1/7"), "{shown}");

    let mut heads = Vec::new();
    while let Ok((_, headers, _)) = asked.try_recv() {
        heads.push(headers);
    }
    let [first, second, third] = &heads[..] else { panic!("{heads:?}") };
    assert_eq!(first["traceparent"], format!("00-{TRACE}-{}-01", client.id));
    assert_eq!(first["tracestate"], "a=b");
    assert_eq!(second["traceparent"], format!("00-{}-{}-01", other.trace, other_client.id));
    assert!(!second.contains_key("tracestate"), "it was of another trace");
    let third = third["traceparent"].to_str().unwrap();
    assert!(third.starts_with(&format!("00-{TRACE}-")) && third.ends_with("-00"), "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_and_a_collector_that_fails_is_asked_again() {
    // The collector is overloaded at first, and then it is not.
    let (collector, mut told) = server(vec![StatusCode::SERVICE_UNAVAILABLE]).await;
    let (upstream, _asked) = server(vec![StatusCode::INTERNAL_SERVER_ERROR]).await;
    let proxy = Proxy::start(upstream, &format!("collector = \"http://{collector}/\""));
    assert_eq!(proxy.post("/v1/7", &[("Idempotency-Key", "k")]).await, 500);
    proxy.stop().await;
    let refused = tokio::time::timeout(LONG, told.recv()).await.unwrap().unwrap().2;
    let all = collected(&mut told);
    assert_eq!(spans(&refused).len(), all.len(), "the same spans again");
    let [client, whole] = &all[..] else { panic!("{all:#?}") };
    assert_eq!((client.status, whole.status), (2, 2));
    assert!(client.has("error.type=500") && whole.has("error.type=500"), "{all:#?}");

    // No upstream, and no collector: the proxy works, and ends.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (collector, mut told) = server(Vec::new()).await;
    let proxy = Proxy::start(closed, &format!("collector = \"http://{collector}\""));
    assert_eq!(proxy.post("/v1/7", &[("Idempotency-Key", "k")]).await, 502);
    proxy.stop().await;
    let all = collected(&mut told);
    let [client, whole] = &all[..] else { panic!("{all:#?}") };
    assert!(client.has("error.type=refused") && whole.has("oncekey.outcome=freed"), "{all:#?}");
    let proxy = Proxy::start(upstream, &format!("collector = \"http://{closed}\""));
    assert_eq!(proxy.post("/v1/7", &[("Idempotency-Key", "k")]).await, 201);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trace_is_begun_where_that_is_said() {
    let ((collector, mut told), (upstream, mut asked)) =
        (server(Vec::new()).await, server(Vec::new()).await);
    let proxy = Proxy::start(upstream, &format!("collector = \"http://{collector}\"\none_in = 0"));
    assert_eq!(proxy.post("/v1/7", &[]).await, 201);
    proxy.stop().await;
    assert!(told.try_recv().is_err());
    let (_, headers, _) = asked.try_recv().unwrap();
    assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_is_verified_by_the_certificates_of_the_file() {
    use tokio::io::AsyncReadExt;
    use tokio_rustls::rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};

    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let builder =
        ServerConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("collector = \"https://{}\"", listener.local_addr().unwrap());
    let (first, mut lines) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut line = [0; 20];
            // A handshake that the proxy refuses is one without a request.
            if let Ok(mut stream) = acceptor.accept(stream).await
                && stream.read_exact(&mut line).await.is_ok()
            {
                let _ = first.send(line);
            }
        }
    });
    let (upstream, _asked) = server(Vec::new()).await;
    let files = tempfile::tempdir().unwrap();
    let (right, empty) = (files.path().join("right"), files.path().join("empty"));
    std::fs::write(&right, made.cert.pem()).unwrap();
    std::fs::write(&empty, "").unwrap();

    let trusting = Proxy::start(upstream, &format!("{collector}\nca = {right:?}"));
    assert_eq!(trusting.post("/v1/7", &[]).await, 201);
    trusting.stop().await;
    assert_eq!(lines.try_recv().as_ref(), Ok(b"POST /v1/traces HTTP"));

    // A check refuses the files that a start refuses.
    for (ca, said) in
        [(&empty, "no certificate in it"), (&files.path().join("none"), "No such file")]
    {
        let config = files.path().join("oncekey.toml");
        let text = format!(
            "[upstream]\nurls = [\"http://{upstream}\"]\n[traces]\n{collector}\nca = {ca:?}\n"
        );
        std::fs::write(&config, text).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_oncekey"))
            .args(["check", "--config"])
            .arg(&config)
            .output();
        let output = command.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && told.contains("[traces]") && told.contains(said),
            "{told}"
        );
    }
}
