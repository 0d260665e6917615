//! What becomes of keys, status by status.

use std::collections::BTreeMap;

use http::StatusCode;

/// What becomes of the key of a request that the upstream answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response is stored, and a retry gets it.
    Stored,
    /// Nothing happened: the next request with the key runs.
    Freed,
    /// Nobody knows: the response is passed on, a retry is told so.
    Unknown,
}

/// Which statuses are not [`Outcome::Stored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcomes(pub(crate) BTreeMap<u16, Outcome>);

impl Default for Outcomes {
    /// 401, 425 and 429 come before anything is done. 502 and 504 are a gateway's words about
    /// another caller, or an application's about its own upstream: neither knows.
    fn default() -> Self {
        let freed = [401, 425, 429].map(|status| (status, Outcome::Freed));
        let unknown = [502, 504].map(|status| (status, Outcome::Unknown));
        Self(freed.into_iter().chain(unknown).collect())
    }
}

impl Outcomes {
    pub(crate) fn of(&self, status: StatusCode) -> Outcome {
        self.0.get(&status.as_u16()).copied().unwrap_or(Outcome::Stored)
    }
}
