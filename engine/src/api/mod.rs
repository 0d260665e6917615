//! The types in a caller's hands: the engine, the five answers to a begin, claims, orphans and pending answers.
//!
//! Nothing here knows where records live: every operation goes through the seam in
//! [`backend`](crate::backend).

pub(crate) mod attempt;
pub(crate) mod begin;
pub(crate) mod claim;
pub(crate) mod engine;
pub(crate) mod listed;
pub(crate) mod orphan;
pub(crate) mod pending;
pub(crate) mod run;
