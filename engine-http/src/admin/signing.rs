//! Signs browsers in and out.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::json;

use super::access::Access;
use super::desk::{Desk, Shared};
use super::gate::{self, COOKIE, Operating, SECURE_COOKIE};
use super::refusal::Refusal;
use super::reports::Answer;
use super::sessions::{LINK, SESSION};
use super::text::millis;

/// The longest body of a request to sign in.
const MAX_BODY: usize = 4096;

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// Gives a session cookie for a token, or for the token of a link. A cookie without `Path` is sent to the
/// paths beside this one, under any prefix that a proxy in front adds.
pub(crate) async fn sign_in(
    State((desk, access)): State<(Arc<Desk>, Access)>,
    request: Request,
) -> Result<Response, Refusal> {
    if !access.allows(request.headers()) {
        return Err(gate::wrong_host());
    }
    if !gate::is_of_our_page(&request) {
        let message = "sign in with Content-Type: application/json, from a page of this server";
        return Err(Refusal::forbidden("csrf", message));
    }
    let (peer, sessions) = (gate::peer(&request), &desk.common.sessions);
    if sessions.is_shut_out(peer) {
        return Err(gate::too_many());
    }
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
    let body = body.map_err(|error| Refusal::bad(error.to_string()))?;
    let Token { token } =
        serde_json::from_slice(&body).map_err(|error| Refusal::bad(error.to_string()))?;
    let by_token =
        || access.role_of(token.as_bytes()).map(|role| (gate::of_token(role).name, role));
    let Some((name, role)) = sessions.follow(token.as_bytes()).or_else(by_token) else {
        sessions.guessed(peer);
        return Err(gate::unauthorized());
    };
    let opened = sessions.open(name, role);
    let (cookie, csrf) = opened.map_err(|error| Refusal::failed(error.to_string()))?;
    let signed_in = Json(json!({ "role": role.as_str(), "csrf": csrf }));
    Ok(([(header::SET_COOKIE, set(&access, &cookie, SESSION.as_secs()))], signed_in)
        .into_response())
}

/// Ends a session. The gate has already refused requests that another site caused.
pub(crate) async fn sign_out(
    State((desk, access)): State<(Arc<Desk>, Access)>,
    headers: HeaderMap,
) -> Response {
    if let Some(cookie) = gate::cookie(&headers, &access) {
        desk.common.sessions.close(cookie);
    }
    ([(header::SET_COOKIE, set(&access, "", 0))], Json(json!({ "signedOut": true })))
        .into_response()
}

fn set(access: &Access, value: &str, seconds: u64) -> String {
    let attributes = format!("Max-Age={seconds}; HttpOnly; SameSite=Strict");
    match access.is_secure() {
        true => format!("{SECURE_COOKIE}={value}; {attributes}; Secure; Path=/"),
        false => format!("{COOKIE}={value}; {attributes}"),
    }
}

/// A token that signs one browser in, within a minute.
pub(crate) async fn link(State(desk): Shared, Operating(caller): Operating) -> Answer {
    let token = desk.common.sessions.link(&caller);
    let token = token.map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(Json(json!({ "token": token, "expiresInMs": millis(LINK) })))
}
