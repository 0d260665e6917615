//! Headers that speak about one connection, not about the message.

use http::{HeaderMap, HeaderName, header};

/// Headers that speak about one connection and end there: neither a cache nor a proxy passes them on. So do the headers
/// that the [members](list_members) of `Connection` name.
///
/// Source: RFC 9110, section 7.6.1, and those of RFC 2616, section 13.5.1, that it does not list any more. `Trailer` is
/// none of them: it is about the message (section 6.6.2), and HTTP/1.1 sends only the trailers that it names.
pub const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The members of a header that is a list, over all its values, as they were sent; a member is
/// empty where two commas follow each other.
pub fn list_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii)
}
