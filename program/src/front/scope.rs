//! Who a key belongs to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use crate::config::Scope;
use crate::wire::problem::Problem;

/// The longest scope, in bytes.
const MAX: usize = 255;

/// The scope of a request, in its extensions, for the layer's policy.
#[derive(Clone, Default)]
pub(crate) struct Scoped(pub(crate) Vec<u8>);

/// Puts the scope of a request into its extensions, or says why there is none.
pub(crate) fn resolve(scope: &Scope, parts: &mut Parts) -> Result<(), Problem> {
    let scope = match scope {
        Scope::None => return Ok(()),
        Scope::Header(name) => one(&parts.headers, name).map(<[u8]>::to_vec),
        Scope::BasicUser => basic_user(&parts.headers),
    };
    match scope.filter(|scope| (1..=MAX).contains(&scope.len())) {
        Some(scope) => {
            parts.extensions.insert(Scoped(scope));
            Ok(())
        }
        None => Err(missing()),
    }
}

fn missing() -> Problem {
    let detail = "The request does not say, in the form that is asked for, who its idempotency \
        key belongs to. The key was not used.";
    Problem::new(StatusCode::BAD_REQUEST, "idempotency_scope_missing", detail)
}

/// The one value of a header.
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
        resolve(&Scope::parse(scope).unwrap(), &mut parts).ok()?;
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
    fn other_specifications_are_refused() {
        for wrong in ["tenant", "header:", "header:a b", "jwt:sub"] {
            assert!(Scope::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(resolved("none", &[]), Some(vec![]));
    }
}
