//! The state of a key after a response, status by status.

use std::collections::BTreeMap;

use http::StatusCode;

/// The state of the key after the upstream has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response is stored, and a retry gets it.
    Stored,
    /// Nothing happened: the next request with the key runs.
    Freed,
    /// The outcome is unknown: the response is passed on, and a retry gets *outcome unknown*.
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
