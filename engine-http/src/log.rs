//! Events of the feature `tracing`: mainly failures that no client sees. Keys and scopes are not logged,
//! since they may be secrets of their senders.

#[cfg(feature = "tracing")]
mod enabled {
    use tracing::{error, warn};

    use crate::recorded::DecodeError;

    const TARGET: &str = "oncekey_http";

    pub(crate) fn begin_failed(error: &oncekey::Error) {
        error!(target: TARGET, %error, "the idempotency store is unavailable; the request was refused");
    }

    pub(crate) fn complete_failed(error: &oncekey::Error) {
        error!(target: TARGET, %error, "a response was sent that could not be recorded; its retries are refused");
    }

    pub(crate) fn abandoned(reason: &str) {
        warn!(target: TARGET, reason, "an execution ended without saying how; its outcome is unknown");
    }

    pub(crate) fn unscoped_cookie() {
        warn!(target: TARGET, "a request with a key and a cookie came to a layer without a scope; users that share a key and a body share a response");
    }

    /// A change by an operator, when no file is set up for the audit log.
    #[cfg(feature = "admin")]
    pub(crate) fn audited(line: &str) {
        tracing::info!(target: TARGET, line, "audit");
    }

    #[cfg(feature = "admin")]
    pub(crate) fn audit_incomplete(error: &std::io::Error) {
        error!(target: TARGET, %error, "the result of a change is missing in the audit log");
    }

    pub(crate) fn undecodable(error: DecodeError) {
        error!(target: TARGET, %error, "a stored response cannot be replayed");
    }
}

#[cfg(not(feature = "tracing"))]
mod enabled {
    use crate::recorded::DecodeError;

    pub(crate) fn begin_failed(_: &oncekey::Error) {}
    pub(crate) fn complete_failed(_: &oncekey::Error) {}
    pub(crate) fn abandoned(_: &str) {}
    pub(crate) fn unscoped_cookie() {}
    pub(crate) fn undecodable(_: DecodeError) {}
    #[cfg(feature = "admin")]
    pub(crate) fn audited(_: &str) {}
    #[cfg(feature = "admin")]
    pub(crate) fn audit_incomplete(_: &std::io::Error) {}
}

pub(crate) use enabled::*;
