//! The configuration of the proxy. Flags win over the environment, which wins over the file.

mod file;
mod listen;
mod model;
mod outcomes;
mod parts;
mod policy;
mod print;
mod scope;
mod section;
mod store;
mod target;
mod values;

pub(crate) use file::read;
pub(crate) use listen::Listen;
pub(crate) use model::{Config, ContractName};
pub(crate) use outcomes::{Outcome, Outcomes};
pub(crate) use parts::{Host, Jwt, LogFormat, Restore, Socket, Tls, Upstream};
pub(crate) use policy::Policy;
pub(crate) use print::print;
pub(crate) use scope::{CertificateName, Scope};
pub(crate) use store::{StoreAt, without_secrets};
pub(crate) use target::{Address, Speaks, Target};
pub(crate) use values::{marker, passing_header, tcp_address};
