//! Checks the health of the upstreams periodically.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Request, header};

use super::connect::connect;
use super::send::{Upstream, Upstreams};
use crate::wire::outgoing::{Outgoing, RequestBody};

/// The time between two checks, and the time limit of a check.
const EVERY: Duration = Duration::from_secs(5);

/// After this many failures in a row an upstream is down; one success brings it up again.
const FAILURES: u32 = 2;

/// Checks each upstream at `path`, until `upstreams` is dropped.
pub(crate) fn check(upstreams: &Arc<Upstreams>, path: &str) {
    for at in 0..upstreams.list.len() {
        let (weak, path) = (Arc::downgrade(upstreams), path.to_owned());
        tokio::spawn(async move {
            let mut failures = 0;
            while let Some(upstreams) = weak.upgrade() {
                let upstream = &upstreams.list[at];
                let asked = ask(&upstreams, upstream, &path);
                let well = matches!(tokio::time::timeout(EVERY, asked).await, Ok(Ok(true)));
                failures = if well { 0 } else { failures + 1 };
                if well || failures >= FAILURES {
                    note(upstream, well);
                }
                drop(upstreams);
                tokio::time::sleep(EVERY).await;
            }
        });
    }
}

fn note(upstream: &Upstream, up: bool) {
    upstream.pool.meter.is_up(up);
    if upstream.is_up.swap(up, Ordering::Relaxed) != up {
        tracing::warn!(upstream = %upstream.target, up, "the health of an upstream changed");
    }
}

/// Whether the upstream answers with 2xx or 3xx. The check uses a connection of its own.
async fn ask(upstreams: &Upstreams, upstream: &Upstream, path: &str) -> io::Result<bool> {
    let target = &upstream.target;
    let (tls, meter) = (upstreams.tls.as_ref(), &upstream.pool.meter);
    let connected = connect(target, tls, meter, upstreams.connect_timeout).await;
    let mut sender = connected.map_err(|unconnected| unconnected.error)?;
    let uri = match target.is_h2c() {
        true => format!("http://{}{path}", target.authority()),
        false => path.to_owned(),
    };
    let mut request = Request::builder().method(Method::GET).uri(uri);
    if !target.is_h2c() {
        request = request.header(header::HOST, target.authority());
    }
    let body = Outgoing::new(RequestBody::from(bytes::Bytes::new())).0;
    let request = request.body(body).map_err(io::Error::other)?;
    let answer = sender.try_send(request).await;
    let answer = answer.map_err(|error| io::Error::other(error.into_error()))?;
    Ok(answer.status().is_success() || answer.status().is_redirection())
}
