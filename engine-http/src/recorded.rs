//! The bytes of a stored response.
//!
//! Version 1, integers big-endian:
//!
//! ```text
//! u8  version, 1
//! u16 status
//! u32 number of headers, then for each: u16 length of the name, name, u32 length of the value, value
//! u32 length of the body, body
//! u32 number of trailers, then each as a header
//! ```
//!
//! Headers are stored in order with repeated names, without those that belong to one connection or one
//! moment. Content-Length keeps its place; decoding sets its value to the length of the body.

use std::fmt;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body;

use crate::body::{End, Held, ResponseBody};
use crate::connection::{HOP_BY_HOP, list_members};

const VERSION: u8 = 1;

/// A response as the store holds it, which an identical retry gets.
///
/// The layer encodes and decodes by itself. This type is for tools that look into a store
/// ([`Engine::get`](oncekey::Engine::get)), and for an operator who finds out how an orphan ended and
/// completes it ([`Orphan::complete`](oncekey::Orphan::complete)) with the response for its client.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use oncekey_http::StoredResponse;
///
/// let response = StoredResponse::new(StatusCode::CREATED, &HeaderMap::new(), "order 7");
/// let bytes = response.encode().expect("far below 4 GiB");
/// assert_eq!(StoredResponse::decode(bytes)?, response);
/// # Ok::<(), oncekey_http::DecodeError>(())
/// ```
///
/// Its `Debug` form shows lengths only: a response may hold secrets of its receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredResponse")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body", &self.body.len())
            .field("trailers", &self.trailers.len())
            .finish()
    }
}

