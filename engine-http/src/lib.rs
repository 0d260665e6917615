//! Idempotency keys for tower services: a request that is sent twice with the same key runs once,
//! and the second caller gets the first response, across retries, concurrent duplicates, crashes
//! and power loss.
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use oncekey_http::IdempotencyLayer;
//!
//! # async fn create_order() -> &'static str { "created" }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = oncekey::Engine::open("./idempotency")?;
//! let app: Router = Router::new()
//!     .route("/orders", post(create_order))
//!     .layer(IdempotencyLayer::new(engine));
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! axum::serve(listener, app).await?;
//! # Ok(()) }
//! ```
//!
//! # What a client gets
//!
//! A request takes part when its method is not safe (GET, HEAD, OPTIONS, TRACE pass through, and so does CONNECT)
//! and it carries the header `X-Idempotency-Key` or `Idempotency-Key`, 1 to 255 bytes without control characters.
//!
//! | scenario | answer |
//! |---|---|
//! | first request with a key | the handler runs; its response is stored before its first byte is sent |
//! | identical retry | the stored response: same status, headers and body; the handler does not run |
//! | duplicate while the first runs | 409 `idempotency_key_locked`, `Retry-After: 1`, `retryAfterMs` of 100 to 500; or it [waits](Policy::wait) |
//! | same key, another request | 409 `idempotency_key_mismatch`; `parts` names what differs |
//! | an earlier attempt died | 409 `idempotency_outcome_unknown`, or see [`Recovery::Retry`] |
//! | key malformed or sent twice | 400 `idempotency_key_invalid` |
//! | key missing where it is [required](Policy::required) | 400 `idempotency_key_missing`; else the request passes through |
//! | request body over the [limit](Policy::max_request_body) | 413 `idempotency_body_too_large`, the key is unused |
//! | request body cannot be read | 400 `idempotency_body_unreadable`, the key is unused |
//! | request body stalled for [30 s](IdempotencyLayer::body_idle) | 408 `idempotency_body_timeout`, the key is unused |
//! | request bodies over their [budget](IdempotencyLayer::max_buffered) | 503 `idempotency_overloaded`, the key is unused |
//! | the handler could not be started | 503 `idempotency_overloaded`, the key is free |
//! | store unavailable | 503 `idempotency_store_unavailable`, the handler does not run |
//! | response too large or streaming, on a retry | 409 `idempotency_response_not_stored`, never a second run |
//!
//! Refusals are `application/problem+json` (RFC 9457) with the code in the member `code`. A [`Contract`]
//! changes the names and numbers of this table and the form of refusals. A [`Policy`] decides, route by
//! route, which responses are stored and whether a key is required. A gRPC call is refused with a gRPC
//! status, with the code in `grpc-message`.
//!
//! Servers that are not built from tower services use [`Idempotency`], the contract without a server; for
//! actix-web there is the crate `oncekey-actix`.
//!
//! Two requests are identical when their method, path with query, authority, body and meaningful headers are
//! equal. [`FingerprintedHeaders`](oncekey::FingerprintedHeaders) lists the headers that change the meaning
//! of a request; [`fingerprint_headers`](Policy::fingerprint_headers) chooses others.
//! [`Fingerprint::of_http`](oncekey::Fingerprint::of_http) is the rule, byte for byte. With the feature
//! `axum` the path is the one that the client sent, also in a nested `axum::Router`. Other routers that strip
//! a prefix before this layer make two mounts look alike: put the layer outside of such a router, or put the
//! name of the mount into the [scope](Policy::scope).
//!
//! # What a handler should know
//!
//! - Every response is stored, 5xx too, because the handler may have acted before it failed. Only
//!   401, 425, 429 and a response that carries [`NotExecuted`] free the key; see [`Stored`] for other
//!   policies.
//! - The request that runs has an [`Attempt`] in its extensions. It holds the number of the attempt, the
//!   checkpoint of the attempt before it, its fencing token, and keys for calls downstream.
//! - A response may carry [`NotExecuted`], [`OutcomeUnknown`], [`NotStored`] and [`Ttl`] in its extensions.
//! - The handler runs in a task of its own: a client that disconnects does not stop it, and its response is
//!   stored for the retry. [`IdempotencyLayer::drained`] waits for such tasks at shutdown.
//! - A panic reaches the task that serves the connection, as if the layer were not there: a `CatchPanic`
//!   layer outside answers 500, else the server closes the connection. The outcome is then unknown. It is
//!   also unknown when the inner service fails with an error of its own, when the response body fails before
//!   its end, or when the task is cancelled with its runtime.
//! - The request body arrives in one piece, without trailers. The response body is held back until it is
//!   stored. Three kinds of responses are sent as they come, and their operation is completed without a
//!   response: one whose length is over the [limit](Policy::max_response), a stream (`text/event-stream`,
//!   `multipart/x-mixed-replace`, gRPC from its second message on, a switch of protocols), and one that
//!   carries [`NotStored`].
//!
//! When a response cannot be stored because the store failed, the client still gets the response, and the
//! failure is logged and [counted](LayerStats::complete_failed). Retries get 503 until
//! [`Engine::reopen`](oncekey::Engine::reopen), then the response or 409 `idempotency_outcome_unknown`.
//!
//! # Features
//!
//! `tokio` (default) runs handlers in tokio tasks; [`IdempotencyLayer::with_spawner`] takes another executor.
//! `tracing` (default) logs failures that no client sees, and keeps the span of a request around its handler.
//! `axum` (default) takes the target of a request from `axum::extract::OriginalUri` when a router left one.
//! `metrics` reports the figures of the engine and of [`LayerStats`]. `admin` (off) brings `Admin`, a router
//! for operators.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
mod admin;
mod attempt;
mod body;
mod budget;
mod config;
mod connection;
mod contract;
mod detached;
mod exchange;
mod execution;
mod fingerprint;
mod future;
mod grpc;
mod idempotency;
mod key;
mod layer;
mod log;
mod markers;
mod policy;
mod reading;
mod recorded;
mod rejection;
mod running;
mod service;
mod stats;

