//! What the proxy can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use oncekey::Durability;
use oncekey_http::{Contract, Recovery};

use super::listen::Listen;
use super::outcomes::Outcomes;
use super::scope::Scope;
use super::target::Target;
use crate::base::network::Network;

/// The headers that a fingerprint counts when nothing else is said: those of
/// [`oncekey::FingerprintedHeaders`].
const FINGERPRINTED: [&str; 8] = [
    "authorization",
    "content-encoding",
    "content-type",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "x-api-key",
    "x-http-method-override",
];

/// The whole configuration, with the defaults where nothing was said.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Listen>,
    pub(crate) store: PathBuf,
    pub(crate) contract: ContractName,
    /// Empty: those of the contract.
    pub(crate) headers: Vec<HeaderName>,
    /// `None`: as the contract has it. `Some(None)`: no marker.
    pub(crate) replay_marker: Option<Option<(HeaderName, HeaderValue)>>,
    pub(crate) documentation: Option<String>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) upstream: Upstream,
    pub(crate) policy: Policy,
    pub(crate) routes: Vec<Route>,
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) admin: Option<SocketAddr>,
    /// Where upstreams save checkpoints; `None`: they cannot.
    pub(crate) control: Option<SocketAddr>,
    pub(crate) log: Log,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) lock_wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContractName {
    Default,
    Ietf,
    Stripe,
}

#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) urls: Vec<Target>,
    pub(crate) gateway: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) body_idle: Duration,
    /// Certificates that an https upstream is believed by; `None`: those of the system.
    pub(crate) ca: Option<PathBuf>,
}

/// What holds for the requests of a route.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    pub(crate) keys: bool,
    pub(crate) required: bool,
    pub(crate) recovery: Recovery,
    pub(crate) ttl: Duration,
    pub(crate) wait: Duration,
    pub(crate) scope: Scope,
    /// `None`: the layer's list, without `authorization` when the scope is the user.
    pub(crate) fingerprint_headers: Option<Vec<HeaderName>>,
    pub(crate) drop_headers: Vec<HeaderName>,
    pub(crate) max_request_body: usize,
    pub(crate) max_response: usize,
    pub(crate) answer_within: Duration,
    pub(crate) give_up_after: Duration,
    pub(crate) outcomes: Outcomes,
}

#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: String,
    /// Empty: every method.
    pub(crate) methods: Vec<Method>,
    pub(crate) policy: Policy,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Engine {
    pub(crate) durability: Durability,
    pub(crate) max_store_bytes: Option<u64>,
    pub(crate) cache_bytes: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) max_connections: u32,
    pub(crate) max_buffered: usize,
    pub(crate) header_timeout: Duration,
    pub(crate) request_body_idle: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: tracing::Level,
    pub(crate) access: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            store: "./oncekey-store".into(),
            contract: ContractName::Default,
            headers: Vec::new(),
            replay_marker: None,
            documentation: None,
            trusted_proxies: Vec::new(),
            upstream: Upstream {
                urls: Vec::new(),
                gateway: false,
                connect_timeout: seconds(2),
                idle: seconds(1),
                body_idle: seconds(60),
                ca: None,
            },
            policy: Policy::default(),
            routes: Vec::new(),
            engine: Engine {
                durability: Durability::Strict,
                max_store_bytes: None,
                cache_bytes: 64 << 20,
            },
            limits: Limits {
                max_connections: 10_000,
                max_buffered: 256 << 20,
                header_timeout: seconds(10),
                request_body_idle: seconds(30),
            },
            admin: None,
            control: None,
            log: Log { format: LogFormat::Auto, level: tracing::Level::INFO, access: true },
            shutdown_timeout: seconds(30),
            drain_delay: Duration::ZERO,
            lock_wait: seconds(10),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            keys: true,
            required: false,
            recovery: Recovery::Hold,
            ttl: Duration::from_secs(24 * 60 * 60),
            wait: Duration::ZERO,
            scope: Scope::None,
            fingerprint_headers: None,
            drop_headers: Vec::new(),
            max_request_body: 2 << 20,
            max_response: 1 << 20,
            answer_within: Duration::from_secs(30),
            give_up_after: Duration::from_secs(600),
            outcomes: Outcomes::default(),
        }
    }
}

