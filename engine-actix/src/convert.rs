//! Converts heads of actix-web to those of the crate `http`, which has another version there, and back.

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use oncekey_http::{Attempt, NotExecuted, NotStored, OutcomeUnknown, Ttl};

/// The head of a request, with an [`Attempt`] as its only extension. `None` when the crate `http` refuses a
/// part of the head; actix-web would have refused it before.
pub(crate) fn request(request: &ServiceRequest) -> Option<Parts> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
    parts.uri = Uri::try_from(request.uri().to_string()).ok()?;
    parts.headers = headers(request.headers())?;
    if let Some(attempt) = actix_web::HttpMessage::extensions(request).get::<Attempt>() {
        parts.extensions.insert(attempt.clone());
    }
    Some(parts)
}

fn headers(headers: &actix_web::http::header::HeaderMap) -> Option<HeaderMap> {
    let mut converted = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        converted.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(converted)
}

/// The head of a response with its markers, around `body`. `None` when the crate `http` refuses a part of the
/// head.
pub(crate) fn response<B: Body>(head: &HttpResponse<()>, body: B) -> Option<Response<B>> {
    let mut headers = headers(head.headers())?;
    // actix-web sends the length that the body says, whatever the handler has set.
    if let (Some(announced), Some(length)) =
        (headers.get_mut(http::header::CONTENT_LENGTH), body.size_hint().exact())
    {
        *announced = HeaderValue::from(length);
    }
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(head.status().as_u16()).ok()?;
    *response.headers_mut() = headers;
    let (said, markers) = (head.extensions(), response.extensions_mut());
    if let Some(marker) = said.get::<NotExecuted>() {
        markers.insert(*marker);
    }
    if let Some(marker) = said.get::<NotStored>() {
        markers.insert(*marker);
    }
    if let Some(marker) = said.get::<OutcomeUnknown>() {
        markers.insert(*marker);
    }
    if let Some(marker) = said.get::<Ttl>() {
        markers.insert(*marker);
    }
    drop(said);
    Some(response)
}

/// A response of the contract, for actix-web to send.
pub(crate) fn answer<B>(response: Response<B>) -> HttpResponse<B> {
    use actix_web::http::{StatusCode, header};
    let (parts, body) = response.into_parts();
    // Both crates accept the same statuses, names and values.
    let status = StatusCode::from_u16(parts.status.as_u16());
    let mut answer = HttpResponse::new(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for (name, value) in &parts.headers {
        let name = header::HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, header::HeaderValue::from_bytes(value.as_bytes())) {
            answer.headers_mut().append(name, value);
        }
    }
    answer.set_body(body)
}

/// The length that the head of a request declares; 0 when it declares none.
pub(crate) fn declared_length(request: &Parts) -> u64 {
    let length = request.headers.get(http::header::CONTENT_LENGTH);
    length.and_then(|length| length.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// A payload of bytes that are read already.
pub(crate) fn payload(bytes: Bytes) -> actix_web::dev::Payload {
    actix_web::dev::Payload::from(bytes)
}
