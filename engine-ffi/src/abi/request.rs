//! The inputs of fingerprints.

use crate::abi::plain::plain;
use crate::abi::types::Slice;

plain!(Part, Header, Request);

/// A labelled part of a request. The label is UTF-8, at most 128 bytes; the value any bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The name that a mismatch reports, such as "method" or "header content-type".
    pub label: Slice,
    /// The bytes that count.
    pub value: Slice,
}

/// A header of an HTTP request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Its name, in any case.
    pub name: Slice,
    /// Its value.
    pub value: Slice,
}

/// An HTTP request, for oncekey_fingerprint_from_request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The method, such as "POST".
    pub method: Slice,
    /// The target, byte for byte as it was sent: "/orders?b=1", or an absolute URL, whose authority then
    /// takes precedence over the header Host.
    pub target: Slice,
    /// The body.
    pub body: Slice,
    /// All headers, in the order in which they were sent, repeated names repeated.
    pub headers: *const Header,
    /// The number of headers.
    pub header_count: usize,
    /// The names of the headers that count, in any case and order; at most 60. NULL:
    /// Authorization, Content-Encoding, Content-Type, If-Match, If-None-Match,
    /// If-Unmodified-Since, X-API-Key and X-HTTP-Method-Override. The authority always counts.
    pub fingerprinted: *const Slice,
    /// The number of names. 0 with a pointer that is not NULL: no header counts.
    pub fingerprinted_count: usize,
}