impl Config {
    /// The contract with the changes that the configuration makes to it.
    pub(crate) fn contract(&self) -> Contract {
        let mut contract = match self.contract {
            ContractName::Default => Contract::default(),
            ContractName::Ietf => Contract::ietf(),
            ContractName::Stripe => Contract::stripe(),
        };
        if !self.headers.is_empty() {
            contract.headers = self.headers.clone();
        } else if self.contract == ContractName::Default {
            // Refusals name the first: the name of the standard to be.
            contract.headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        }
        if let Some(marker) = &self.replay_marker {
            contract.replay_marker = marker.clone();
        }
        contract.documentation = self.documentation.clone();
        contract
    }

    /// What is wrong with the whole, which no part of it shows.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.upstream.urls.is_empty() {
            return Err("no upstream: say --upstream http://127.0.0.1:3000, or urls in [upstream]"
                .to_owned());
        }
        if self.store.to_str().is_some_and(|store| store.starts_with("postgres")) {
            return Err(
                "a store in PostgreSQL is not supported yet: --store takes a directory".to_owned()
            );
        }
        for (what, address) in [("[admin]", self.admin), ("[control]", self.control)] {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
                return Err(format!(
                    "{what} {address} is not a loopback address: that is not supported yet"
                ));
            }
        }
        Ok(())
    }

    /// The policy of all and those of the routes.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.policy).chain(self.routes.iter().map(|route| &route.policy))
    }

    /// The longest response that any route stores, and at least the engine's default.
    pub(crate) fn max_response(&self) -> usize {
        self.policies().map(|policy| policy.max_response).fold(1 << 20, usize::max)
    }

    /// The fields that a running process cannot change and that `other` has otherwise.
    pub(crate) fn fixed_fields_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let differ = [
            ("listen", self.listen != other.listen),
            ("store", self.store != other.store),
            ("[engine]", self.engine != other.engine),
            ("[limits]", self.limits != other.limits),
            ("[admin]", self.admin != other.admin),
            ("[control]", self.control != other.control),
            ("[log] format", self.log.format != other.log.format),
            ("[log] level", self.log.level != other.log.level),
            // The journal was laid out for the longest response.
            ("max_response", self.max_response() < other.max_response()),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// What is allowed but seldom meant.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for policy in self.policies() {
            if policy.scope.header().is_some() && self.trusted_proxies.is_empty() {
                warnings.push(
                    "a scope by header without trusted_proxies: a client can claim any scope"
                        .to_owned(),
                );
            }
            if policy.give_up_after < policy.answer_within && !policy.give_up_after.is_zero() {
                warnings.push("give_up_after is below answer_within: slow requests leave keys with unknown outcome".to_owned());
            }
        }
        if self.upstream.idle > Duration::from_secs(4) {
            warnings.push("idle is above 4 s: many servers close idle connections after 5 s, and a request that meets that has an unknown outcome".to_owned());
        }
        warnings.dedup();
        warnings
    }
}

impl Policy {
    /// The headers that count for a fingerprint. Who authenticates is the scope then, and a token that is
    /// refreshed between two tries would make them two requests.
    pub(crate) fn fingerprinted(&self) -> Vec<HeaderName> {
        if let Some(headers) = &self.fingerprint_headers {
            return headers.clone();
        }
        let counts = |name: &&str| self.scope != Scope::BasicUser || *name != "authorization";
        FINGERPRINTED.iter().copied().filter(counts).map(HeaderName::from_static).collect()
    }
}

/// Reads `NAME: VALUE` or `none`.
pub(crate) fn marker(text: &str) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || format!("replay marker {text:?}: write none or \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_that_are_printed_are_those_that_count() {
        let names = Policy::default().fingerprinted();
        let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
        let printed = oncekey::FingerprintedHeaders::new(names).unwrap();
        assert_eq!(printed, oncekey::FingerprintedHeaders::default());
    }

    #[test]
    fn the_user_is_no_part_of_the_fingerprint_when_it_is_the_scope() {
        let policy = Policy { scope: Scope::BasicUser, ..Policy::default() };
        assert!(!policy.fingerprinted().contains(&http::header::AUTHORIZATION));
    }
}
