//! Idempotency keys for actix-web: a request that is sent twice with the same key runs once, and the
//! second caller gets the first response, across retries, concurrent duplicates, crashes and power loss.
//!
//! ```no_run
//! use actix_web::{App, HttpServer, web};
//! use oncekey_actix::Idempotent;
//!
//! async fn create(body: String) -> String {
//!     format!("created: {body}") // runs once for each idempotency key
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # actix_web::rt::System::new().block_on(async {
//! let idempotent = Idempotent::new(oncekey::Engine::open("./idempotency")?);
//! let keys = idempotent.clone();
//! let server = HttpServer::new(move || {
//!     App::new().wrap(keys.clone()).route("/orders", web::post().to(create))
//! });
//! server.bind("127.0.0.1:8080")?.run().await?;
//! idempotent.idempotency().engine().close()?;
//! # Ok(()) }) }
//! ```
//!
//! The contract, its presets and the policies are those of [`oncekey_http`]. The differences are:
//!
//! - A handler runs in a task of its worker. A client that disconnects does not stop it. The end of the
//!   worker stops it, and its outcome is then unknown. To let such handlers end, call
//!   [`pause`](actix_web::dev::ServerHandle::pause), wait for [`Idempotency::drained`], then call
//!   [`stop`](actix_web::dev::ServerHandle::stop).
//! - The handler finds its [`Attempt`] in the extensions of the request (`web::ReqData<Attempt>`), and puts
//!   `NotExecuted` and the other markers into the extensions of the response.
//! - An error that a middleware inside returns is a response, as actix-web makes it: 401 frees the key, 500 is
//!   stored. Layers outside get an error with the same response.
//! - actix-web sends no trailers, and keeps no order among headers of different names.
#![forbid(unsafe_code)]

mod body;
mod convert;
mod middleware;

pub use middleware::{Idempotent, IdempotentService};
pub use oncekey_http::{Attempt, Contract, Idempotency, Policy, Recovery, Stored};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
