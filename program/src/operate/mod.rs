//! The commands of operators: every command but `proxy`. docs/commands.md lists them.
//!
//! A command asks a [`Place`](place::Place), which is the server that holds the store, its files, or a shared
//! server. Every place answers with JSON in the form of the API, and [`output`] prints it.

mod client;
mod copies;
mod desk;
mod doctor;
mod held;
mod keep;
mod keys;
mod orphans;
mod output;
mod pages;
mod place;
mod resolution;
mod resolve;
mod show;
mod stats;
mod top;
mod upkeep;
mod whereabouts;

pub(crate) use copies::{Backup, Restore, Verify};
pub(crate) use doctor::Doctor;
pub(crate) use keys::{Export, Get, Ls};
pub(crate) use orphans::Orphans;
pub(crate) use output::Output;
pub(crate) use pages::{Completions, Man};
pub(crate) use resolve::Resolve;
pub(crate) use stats::{Expiry, Stats};
pub(crate) use top::Top;
pub(crate) use upkeep::{Console, Ctl, Health};
