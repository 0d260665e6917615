//! Finds the mistakes for which a start would refuse a configuration, without a start.

use std::io;
use std::path::Path;

use oncekey_http::Access;

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
    for file in [&config.admin.token_file, &config.admin.viewer_token_file].into_iter().flatten() {
        token(file).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let traces = &config.traces;
    if traces.collector.as_ref().is_some_and(Target::is_tls) {
        upstream::Tls::new(traces.ca.as_deref())
            .map_err(|error| Failure::usage(format!("[traces] {error}")))?;
    }
    Ok(())
}

/// Reads the token of a file. A start makes a file that does not exist, in a directory that does.
fn token(file: &Path) -> io::Result<()> {
    if file.try_exists()? {
        return Access::new().operator_token_file(file).map(drop);
    }
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let found = std::fs::metadata(parent.unwrap_or(Path::new("."))).map(drop);
    found.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}
