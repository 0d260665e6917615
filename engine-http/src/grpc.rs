//! gRPC and gRPC-Web: which messages belong to them, the statuses, and whether a response is one message.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, response};

/// Stands among the trailers, or among the headers of a call that ends without a message.
pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The time after which a client with a retry policy tries again, in milliseconds. Source: gRFC A6.
pub(crate) const RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The status codes of refusals. Source: <https://grpc.io/docs/guides/status-codes/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unavailable = 14,
}

/// Whether the content type of a request or a response is one of gRPC or gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return false };
    let value = value.as_bytes();
    const PREFIX: &[u8] = b"application/grpc";
    value.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        && matches!(value.get(PREFIX.len()), None | Some(b'+' | b'-' | b';' | b' '))
}

/// The HTTP status that corresponds to the `grpc-status` among the headers of a response, for policies that
/// decide by the status. `None` when the headers have none: the call may have succeeded. Source:
/// google.rpc.Code.
pub fn http_status(response: &response::Parts) -> Option<StatusCode> {
    if !is_grpc(&response.headers) {
        return None;
    }
    let status = match response.headers.get(STATUS)?.as_bytes() {
        b"0" => 200,
        b"3" | b"9" | b"11" => 400,
        b"16" => 401,
        b"7" => 403,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"8" => 429,
        b"1" => 499,
        b"12" => 501,
        b"14" => 503,
        b"4" => 504,
        _ => 500,
    };
    StatusCode::from_u16(status).ok()
}

/// A text as `grpc-message` carries it. Source: the protocol of gRPC over HTTP/2, "Status-Message".
pub(crate) fn percent_encoded(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    // Printable ASCII is always a valid header value.
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

/// Follows the messages of a gRPC or gRPC-Web body, to tell a unary call from a stream: a service that holds
/// back a response until it is whole must pass on a stream. Do not give it bodies of
/// `application/grpc-web-text`, which are in base64.
// Each message: one byte of flags, four of length, the message.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: Vec<u8>,
    /// The missing bytes of the message that has begun.
    left: usize,
    begun: usize,
}

/// The flag of gRPC-Web for trailers, which do not count as a message.
const TRAILERS: u8 = 0x80;

impl Messages {
    /// Reads the next piece of the body. `true` once a second message has begun: the call is a stream.
    pub fn is_stream_after(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            if self.left > 0 {
                let read = self.left.min(data.len());
                self.left -= read;
                data = &data[read..];
                continue;
            }
            self.prefix.push(data[0]);
            data = &data[1..];
            if self.prefix.len() == 1 && self.prefix[0] & TRAILERS == 0 {
                self.begun += 1;
            }
            if let [_, length @ ..] = self.prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.prefix.clear();
            }
        }
        self.begun > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_told_apart() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC; charset=x", true),
            ("application/grpc-web+proto", true),
            ("application/grpcish", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                HeaderValue::from_static(content_type),
            )]);
            assert_eq!(is_grpc(&headers), expected, "{content_type}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_second_message_is_noticed_however_the_bytes_are_cut() {
        let message = |flag: u8, text: &str| {
            let mut bytes = vec![flag];
            bytes.extend((text.len() as u32).to_be_bytes());
            bytes.extend(text.as_bytes());
            bytes
        };
        let unary = message(0, "one");
        let web = [message(0, "one"), message(TRAILERS, "grpc-status:0")].concat();
        let stream = [message(0, "one"), message(1, "")].concat();
        for (bytes, expected) in [(unary, false), (web, false), (stream, true), (vec![], false)] {
            for piece in 1..=bytes.len().max(1) {
                let mut messages = Messages::default();
                let said =
                    bytes.chunks(piece).fold(false, |_, data| messages.is_stream_after(data));
                assert_eq!(said, expected, "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(percent_encoded("100 % sure\n\u{e9}"), "100 %25 sure%0A%C3%A9");
    }
}
