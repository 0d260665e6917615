//! Reads a response to its end before it is passed on, so that a broken response becomes a failure and not
//! half an answer.

use std::future::poll_fn;
use std::time::Duration;

use oncekey_http::GrpcMessages;

use crate::report::metrics;
use crate::wire::body::{Body, Streaming};

/// The reason why a response body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFailed {
    Broken,
    Idle,
}

/// The whole body; or the part of it within `limit`, followed by the rest as it comes. A gRPC response, which has
/// `messages`, is read up to its second message: it is then a stream, which continues as it comes.
pub(crate) async fn collect(
    mut rest: Streaming,
    mut messages: Option<GrpcMessages>,
    limit: usize,
    idle: Duration,
) -> Result<Body, BodyFailed> {
    let expected = rest.size_hint().lower();
    if expected > limit as u64 {
        return Ok(Body::streaming(rest));
    }
    // One buffer, and not the frames: an upstream may send byte by byte.
    let mut read = Vec::with_capacity(expected as usize);
    let (mut trailers, mut counted) = (None, metrics::buffered_response());
    loop {
        let frame = poll_fn(|context| rest.poll_frame(context));
        match tokio::time::timeout(idle, frame).await {
            Err(_) => return Err(BodyFailed::Idle),
            Ok(None) => return Ok(Body::read(read, trailers, counted, None)),
            Ok(Some(Err(_))) => return Err(BodyFailed::Broken),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let is_stream = messages.as_mut().is_some_and(|m| m.is_stream_after(&data));
                    counted.grow(data.len() as f64);
                    read.extend_from_slice(&data);
                    if read.len() > limit || is_stream {
                        return Ok(Body::read(read, None, counted, Some(rest)));
                    }
                }
                Err(frame) => trailers = Some(frame),
            },
        }
    }
}
