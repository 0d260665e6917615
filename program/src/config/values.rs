//! The values of fields and flags, each read from its text.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method};
use oncekey::Durability;
use oncekey_http::Recovery;

use super::listen::Listen;
use super::model::ContractName;
use super::outcomes::{Outcome, Outcomes};
use super::parts::{Host, LogFormat, Socket};
use super::target::{Address, Speaks, Target};
use crate::base::units;

pub(super) fn route_path(text: &str) -> Result<String, String> {
    if text.split('/').any(|part| part.starts_with(':') || part.starts_with('*')) {
        return Err(format!("route {text:?}: parameters are written {{id}}, the rest {{*rest}}"));
    }
    if !text.starts_with('/') {
        return Err(format!("route {text:?}: a path begins with /"));
    }
    match matchit::Router::new().insert(text, ()) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(format!("route {text:?}: {error}")),
    }
}

/// Reads `"502,504" = "unknown"`. `said` holds the statuses of the earlier entries.
pub(super) fn outcome(
    outcomes: &mut Outcomes,
    said: &mut BTreeSet<u16>,
    statuses: &str,
    what: &str,
) -> Result<(), String> {
    for status in statuses.split(',') {
        let status: u16 = match status.trim().parse() {
            Ok(status @ 200..=599) => status,
            _ => return Err(format!("{statuses:?}: statuses are numbers from 200 to 599")),
        };
        if !said.insert(status) {
            return Err(format!("{statuses:?}: {status} has an outcome already"));
        }
        let may_have_run = status >= 500 || status == 408 || status < 400;
        let outcome = match what {
            "store" => Outcome::Stored,
            "unknown" => Outcome::Unknown,
            "release-at-least-once" => Outcome::Freed,
            "release" if !may_have_run => Outcome::Freed,
            "release" => {
                return Err(format!(
                    "{statuses:?} = \"release\" runs an operation again that may have happened; \
                     write \"release-at-least-once\""
                ));
            }
            _ => {
                return Err(format!(
                    "{statuses:?}: {what:?} is none of store, release, release-at-least-once, \
                     unknown"
                ));
            }
        };
        outcomes.0.insert(status, outcome);
    }
    Ok(())
}

/// Reads a path; an empty text means none.
pub(super) fn some_path(text: &str) -> Result<Option<std::path::PathBuf>, String> {
    Ok((!text.is_empty()).then(|| text.into()))
}

/// Reads a path of HTTP; an empty text means none.
pub(super) fn health(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        path if path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok() => {
            Ok(Some(path.to_owned()))
        }
        _ => Err(format!("health {text:?}: a path begins with /")),
    }
}

/// Reads the address of a collector; an empty text means none.
pub(super) fn collector(text: &str) -> Result<Option<Target>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let target = Target::parse(text)?;
    match target.address {
        Address::Tcp { speaks: Speaks::Http | Speaks::Https, .. } => {}
        _ => {
            return Err(format!("collector {text:?}: write http://HOST:4318 or https://HOST:4318"));
        }
    }
    if target.base.ends_with("/v1/traces") {
        return Err(format!("collector {text:?}: leave out /v1/traces, which is added"));
    }
    Ok(Some(target))
}

pub(super) fn host(text: &str) -> Result<Host, String> {
    match text {
        "pass" => Ok(Host::Pass),
        "upstream" => Ok(Host::Upstream),
        name => match (name.parse::<http::uri::Authority>(), HeaderValue::from_str(name)) {
            (Ok(_), Ok(value)) => Ok(Host::Literal(value)),
            _ => Err(format!("host {text:?} is none of pass, upstream, or a name")),
        },
    }
}

pub(super) fn socket(text: &str) -> Result<Socket, String> {
    match text {
        "auto" => Ok(Socket::Auto),
        "off" => Ok(Socket::Off),
        path if path.starts_with('/') => Ok(Socket::Path(path.into())),
        _ => Err(format!("socket {text:?} is none of auto, off, or a path that begins with /")),
    }
}

/// Reads a time; an empty text means none.
pub(super) fn time(text: &str) -> Result<Option<SystemTime>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let read = humantime::parse_rfc3339(text);
    read.map(Some)
        .map_err(|error| format!("{text:?} is not a time, write 2026-11-28T02:00:00Z: {error}"))
}

/// Reads an address; an empty text means none.
pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text.is_empty() { Ok(None) } else { tcp_address(text).map(Some) }
}

/// Reads `127.0.0.1:9465`, `localhost:9465`, or `:9465` for all interfaces.
pub(crate) fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    match Listen::parse(text) {
        Ok(Listen::Tcp(address)) => Ok(address),
        _ => Err(format!("{text:?} is not an address, write 127.0.0.1:9465 or :9465")),
    }
}

