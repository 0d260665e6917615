//! The vectors, and a handler that is seen to run.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tower_service::Service;

pub(crate) fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub(crate) fn hex(value: &Value) -> Vec<u8> {
    let digits = text(value);
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Headers of a vector; values are Latin-1.
pub(crate) fn headers(value: &Value) -> HeaderMap {
    let pairs = value.as_array().unwrap().iter().map(|pair| {
        let value: Vec<u8> = text(&pair[1]).chars().map(|c| u8::try_from(c).unwrap()).collect();
        (text(&pair[0]).parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(&value).unwrap())
    });
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    map
}

/// A handler that counts its runs.
#[derive(Clone)]
pub(crate) struct Handler(pub(crate) Arc<AtomicUsize>);

impl<B> Service<Request<B>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(Full::from("second"))))
    }
}
