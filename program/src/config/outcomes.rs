//! The state of a key after a response, by the status of the response.

use std::collections::BTreeMap;

use http::StatusCode;

/// The state of the key after the upstream has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response is stored, and a retry gets it.
    Stored,
    /// Nothing happened: the key is free, and the next request with it runs.
    Freed,
    /// The outcome is unknown: the response is passed on, and a retry gets *outcome unknown*.
    Unknown,
}

/// The statuses whose outcome is not [`Outcome::Stored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcomes(pub(crate) BTreeMap<u16, Outcome>);

impl Default for Outcomes {
    /// A server sends 401, 425 and 429 before it does anything. 502 and 504 come from a gateway, or from an
    /// application that called another server; neither knows whether the operation happened.
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
