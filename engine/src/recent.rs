//! Records that are journalled but not yet folded.

use std::sync::Arc;

use crate::transition::Record;

/// The newest state of a key, with the journal sequence of the change that made it.
#[derive(Clone, Debug)]
pub(crate) struct Versioned {
    pub(crate) sequence: u64,
    /// `None`: the key is absent, whatever older places still say.
    pub(crate) record: Option<Arc<Record>>,
}
