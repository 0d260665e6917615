//! Finds the mistakes for which a start would refuse a configuration, without a start.

use super::store;
use crate::base::exit::Failure;
use crate::config::{Config, Scope, Target};
use crate::front::jwt::Tokens;
use crate::front::tls::Tls;
use crate::upstream::{self, Upstreams};

/// Reads the files that a configuration names, and checks the options of its store.
///
/// # Errors
/// The error of the start.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    store::check(config)?;
    Tls::new(&config.tls).map_err(Failure::usage)?;
    Upstreams::new(&config.upstream).map_err(Failure::usage)?;
    if config.policies().any(|policy| matches!(policy.scope, Scope::Jwt(_))) {
        Tokens::new(&config.jwt).map_err(Failure::usage)?;
    }
    let traces = &config.traces;
    if traces.collector.as_ref().is_some_and(Target::is_tls) {
        upstream::Tls::new(traces.ca.as_deref())
            .map_err(|error| Failure::usage(format!("[traces] {error}")))?;
    }
    Ok(())
}
