#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "http")]
mod attempt;
mod column;
mod common;
mod connection;
mod creation;
mod handshake;
mod image;
mod lane;
mod open;
mod options;
mod rows;
mod statements;
mod store;
mod tls;
mod transaction;
mod upkeep;

#[cfg(feature = "http")]
pub use attempt::{AttemptCompleted, CompleteAttemptIn};
#[doc(inline)]
pub use oncekey::fleet::Options as EngineOptions;
pub use options::Options;
pub use store::PostgresStore;
pub use transaction::{CompleteIn, Completed, Connection};

/// The group statements and those that read rows, with the names of their types: for tests of their plans.
#[doc(hidden)]
pub fn gated_statements(schema: &str) -> Vec<(&'static str, String, Vec<String>)> {
    let all = statements::Statements::new(schema);
    [
        ("new claim", all.lean.claim),
        ("end of a claim", all.lean.change),
        ("new claims", all.lean.claims),
        ("ends of claims", all.lean.changes),
        ("new claims and ends of claims", all.lean.group),
        ("any claim", all.full.claim),
        ("any change", all.full.change),
        ("any claims", all.full.claims),
        ("any changes", all.full.changes),
        ("any group", all.full.group),
        ("read", all.read),
        ("orphans", all.orphans),
    ]
    .into_iter()
    .map(|(name, sql)| (name, sql.text, sql.types.iter().map(|of| of.name().to_owned()).collect()))
    .collect()
}

/// The snippets of the page about fleets.
#[cfg(doctest)]
#[doc = include_str!("../../docs/fleet.md")]
struct FleetExamples;
