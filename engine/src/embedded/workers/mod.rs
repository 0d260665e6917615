//! The two workers of an open store. The committer owns the journal, the fold worker owns the store.

pub(crate) mod committer;
mod departure;
pub(crate) mod fold_worker;
mod pace;
