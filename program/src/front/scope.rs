//! The scope of a request: the party that its key belongs to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use serde_json::Value;

use super::jwt::Tokens;
use super::peer::Peer;
use crate::config::{CertificateName, Scope};
use crate::wire::problem::Problem;
use oncekey_http::describe::percent_decode;

/// The longest scope, in bytes.
const MAX: usize = 255;

/// The scope of a request, in its extensions, for the layer's policy.
#[derive(Clone, Default)]
pub(crate) struct Scoped(pub(crate) Vec<u8>);

/// The sources of a scope, apart from the head of the request.
pub(crate) struct Sources<'a> {
    pub(crate) peer: &'a Peer,
    /// Whether a trusted proxy sent the request.
    pub(crate) trusted: bool,
    pub(crate) tokens: Option<&'a Tokens>,
    /// The parameters of the route's path.
    pub(crate) parameters: &'a [(String, String)],
}

/// Puts the scope of a request into its extensions, or returns the refusal.
pub(crate) fn resolve(
    scope: &Scope,
    parts: &mut Parts,
    sources: &Sources<'_>,
) -> Result<(), Problem> {
    let found = match scope {
        Scope::None => return Ok(()),
        Scope::Header(name) => one(&parts.headers, name).map(<[u8]>::to_vec),
        Scope::BasicUser => basic_user(&parts.headers),
        Scope::Mtls(name) => sources.peer.certificate.as_ref().and_then(|names| {
            let name = match name {
                CertificateName::SanUri => names.san_uri.clone(),
                CertificateName::SanDns => names.san_dns.clone(),
                CertificateName::Sha256 => Some(names.sha256.clone()),
            };
            name.map(String::into_bytes)
        }),
        Scope::Jwt(claim) => claim_of(&parts.headers, claim, sources),
        Scope::Path(name) => {
            let parameter = sources.parameters.iter().find(|(each, _)| each == name);
            parameter.and_then(|(_, value)| percent_decode(value.as_bytes()))
        }
    };
    match found.filter(|scope| (1..=MAX).contains(&scope.len())) {
        Some(scope) => {
            parts.extensions.insert(Scoped(scope));
            Ok(())
        }
        None => Err(missing()),
    }
}

/// A claim of the bearer token, if it is a text or a number.
fn claim_of(headers: &HeaderMap, claim: &str, sources: &Sources<'_>) -> Option<Vec<u8>> {
    let (scheme, token) = one(headers, &header::AUTHORIZATION)?.split_at_checked(7)?;
    let token = scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())?;
    match sources.tokens?.claims(token, sources.trusted)?.remove(claim)? {
        Value::String(text) => Some(text.into_bytes()),
        Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

fn missing() -> Problem {
    let detail = "The request does not say, in the form that is asked for, who its idempotency \
        key belongs to. The key was not used.";
    Problem::new(StatusCode::BAD_REQUEST, "idempotency_scope_missing", detail)
}

/// The value of a header that occurs exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes().trim_ascii())
}

/// The user of `Authorization: Basic`. Source: RFC 7617, section 2.
fn basic_user(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, credentials) = one(headers, &header::AUTHORIZATION)?.split_at_checked(6)?;
    let encoded = scheme.eq_ignore_ascii_case(b"basic ").then(|| credentials.trim_ascii())?;
    let mut credentials = STANDARD.decode(encoded).ok()?;
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    credentials.truncate(colon);
    Some(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn resolved(scope: &str, headers: &[(&str, &str)]) -> Option<Vec<u8>> {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let peer = Peer::default();
        let sources = Sources { peer: &peer, trusted: false, tokens: None, parameters: &[] };
        resolve(&Scope::parse(scope).unwrap(), &mut parts, &sources).ok()?;
        Some(parts.extensions.remove::<Scoped>().unwrap_or_default().0)
    }

    #[test]
    fn a_header_is_a_scope_when_it_is_there_once() {
        let scope = "header:X-Tenant";
        assert_eq!(resolved(scope, &[("x-tenant", " acme ")]), Some(b"acme".to_vec()));
        let long = "t".repeat(256);
        for refused in [
            &[][..],
            &[("x-tenant", "")],
            &[("x-tenant", "a"), ("x-tenant", "a")],
            &[("x-tenant", &long)],
        ] {
            assert_eq!(resolved(scope, refused), None, "{refused:?}");
        }
    }

    #[test]
    fn the_user_of_basic_authentication_without_the_password() {
        let of = |value| resolved("basic-user", &[("authorization", value)]);
        let expected = Some(b"Aladdin".to_vec());
        assert_eq!(of("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), expected);
        assert_eq!(of("bASIC QWxhZGRpbjpvdGhlcg=="), expected);
        for refused in ["Basic", "Bearer QWxh", "Basic ???", "Basic QWxhZGRpbg==", "Basic OnB3"] {
            assert_eq!(of(refused), None, "{refused}");
        }
        assert_eq!(resolved("basic-user", &[]), None);
    }

    #[test]
    fn a_parameter_of_the_path_is_decoded() {
        let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let parameters = [parameter("tenant", "a%2Fb"), parameter("signed", "%+f")];
        let peer = Peer::default();
        let sources =
            Sources { peer: &peer, trusted: false, tokens: None, parameters: &parameters };
        let resolved = |scope: &str| {
            let (mut parts, ()) = Request::post("/").body(()).unwrap().into_parts();
            resolve(&Scope::parse(scope).unwrap(), &mut parts, &sources).ok()?;
            Some(parts.extensions.remove::<Scoped>().unwrap().0)
        };
        assert_eq!(resolved("path:tenant"), Some(b"a/b".to_vec()));
        assert_eq!(resolved("path:other"), None);
        assert_eq!(resolved("path:signed"), None, "a sign is no digit");
        assert_eq!(resolved("mtls:sha256"), None, "there is no certificate");
        assert_eq!(resolved("jwt:sub"), None, "there is no token");
    }
}
