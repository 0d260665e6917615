//! Access control: the middleware before each request, and the roles that handlers require.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;

use super::access::Access;
use super::caller::{Caller, Role};
use super::desk::Desk;
use super::refusal::Refusal;

/// A header that another site cannot make a browser send.
const CSRF: &str = "oncekey-csrf";

/// The cookie of a session. A browser accepts the second name over TLS alone.
pub(crate) const COOKIE: &str = "oncekey_session";
pub(crate) const SECURE_COOKIE: &str = "__Host-oncekey_session";

/// The gate of the router behind an embedder's own authentication. A request without a [`Caller`] counts as
/// an operator's. A bearer token is sent by programs alone. A browser attaches all other credentials by
/// itself, whichever page causes the request, so such a request needs the CSRF value.
pub(crate) async fn behind(
    State(desk): State<Arc<Desk>>,
    mut request: Request,
    next: Next,
) -> Response {
    let known = request.extensions_mut().remove::<Caller>();
    let mut caller = known.unwrap_or_else(|| Caller::operator("operator"));
    caller.peer = caller.peer.or_else(|| peer(&request).map(|peer| peer.to_string()));
    if bearer(request.headers()).is_none() {
        caller.csrf.clone_from(&desk.csrf);
    }
    admit(caller, request, next).await
}

/// The gate of the guarded router: requires a token or a session, and a name of this host.
pub(crate) async fn guard(
    State((desk, access)): State<(Arc<Desk>, Access)>,
    request: Request,
    next: Next,
) -> Response {
    if !access.allows(request.headers()) {
        return wrong_host().into_response();
    }
    match authenticate(&desk, &access, &request) {
        Ok(caller) => admit(caller, request, next).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The gate of pages without authentication, such as the page that asks for a token: requires a name of this
/// host.
pub(crate) async fn at_this_host(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Response {
    if !access.allows(request.headers()) {
        return wrong_host().into_response();
    }
    next.run(request).await
}

fn authenticate(desk: &Desk, access: &Access, request: &Request) -> Result<Caller, Refusal> {
    let peer = peer(request);
    let sessions = &desk.common.sessions;
    let mut caller = if let Some(token) = bearer(request.headers()) {
        if sessions.is_shut_out(peer) {
            return Err(too_many());
        }
        let role = access.role_of(token).ok_or_else(|| {
            sessions.guessed(peer);
            unauthorized()
        })?;
        of_token(role)
    } else {
        let cookie = cookie(request.headers(), access);
        cookie.and_then(|cookie| sessions.find(cookie)).ok_or_else(unauthorized)?
    };
    caller.peer = peer.map(|peer| peer.to_string());
    Ok(caller)
}

/// The caller that a token of this role stands for.
pub(crate) fn of_token(role: Role) -> Caller {
    match role {
        Role::Viewer => Caller::viewer("viewer token"),
        Role::Operator => Caller::operator("operator token"),
    }
}

pub(crate) fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", "sign in, or send a token")
}

pub(crate) fn wrong_host() -> Refusal {
    let message = "this server is not for that host; name it in [admin] hosts";
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", message)
}

pub(crate) fn too_many() -> Refusal {
    let message = "too many wrong tokens from this address; wait a minute";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_tries", message)
}

/// Passes a request on, unless it is a change that another site may have made the browser send.
pub(crate) async fn admit(caller: Caller, mut request: Request, next: Next) -> Response {
    if let Some(csrf) = &caller.csrf
        && !request.method().is_safe()
        && !(is_of_our_page(&request) && says(request.headers(), csrf))
    {
        let message = "a change asked for by a browser needs Content-Type: application/json, the \
            header Oncekey-Csrf as GET info gives it, and a page of this server";
        return Refusal::forbidden("csrf", message).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// Whether the request comes from a page of this server: another site cannot send this type or method without
/// a preflight request, which this server does not allow.
pub(crate) fn is_of_our_page(request: &Request) -> bool {
    let headers = request.headers();
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    let site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
    // A DELETE has no body and so no type; its method alone needs a preflight.
    site && (json || request.method() == Method::DELETE)
}

fn says(headers: &HeaderMap, csrf: &str) -> bool {
    use super::secret::Digest;
    headers
        .get(CSRF)
        .is_some_and(|value| Digest::of(value.as_bytes()) == Digest::of(csrf.as_bytes()))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The cookie of a session.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, access: &Access) -> Option<&'a [u8]> {
    let name = if access.is_secure() { SECURE_COOKIE } else { COOKIE };
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

pub(crate) fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}

/// A caller who may see.
pub(crate) struct Viewing(pub(crate) Caller);

/// A caller who may change.
pub(crate) struct Operating(pub(crate) Caller);

impl FromRequestParts<Arc<Desk>> for Viewing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Desk>) -> Result<Self, Refusal> {
        parts.extensions.get().cloned().map(Self).ok_or_else(unauthorized)
    }
}

impl FromRequestParts<Arc<Desk>> for Operating {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Refusal> {
        let Viewing(caller) = Viewing::from_request_parts(parts, desk).await?;
        if caller.role != Role::Operator {
            return Err(Refusal::forbidden("forbidden", "this needs an operator"));
        }
        if desk.settings.read_only && !parts.method.is_safe() {
            return Err(Refusal::forbidden("read_only", "this server is read only"));
        }
        Ok(Self(caller))
    }
}

/// A JSON body. An invalid one is refused in the form of all other refusals.
pub(crate) struct Said<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Desk>> for Said<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, desk: &Arc<Desk>) -> Result<Self, Refusal> {
        let Json(said) = Json::<T>::from_request(request, desk).await?;
        Ok(Self(said))
    }
}