#[cfg(feature = "admin")]
pub use admin::{Access, Admin, Caller, ControlSocket};
#[cfg(feature = "admin")]
#[doc(hidden)]
pub use admin::{describe, resolution};
#[doc(hidden)]
pub use attempt::Taken;
pub use attempt::{Attempt, CheckpointError};
pub use body::{RequestBody, ResponseBody};
pub use connection::{HOP_BY_HOP, list_members};
pub use contract::{Contract, KeyForm, Methods, Refusals, Statuses};
pub use detached::Task;
pub use execution::Execution;
pub use future::ResponseFuture;
pub use grpc::{Messages as GrpcMessages, http_status as http_status_of_grpc, is_grpc};
pub use idempotency::{Admission, BufferedBody, Idempotency, Keyed, Refusal, Ruling};
pub use layer::IdempotencyLayer;
pub use markers::{Answered, NotExecuted, NotStored, OutcomeUnknown, Ttl};
pub use policy::{Policy, Recovery, Stored};
pub use recorded::{DecodeError, StoredResponse};
pub use service::IdempotencyService;
pub use stats::LayerStats;

/// The examples of the READMEs, of this crate and of the repository.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;

/// The snippets of the pages about this layer.
#[cfg(doctest)]
#[doc = include_str!("../../docs/http.md")]
struct HttpExamples;

#[cfg(doctest)]
#[doc = include_str!("../../docs/queues.md")]
#[doc = include_str!("../../docs/testing.md")]
struct PagesExamples;

#[cfg(all(doctest, feature = "admin"))]
#[doc = include_str!("../../docs/operations.md")]
struct OperationsExamples;
