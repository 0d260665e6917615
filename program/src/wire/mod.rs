//! Messages on the wire: bodies, connections, header rules, and the answers of the proxy itself.

pub(crate) mod body;
pub(crate) mod hygiene;
pub(crate) mod names;
pub(crate) mod outgoing;
pub(crate) mod pool;
pub(crate) mod problem;
