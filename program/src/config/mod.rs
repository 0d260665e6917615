//! What the proxy is told: by flags, by the environment, by a file, in this order of precedence.

mod file;
mod listen;
mod model;
mod outcomes;
mod print;
mod scope;
mod section;
mod target;

pub(crate) use file::read;
pub(crate) use listen::Listen;
pub(crate) use model::{Config, ContractName, LogFormat, Policy, Upstream, marker};
pub(crate) use outcomes::{Outcome, Outcomes};
pub(crate) use print::print;
pub(crate) use scope::Scope;
pub(crate) use target::{Address, Target};
