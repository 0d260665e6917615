//! The bounds of memory and time for the request bodies that the layer holds.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use oncekey_http::{IdempotencyLayer, RequestBody};
use tower::ServiceExt;
use tower_layer::Layer;

use crate::support::{KEY, Store, response};

const LIMIT: usize = 2 << 20;

/// Sends a number of bytes in pieces, then ends or stalls.
struct Sender {
    left: usize,
    declared: u64,
    end: End,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Complete,
    Stall,
    /// One empty frame after the other, 20 s apart.
    Empty,
    /// The last bytes one by one, 20 s apart.
    Drip,
    /// A body of which no byte may be read.
    Unread,
}

impl Body for Sender {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        assert!(self.end != End::Unread, "it is refused for what it declares");
        let mut piece = self.left.min(48 << 10);
        if self.end == End::Drip || (self.end == End::Empty && self.left == 0) {
            piece = piece.min(1);
            let pause = Duration::from_secs(20);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
        self.left -= piece;
        match self.end {
            End::Stall if piece == 0 => Poll::Pending,
            End::Complete | End::Drip if piece == 0 => Poll::Ready(None),
            _ => Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; piece]))))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.declared);
        hint
    }
}

type Posted = Request<RequestBody<Sender>>;

fn post(key: &str, bytes: usize, end: End) -> Posted {
    declared(key, bytes, 0, end)
}

fn declared(key: &str, bytes: usize, declared: u64, end: End) -> Posted {
    let sender = Sender { left: bytes, declared, end, sleep: None };
    Request::post("/").header(KEY, key).body(RequestBody::new(sender)).unwrap()
}

struct Shop {
    layer: IdempotencyLayer,
    runs: Arc<AtomicUsize>,
}

impl Shop {
    fn new(max_buffered: usize) -> Self {
        let layer = IdempotencyLayer::new(Store::new().engine).max_buffered(max_buffered);
        Self { layer, runs: Arc::default() }
    }

