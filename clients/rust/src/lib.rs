#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod answer;
mod key;
mod retry;
#[cfg(feature = "reqwest")]
mod sender;

pub use answer::Answer;
pub use key::{InvalidKey, Key};
pub use retry::{Next, Policy, Retry, Why};
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use sender::{Failed, Sent, Time, TokioTime, send, send_with};

/// The Rust snippets of the page for clients.
#[cfg(all(doctest, feature = "reqwest"))]
#[doc = include_str!("../../../docs/clients.md")]
struct ClientsExamples;