/// Bytes that are not a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes were written by a newer version of this crate, or by another program.
    UnknownVersion(u8),
    /// The bytes end too early.
    Truncated,
    /// More bytes follow after the end.
    TrailingBytes,
    /// No HTTP status has this number.
    Status(u16),
    /// The name or the value of a header is not valid in HTTP, or there are too many headers.
    Header,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownVersion(version) => {
                write!(f, "not a stored response of version {VERSION}, but of {version}")
            }
            Self::Truncated => f.write_str("the stored response is truncated"),
            Self::TrailingBytes => f.write_str("the stored response is followed by other bytes"),
            Self::Status(status) => write!(f, "the stored response has the status {status}"),
            Self::Header => f.write_str("the stored response has an invalid header"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl StoredResponse {
    /// A response without trailers. Headers of one connection and Date are left out.
    pub fn new(status: StatusCode, headers: &HeaderMap, body: impl Into<Bytes>) -> Self {
        let headers = stored_headers(headers);
        let headers = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { status, headers, body: body.into(), trailers: HeaderMap::new() }
    }

    /// The same response with one more header, which replaces headers of the same name.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers, in the order in which they are sent.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The trailers; mostly none.
    pub fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// The response as bytes to complete an operation with; `None` when a part is longer than the format can
    /// express (4 GiB for the body or a value, 65,535 bytes for a name).
    pub fn encode(&self) -> Option<Vec<u8>> {
        let body_len = self.body.len() as u64;
        let mut encoder = Encoder::new(self.status, &self.headers, &[], body_len, usize::MAX)?;
        encoder.push(&self.body).then_some(())?;
        encoder.finish(&self.trailers)
    }

    /// Decodes the bytes that [`encode`](Self::encode) or the layer wrote. The body is not copied.
    ///
    /// # Errors
    /// When the bytes are not a stored response.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let mut bytes = bytes.into();
        match bytes.try_get_u8().map_err(truncated)? {
            VERSION => {}
            other => return Err(DecodeError::UnknownVersion(other)),
        }
        let status = bytes.try_get_u16().map_err(truncated)?;
        let status = StatusCode::from_u16(status).map_err(|_| DecodeError::Status(status))?;
        let mut headers = decode_headers(&mut bytes)?;
        let body_len = bytes.try_get_u32().map_err(truncated)?;
        let body = take(&mut bytes, body_len)?;
        let trailers = decode_headers(&mut bytes)?;
        if !bytes.is_empty() {
            return Err(DecodeError::TrailingBytes);
        }
        if let Some(length) = headers.get_mut(header::CONTENT_LENGTH) {
            *length = HeaderValue::from(body.len());
        }
        Ok(Self { status, headers, body, trailers })
    }

    /// The response to send. `B` is the type of other bodies in the same place.
    pub fn into_response<B: Body<Data = Bytes>>(self) -> Response<ResponseBody<B>> {
        let body = if self.trailers.is_empty() {
            ResponseBody::full(self.body)
        } else {
            let end = End::Trailers(self.trailers);
            ResponseBody::held(Held { frames: [self.body].into(), end })
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Writes a response whose body comes in pieces, up to a limit.
pub(crate) struct Encoder {
    bytes: Vec<u8>,
    /// The position of the length of the body.
    body_len_at: usize,
    limit: usize,
}

impl Encoder {
    /// For a body of at least `body_len` bytes, with at most `limit` bytes in the whole encoding. `None` when
    /// status, headers and `body_len` bytes exceed it.
    pub(crate) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        dropped: &[HeaderName],
        body_len: u64,
        limit: usize,
    ) -> Option<Self> {
        // Without a body decoding could not set the length.
        let bodiless = is_bodiless(status);
        let kept = stored_headers(headers)
            .filter(|(name, _)| !(bodiless && *name == header::CONTENT_LENGTH))
            .filter(|(name, _)| !dropped.contains(name));
        let mut bytes =
            Vec::with_capacity(RESERVED_FOR_HEAD + body_len.min(RESERVED_FOR_BODY) as usize);
        bytes.push(VERSION);
        bytes.extend_from_slice(&status.as_u16().to_be_bytes());
        encode_headers(&mut bytes, kept)?;
        let body_len_at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        let encoder = Self { bytes, body_len_at, limit };
        encoder.fits(body_len).then_some(encoder)
    }

    /// The bytes of body so far.
    pub(crate) fn body_len(&self) -> u64 {
        (self.bytes.len() - self.body_len_at - 4) as u64
    }

    /// Whether `more` bytes of body are within the limit.
    pub(crate) fn fits(&self, more: u64) -> bool {
        let len = (self.bytes.len() + NO_TRAILERS) as u64;
        len.saturating_add(more) <= self.limit as u64
    }

    /// Appends a piece of the body; `false` when it does not fit.
    pub(crate) fn push(&mut self, data: &[u8]) -> bool {
        let fits = self.fits(data.len() as u64);
        if fits {
            self.bytes.extend_from_slice(data);
        }
        fits
    }

    /// The encoded response; `None` when it does not fit.
    pub(crate) fn finish(mut self, trailers: &HeaderMap) -> Option<Vec<u8>> {
        self.close(trailers)?;
        Some(self.bytes)
    }

    /// The encoded response, and the body alone, in one memory.
    pub(crate) fn finish_with_body(mut self, trailers: &HeaderMap) -> (Option<Bytes>, Bytes) {
        let body = self.body_len_at + 4..self.bytes.len();
        let fits = self.close(trailers).is_some();
        let bytes = Bytes::from(self.bytes);
        let body = bytes.slice(body);
        (fits.then_some(bytes), body)
    }

    /// Writes what follows the body; `None` when it does not fit.
    fn close(&mut self, trailers: &HeaderMap) -> Option<()> {
        let body_len = u32::try_from(self.body_len()).ok()?.to_be_bytes();
        self.bytes[self.body_len_at..][..4].copy_from_slice(&body_len);
        encode_headers(&mut self.bytes, trailers.iter())?;
        (self.bytes.len() <= self.limit).then_some(())
    }
}

/// Whether a response of this status has no body.
pub(crate) fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The bytes of an empty list of trailers.
const NO_TRAILERS: usize = 4;

/// Room for everything but the body, so that the buffer of a usual response does not move as it grows.
const RESERVED_FOR_HEAD: usize = 512;

/// The most bytes that are reserved for a body before it arrives: an announced length is not trusted with
/// more memory.
const RESERVED_FOR_BODY: u64 = 16 << 10;

/// The headers of a response that are stored, in order. Headers of one connection (listed by HTTP or named in
/// Connection) are left out, and Date, which belongs to one answer.
fn stored_headers(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let named: Vec<_> = list_members(headers, &header::CONNECTION).collect();
    headers.iter().filter(move |(name, _)| {
        let name_bytes = name.as_str().as_bytes();
        !HOP_BY_HOP.contains(name)
            && *name != header::DATE
            && !named.iter().any(|named| named.eq_ignore_ascii_case(name_bytes))
    })
}

/// `None` when a length does not fit into its field.
fn encode_headers<'a>(
    bytes: &mut Vec<u8>,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> Option<()> {
    let count_at = bytes.len();
    let mut count = 0_u32;
    bytes.extend_from_slice(&count.to_be_bytes());
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        bytes.extend_from_slice(&u16::try_from(name.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(&u32::try_from(value.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(value);
        count = count.checked_add(1)?;
    }
    bytes[count_at..][..4].copy_from_slice(&count.to_be_bytes());
    Some(())
}

fn decode_headers(bytes: &mut Bytes) -> Result<HeaderMap, DecodeError> {
    let count = bytes.try_get_u32().map_err(truncated)?;
    // The count is not trusted with memory: the map grows with the headers that really follow.
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name_len = bytes.try_get_u16().map_err(truncated)?;
        let name = take(bytes, u32::from(name_len))?;
        let value_len = bytes.try_get_u32().map_err(truncated)?;
        let value = take(bytes, value_len)?;
        let name = HeaderName::from_bytes(&name).map_err(|_| DecodeError::Header)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| DecodeError::Header)?;
        headers.try_append(name, value).map_err(|_| DecodeError::Header)?;
    }
    Ok(headers)
}

fn take(bytes: &mut Bytes, len: u32) -> Result<Bytes, DecodeError> {
    match usize::try_from(len) {
        Ok(len) if len <= bytes.len() => Ok(bytes.split_to(len)),
        _ => Err(DecodeError::Truncated),
    }
}

fn truncated(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    fn sample() -> StoredResponse {
        let headers = headers(&[
            ("location", "/orders/7"),
            ("set-cookie", "a=1"),
            ("content-type", "application/json"),
            ("set-cookie", "b=2"),
        ]);
        let mut response = StoredResponse::new(StatusCode::CREATED, &headers, &b"\0binary\xff"[..]);
        response.trailers.insert("x-checksum", HeaderValue::from_static("7"));
        response
    }

    #[test]
    fn status_headers_in_order_body_and_trailers_come_back() {
        let response = sample();
        let decoded = StoredResponse::decode(response.encode().unwrap()).unwrap();
        assert_eq!(decoded, response);
        assert_eq!(names(&decoded.headers), ["location", "set-cookie", "content-type"]);
        let cookies: Vec<_> = decoded.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
    }

    #[test]
    fn version_1_stays_as_it_is() {
        let response = StoredResponse::new(StatusCode::OK, &headers(&[("a", "b")]), "hi");
        let golden = b"\x01\x00\xc8\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x01b\x00\x00\x00\x02hi\x00\x00\x00\x00";
        assert_eq!(response.encode().unwrap(), golden);
    }

    #[test]
    fn headers_of_one_connection_or_one_moment_are_not_stored() {
        let all = headers(&[
            ("connection", "close, X-Private"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "close"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("trailer", "x-checksum"),
            ("etag", "kept"),
        ]);
        let stored = StoredResponse::new(StatusCode::OK, &all, "");
        assert_eq!(names(stored.headers()), ["trailer", "etag"]);
    }

    #[test]
    fn content_length_keeps_its_place_and_is_set_anew() {
        let wrong = headers(&[("x-a", "1"), ("content-length", "99"), ("x-b", "2")]);
        for (status, expected) in [(200, Some("4")), (204, None), (304, None)] {
            let mut encoder =
                Encoder::new(StatusCode::from_u16(status).unwrap(), &wrong, &[], 0, 1000).unwrap();
            assert!(encoder.push(b"fo") && encoder.push(b"ur"));
            let bytes = encoder.finish(&HeaderMap::new()).unwrap();
            let decoded = StoredResponse::decode(bytes).unwrap();
            let length = decoded.headers.get("content-length").map(|v| v.to_str().unwrap());
            assert_eq!(length, expected);
            assert_eq!(decoded.body, "four");
            if expected.is_some() {
                assert_eq!(names(&decoded.headers), ["x-a", "content-length", "x-b"]);
            }
        }
    }

    #[test]
    fn the_limit_is_for_the_whole_encoding() {
        let response = sample();
        let bytes = response.encode().unwrap();
        let encode = |limit| {
            let mut encoder = Encoder::new(response.status, &response.headers, &[], 0, limit)?;
            encoder.push(&response.body).then_some(())?;
            encoder.finish(&response.trailers)
        };
        assert_eq!(encode(bytes.len()), Some(bytes.clone()));
        for limit in 0..bytes.len() {
            assert_eq!(encode(limit), None, "limit {limit}");
        }
    }

    #[test]
    fn every_damaged_encoding_is_an_error_or_what_it_says() {
        let bytes = sample().encode().unwrap();
        for len in 0..bytes.len() {
            let error = StoredResponse::decode(bytes[..len].to_vec()).unwrap_err();
            assert_eq!(error, DecodeError::Truncated, "cut to {len}");
        }
        for position in 0..bytes.len() {
            for flip in 1..=255 {
                let mut damaged = bytes.clone();
                damaged[position] ^= flip;
                if let Ok(other) = StoredResponse::decode(damaged.clone()) {
                    // Header names are stored in lower case.
                    let again = other.encode().unwrap();
                    assert!(again.eq_ignore_ascii_case(&damaged), "byte {position}");
                }
            }
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        let bytes = sample().encode().unwrap();
        let decode = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            StoredResponse::decode(bytes).unwrap_err()
        };
        assert_eq!(decode(&|bytes| bytes[0] = 2), DecodeError::UnknownVersion(2));
        assert_eq!(decode(&|bytes| bytes.push(0)), DecodeError::TrailingBytes);
        assert_eq!(decode(&|bytes| bytes[1..3].fill(0xff)), DecodeError::Status(0xffff));
        assert_eq!(decode(&|bytes| bytes[9] = b' '), DecodeError::Header);
        assert_eq!(decode(&|bytes| bytes[3] = 0xff), DecodeError::Truncated);
        assert!(!DecodeError::Header.to_string().is_empty());
    }

    #[test]
    fn a_response_prints_as_lengths() {
        let text = format!("{:?}", sample());
        assert_eq!(text, "StoredResponse { status: 201, headers: 4, body: 8, trailers: 1 }");
    }
}
