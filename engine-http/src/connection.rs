//! Headers that describe one connection and not the message.

use http::{HeaderMap, HeaderName, header};

/// Headers that describe one connection and end there: neither a cache nor a proxy passes them on. The
/// headers that the [members](list_members) of `Connection` name end there too.
///
/// Source: RFC 9110, section 7.6.1, and the headers of RFC 2616, section 13.5.1, that RFC 9110 does not list
/// any more. `Trailer` is not in the list: it describes the message (section 6.6.2), and HTTP/1.1 sends only
/// the trailers that `Trailer` names.
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

/// The members of a list header, over all its values, as they were sent but without white space around them.
/// A member is empty where two commas follow each other.
pub fn list_members<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii)
}
