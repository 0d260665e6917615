//! Reads a response to its end before it is passed on, so that one that breaks off is a failure and
//! not half an answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use crate::report::metrics;
use crate::wire::body::{Body, Streaming};

/// Why a response body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFailed {
    Broken,
    Idle,
}

/// The whole body; or what of it is within `limit`, and the rest as it comes.
pub(crate) async fn collect(
    mut rest: Streaming,
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
                let more = frame.data_ref().map_or(0, bytes::Bytes::len);
                counted.grow(more as f64);
                len += more;
                read.push_back(frame);
                if len > limit {
                    return Ok(Body::read(read, counted, Some(rest)));
                }
            }
        }
    }
}
