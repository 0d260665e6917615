//! A record that a walk through the store met.

use crate::api::begin::Lookup;
use crate::semantics::key::{Key, KeyHash};

/// A key and its state, as [`Engine::scan`](crate::Engine::scan) lists it.
#[derive(Debug)]
pub struct Listed {
    place: KeyHash,
    key: Key,
    lookup: Lookup,
}

impl Listed {
    /// `None` when the key counts as absent.
    pub(crate) fn new(place: KeyHash, key: Key, lookup: Lookup) -> Option<Self> {
        (!matches!(lookup, Lookup::Absent)).then_some(Self { place, key, lookup })
    }

    /// The place of the record in the walk, from which the next page may go on.
    pub fn place(&self) -> [u8; 16] {
        self.place.0.to_be_bytes()
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The state of the key; never [`Lookup::Absent`].
    pub fn lookup(&self) -> &Lookup {
        &self.lookup
    }

    /// Both.
    pub fn into_parts(self) -> (Key, Lookup) {
        (self.key, self.lookup)
    }
}
