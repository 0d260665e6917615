//! Reads a response to its end before it is passed on, so that a broken response becomes a failure and not
//! half an answer.

use std::collections::VecDeque;
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
    let mut read = VecDeque::new();
    let (mut len, mut counted) = (0usize, metrics::buffered_response());
    if rest.size_hint().lower() > limit as u64 {
        return Ok(Body::streaming(rest));
    }
    loop {
        let frame = poll_fn(|context| rest.poll_frame(context));
        match tokio::time::timeout(idle, frame).await {
            Err(_) => return Err(BodyFailed::Idle),
            Ok(None) => return Ok(Body::read(read, counted, None)),
            Ok(Some(Err(_))) => return Err(BodyFailed::Broken),
            Ok(Some(Ok(frame))) => {
                let data = frame.data_ref().map_or(&[][..], |data| &data[..]);
                let more = data.len();
                let is_stream = messages.as_mut().is_some_and(|m| m.is_stream_after(data));
                counted.grow(more as f64);
                len += more;
                read.push_back(frame);
                if len > limit || is_stream {
                    return Ok(Body::read(read, counted, Some(rest)));
                }
            }
        }
    }
}
