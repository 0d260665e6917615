//! The metrics of the layer with the feature `metrics`, under the names that docs/operations.md
//! documents. The test has a process of its own, since a process has one recorder.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use metrics::{Counter, Gauge, Histogram, KeyName, Metadata, Recorder, SharedString};
use oncekey::{Begin, Fingerprint, Key, Options};
use oncekey_http::{IdempotencyLayer, NotExecuted, NotStored, Policy};
use oncekey_testing::{Fault, OpKind, SimDisk};
use tower::ServiceExt;
use tower_layer::Layer;

/// Keeps the value of each counter and gauge.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Recorded {
    fn register(&self, key: &metrics::Key) -> Arc<AtomicU64> {
        self.0.lock().unwrap().entry(key.name().to_owned()).or_default().clone()
    }

    fn value(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).expect(name).load(Ordering::Relaxed)
    }

    fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.value(name))
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<metrics::Unit>, _: SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register(key))
    }

    fn register_gauge(&self, key: &metrics::Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register(key))
    }

    fn register_histogram(&self, _: &metrics::Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Fails once with the answer that the path asks for, while the gauges are looked at.
async fn handle(
    request: Request<Full<Bytes>>,
    disk: SimDisk,
    recorded: Recorded,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(recorded.gauge("oncekey_layer_running"), 1.0);
    let mut response = Response::new(Full::default());
    match request.uri().path() {
        "/not-executed" => drop(response.extensions_mut().insert(NotExecuted)),
        "/not-stored" => drop(response.extensions_mut().insert(NotStored)),
        "/panic" => panic!("as it should"),
        "/full" => disk.inject(Fault::at_kind(OpKind::Sync, 0).errno(Fault::EIO).forever()),
        _ => {}
    }
    Ok(response)
}

#[tokio::test]
async fn everything_that_the_layer_counts_is_reported() {
    let recorded = Recorded::default();
    metrics::set_global_recorder(recorded.clone()).unwrap();
    let disk = SimDisk::new();
    let options = Options::new().segment_bytes(4 << 20).disk(Arc::new(disk.clone()));
    let layer = IdempotencyLayer::new(options.open("/store").unwrap())
        .policy(Policy::new().max_request_body(100))
        .max_buffered(50);
    let send = async |target: &str, key: &str, cookie: bool, body: usize| {
        let (disk, recorded) = (disk.clone(), recorded.clone());
        let handler =
            tower::service_fn(move |request| handle(request, disk.clone(), recorded.clone()));
        let mut request = Request::post(target).header("idempotency-key", key);
        if cookie {
            request = request.header("cookie", "session=1");
        }
        let request = request.body(Full::from(vec![b'x'; body])).unwrap();
        // A panic ends the task of the connection alone.
        tokio::spawn(layer.layer(handler).oneshot(request)).await.ok().map(|r| r.unwrap().status())
    };

    // A response that cannot be stored.
    let parts = Fingerprint::builder().part("method", "POST").part("target", "/");
    let begun =
        layer.engine().begin(&Key::new("", "foreign").unwrap(), parts.part("body", "").finish());
    let Begin::Claimed(claim) = begun.await.unwrap() else { panic!("the key is new") };
    claim.complete(b"not a response").await.unwrap();
    for (target, key, cookie, body, status) in [
        ("/", "foreign", false, 0, Some(409)),
        ("/", " ", false, 0, Some(400)),
        ("/", "k", true, 50, Some(200)),
        ("/", "long", false, 101, Some(413)),
        ("/", "over", false, 51, Some(503)),
        ("/not-executed", "free", false, 0, Some(200)),
        ("/not-stored", "stream", false, 0, Some(200)),
        ("/panic", "panic", false, 0, None),
        ("/full", "lost", false, 0, Some(200)),
        ("/", "closed", false, 0, Some(503)),
    ] {
        let answer = send(target, key, cookie, body).await;
        assert_eq!(answer.map(|status| status.as_u16()), status, "{target} {key}");
    }
    layer.drained().await;

    // The fields of the statistics, as they print.
    let text = format!("{:?}", layer.stats());
    let fields = text.trim_start_matches("LayerStats { ").trim_end_matches(" }");
    let page = include_str!("../../docs/operations.md");
    for field in fields.split(", ") {
        let (field, value) = field.split_once(": ").unwrap();
        let name = if ["running", "buffered_bytes"].contains(&field) {
            let name = format!("oncekey_layer_{field}");
            assert_eq!((recorded.gauge(&name), value), (0.0, "0"), "{field}");
            name
        } else {
            let name = format!("oncekey_layer_{field}_total");
            assert_eq!((recorded.value(&name).to_string().as_str(), value), ("1", "1"), "{field}");
            name
        };
        assert!(page.contains(&format!("\n| `{name}` |")), "{name} is not documented");
    }
}