    fn send(
        &self,
        request: Posted,
    ) -> Pin<Box<dyn Future<Output = (u16, String)> + Send + 'static>> {
        let runs = self.runs.clone();
        let handler = tower::service_fn(move |request: Posted| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move {
                match request.headers()[KEY].to_str().unwrap() {
                    "panics" => panic!("as it should"),
                    "hangs" => pending().await,
                    _ => {}
                }
                Ok::<Response, Infallible>(response(200, ""))
            }
        });
        let service = self.layer.layer(handler);
        Box::pin(async move {
            let (head, body) = service.oneshot(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            if head.status == 503 {
                assert_eq!(head.headers["retry-after"], "1");
            }
            (head.status.as_u16(), text)
        })
    }

    fn buffered(&self) -> u64 {
        self.layer.stats().buffered_bytes
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_bodies_hold_no_more_than_the_budget_and_are_refused() {
    let shop = Shop::new(32 << 20);
    let mut stalled: Vec<_> =
        (0..300).map(|n| shop.send(post(&format!("k-{n}"), LIMIT - 1, End::Stall))).collect();
    let mut refused = 0;
    for request in &mut stalled {
        // The layer reads on in a refused body, and notices that it stalls, too.
        let poll = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending());
        let held = shop.buffered();
        assert!(held <= 32 << 20, "{held}");
    }
    assert!(shop.buffered() > 30 << 20);
    for request in stalled {
        let (status, problem) = request.await;
        match status {
            408 => assert!(problem.contains("\"idempotency_body_timeout\""), "{problem}"),
            503 => {
                assert!(problem.contains("\"idempotency_overloaded\""), "{problem}");
                refused += 1;
            }
            status => panic!("{status} {problem}"),
        }
    }
    assert!((280..=285).contains(&refused), "{refused}");
    let stats = shop.layer.stats();
    assert_eq!((stats.body_overloaded, stats.body_refused), (refused, 300 - refused));
    assert_eq!((shop.buffered(), shop.runs()), (0, 0));
    for key in ["k-0", "k-299"] {
        assert_eq!(shop.send(post(key, LIMIT, End::Complete)).await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_brings_nothing_is_refused_and_one_that_drips_is_not() {
    let shop = Shop::new(LIMIT);
    for end in [End::Stall, End::Empty] {
        for bytes in [0, 1000] {
            let hour = Duration::from_secs(3600);
            let answer = tokio::time::timeout(hour, shop.send(post("k", bytes, end))).await;
            let (status, problem) = answer.expect("an answer");
            assert_eq!(status, 408);
            assert!(problem.contains("\"idempotency_body_timeout\""), "{problem}");
        }
    }
    assert_eq!((shop.runs(), shop.buffered()), (0, 0));
    assert_eq!(shop.send(post("k", 5, End::Drip)).await.0, 200);
    // The layer does not wait without end for the rest of a request that is refused for its key.
    assert_eq!(shop.send(post(" ", 0, End::Stall)).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_waits_as_long_as_it_is_told_to() {
    let mut shop = Shop::new(LIMIT);
    shop.layer = shop.layer.body_idle(Duration::from_secs(10));
    assert_eq!(shop.send(post("k", 5, End::Drip)).await.0, 408);
    shop.layer = shop.layer.body_idle(Duration::MAX);
    let waits =
        tokio::time::timeout(Duration::from_secs(3600), shop.send(post("k", 5, End::Stall)));
    assert!(waits.await.is_err());
}

#[tokio::test]
async fn a_length_over_what_is_left_is_refused_before_a_byte_is_read() {
    let shop = Shop::new(1000);
    let (status, problem) = shop.send(post("k", 1001, End::Complete)).await;
    assert_eq!(status, 503, "{problem}");
    let mut held = shop.send(post("held", 600, End::Stall));
    assert!(held.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(shop.buffered(), 600);
    let mut unread = declared("k", 401, 401, End::Unread);
    // Otherwise the rest of a refused body is read and discarded.
    unread.headers_mut().insert("expect", "100-continue".parse().unwrap());
    assert_eq!(shop.send(unread).await.0, 503);
    assert_eq!(shop.send(declared("k", 400, 400, End::Complete)).await.0, 200);
    assert_eq!(shop.layer.stats().body_overloaded, 2);
}

#[tokio::test]
async fn the_budget_comes_back_however_a_request_ends() {
    let shop = Shop::new(1000);
    // The client is gone while it sends.
    let mut cancelled = shop.send(post("k", 900, End::Stall));
    assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(shop.buffered(), 900);
    drop(cancelled);
    assert_eq!(shop.buffered(), 0);
    // The handler has it, panics, or hangs.
    assert_eq!(shop.send(post("k", 900, End::Complete)).await.0, 200);
    let panics = tokio::spawn(shop.send(post("panics", 900, End::Complete)));
    assert!(panics.await.unwrap_err().is_panic());
    let hangs = tokio::spawn(shop.send(post("hangs", 900, End::Complete)));
    while shop.runs() < 3 {
        tokio::task::yield_now().await;
    }
    while shop.buffered() > 0 {
        tokio::task::yield_now().await;
    }
    hangs.abort();
    // A replay and a mismatch.
    assert_eq!(shop.send(post("k", 900, End::Complete)).await.0, 200);
    assert_eq!(shop.send(post("k", 901, End::Complete)).await.0, 409);
    assert_eq!(shop.buffered(), 0);
    // No task, no handler.
    let going_down = IdempotencyLayer::with_spawner(Store::new().engine, drop).max_buffered(1000);
    let shop = Shop { layer: going_down, runs: Arc::default() };
    assert_eq!(shop.send(post("k", 900, End::Complete)).await.0, 503);
    assert_eq!(shop.buffered(), 0);
}

/// Layers made from one another are one layer to the memory of the process.
#[tokio::test]
async fn routes_share_the_budget() {
    let shop = Shop::new(1000);
    let other = Shop { layer: shop.layer.clone().policy(Default::default()), runs: Arc::default() };
    let mut held = shop.send(post("held", 900, End::Stall));
    assert!(held.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(other.buffered(), 900);
    assert_eq!(other.send(post("k", 101, End::Complete)).await.0, 503);
    drop(held);
    assert_eq!(other.send(post("k", 101, End::Complete)).await.0, 200);
}