/// Reads the name of a host, with or without a port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::Authority>() {
        Ok(host) if !host.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not the name of a host")),
    }
}

/// Reads a URL; an empty text means none.
pub(super) fn url(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<http::Uri>() {
        Ok(url) if url.scheme().is_some() => Ok(Some(text.to_owned())),
        _ => Err(format!("{text:?} is not a URL, write https://example.org/idempotency")),
    }
}

/// Reads the name of a header that the proxy passes from one side to the other.
pub(crate) fn passing_header(text: &str) -> Result<HeaderName, String> {
    use http::header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    };
    let name = header_name(text)?;
    let stays =
        [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA];
    if stays.contains(&name)
        || ["keep-alive", "proxy-connection"].contains(&name.as_str())
        || name.as_str().starts_with("oncekey-")
    {
        return Err(format!("{text:?} is about a connection, or a header of the proxy's own"));
    }
    Ok(name)
}

/// Reads `NAME: VALUE` or `none`.
pub(crate) fn marker(text: &str) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || format!("replay marker {text:?}: write none or \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
    let name = passing_header(name.as_str())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
    Ok(Some((name, value)))
}

/// Reads how long a process owns its keys without a renewal.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    units::duration_within(text, Duration::from_secs(1), Duration::from_secs(600))
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{text:?} is not the name of a header"))
}

pub(super) fn method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is not a method"))
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    let bytes = units::bytes(text)?;
    usize::try_from(bytes).map_err(|_| format!("{text:?} is more than this machine can address"))
}

/// Reads the length of the longest stored response, at most the limit of a store.
pub(super) fn response_size(text: &str) -> Result<usize, String> {
    const LONGEST: usize = 16 << 20;
    let bytes = size(text)?;
    if bytes > LONGEST {
        return Err(format!(
            "{text:?} is too large, at most {}",
            units::show_bytes(LONGEST as u64)
        ));
    }
    Ok(bytes)
}

/// Reads a size above zero.
pub(super) fn some_size(text: &str) -> Result<usize, String> {
    match size(text)? {
        0 => Err(format!("{text:?} is too small, at least 1B")),
        bytes => Ok(bytes),
    }
}

pub(super) fn one_of<T: Copy>(text: &str, what: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
    chosen.ok_or_else(|| format!("{what} {text:?} is none of {}", names.join(", ")))
}

pub(super) fn contract(text: &str) -> Result<ContractName, String> {
    use ContractName::{Default, Ietf, Stripe};
    one_of(text, "contract", &[("default", Default), ("ietf", Ietf), ("stripe", Stripe)])
}

pub(super) fn recovery(text: &str) -> Result<Recovery, String> {
    one_of(text, "recovery", &[("hold", Recovery::Hold), ("retry", Recovery::Retry)])
}

pub(super) fn durability(text: &str) -> Result<Durability, String> {
    let choices = [("strict", Durability::Strict), ("relaxed", Durability::Relaxed)];
    one_of(text, "durability", &choices)
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    use LogFormat::{Auto, Json, Text};
    one_of(text, "format", &[("auto", Auto), ("text", Text), ("json", Json)])
}

pub(super) fn log_level(text: &str) -> Result<tracing::Level, String> {
    text.parse().map_err(|_| format!("level {text:?} is none of error, warn, info, debug, trace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_end_at_the_proxy_carry_nothing_through_it() {
        for name in ["Host", "content-length", "Connection", "Oncekey-Key", "Via", "a b", ""] {
            assert!(passing_header(name).is_err(), "{name}");
        }
        for name in ["Idempotency-Key", "X-Request-Id", "Idempotency_Key"] {
            assert!(passing_header(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn addresses_hosts_and_urls() {
        assert_eq!(tcp_address(":9465"), Ok(SocketAddr::from(([0, 0, 0, 0], 9465))));
        for wrong in ["", "9465", "unix:/x", "systemd", "h.invalid:x"] {
            assert!(tcp_address(wrong).is_err(), "{wrong}");
        }
        assert_eq!(address(""), Ok(None));
        for wrong in ["a b", "u@h", "a/b", ""] {
            assert!(host_name(wrong).is_err(), "{wrong}");
        }
        assert!(host_name("ops.example:8443").is_ok());
        assert!(url("https://h/x").is_ok_and(|url| url.is_some()));
        assert!(url("/x").is_err() && url("not a url").is_err() && url("") == Ok(None));
    }

    #[test]
    fn a_status_has_one_outcome() {
        let (mut outcomes, mut said) = (Outcomes::default(), BTreeSet::new());
        let mut say = |statuses, what| outcome(&mut outcomes, &mut said, statuses, what);
        assert_eq!(say("401", "store"), Ok(()));
        assert!(say("401,429", "release").unwrap_err().contains("401 has an outcome already"));
    }
}
