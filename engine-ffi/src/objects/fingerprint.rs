//! Fingerprints behind the handles of C, and the rule that makes one from an HTTP request.
//!
//! The rule is the engine's, the same as in the Rust layer `oncekey-http`. `tests/vectors/fingerprints.json`
//! checks both.

use std::borrow::Cow;

use oncekey::{FingerprintedHeaders, HttpRequest, MAX_LABEL_LEN, MAX_PARTS};

use crate::abi::request::{Part, Request};
use crate::abi::types::Slice;
use crate::boundary::convert::Caller;
use crate::boundary::failure::Failure;
use crate::boundary::handle_table::Table;

pub(crate) static FINGERPRINTS: Table<oncekey::Fingerprint> = Table::new(4);

/// A fingerprint from the parts that C lists.
pub(crate) fn of_parts(
    caller: &Caller,
    parts: *const Part,
    count: usize,
) -> Result<oncekey::Fingerprint, Failure> {
    let parts = caller.array(parts, count, "the parts")?;
    if parts.len() > MAX_PARTS {
        return Err(Failure::invalid(format!("at most {MAX_PARTS} parts are allowed")));
    }
    let mut builder = oncekey::Fingerprint::builder();
    for part in parts {
        let label = label(caller, part.label)?;
        builder = builder.part(label, caller.bytes(part.value, "a value")?);
    }
    Ok(builder.finish())
}

/// A label. The labels that every request has are neither checked nor copied.
fn label(caller: &Caller, label: Slice) -> Result<Cow<'static, str>, Failure> {
    if let Some(known) = known(caller.bytes(label, "a label")?) {
        return Ok(Cow::Borrowed(known));
    }
    let label = caller.text(label, "a label")?;
    if label.len() > MAX_LABEL_LEN {
        return Err(Failure::invalid(format!("a label has at most {MAX_LABEL_LEN} bytes")));
    }
    Ok(Cow::Owned(label.to_owned()))
}

fn known(label: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 6] = [
        "method",
        "target",
        "body",
        "header authorization",
        "header content-type",
        "header x-api-key",
    ];
    KNOWN.into_iter().find(|known| known.as_bytes() == label)
}

pub(crate) fn keep(fingerprint: oncekey::Fingerprint) -> Result<u64, Failure> {
    FINGERPRINTS.insert(fingerprint).map_err(|_| Failure::too_many())
}

/// The engine's rule over the headers that C lists.
pub(crate) fn of_request(
    caller: &Caller,
    request: &Request,
) -> Result<oncekey::Fingerprint, Failure> {
    let headers = caller.array(request.headers, request.header_count, "the headers")?;
    let headers: Vec<_> = headers
        .iter()
        .map(|header| {
            let name = caller.bytes(header.name, "a header name")?;
            Ok((name, caller.bytes(header.value, "a header value")?))
        })
        .collect::<Result<_, Failure>>()?;
    let http_request = HttpRequest {
        method: caller.bytes(request.method, "the method")?,
        target: caller.bytes(request.target, "the target")?,
        authority: None,
        body: caller.bytes(request.body, "the body")?,
    };
    let counted = counted(caller, request)?;
    Ok(oncekey::Fingerprint::of_http(http_request, &counted, |name| {
        headers
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| *value)
    }))
}

/// The set of headers that count.
fn counted(caller: &Caller, request: &Request) -> Result<FingerprintedHeaders, Failure> {
    if request.fingerprinted.is_null() && request.fingerprinted_count == 0 {
        return Ok(FingerprintedHeaders::default());
    }
    let names = caller.array(
        request.fingerprinted,
        request.fingerprinted_count,
        "the names of the fingerprinted headers",
    )?;
    let names: Vec<_> = names
        .iter()
        .map(|name| caller.text(*name, "a header name"))
        .collect::<Result<_, Failure>>()?;
    FingerprintedHeaders::new(names).map_err(Failure::from)
}
