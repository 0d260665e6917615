//! All settings of the proxy.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use oncekey::{Durability, network_filesystem};
use oncekey_http::Contract;

use super::listen::Listen;
use super::parts::{
    Admin, Control, Engine, Host, Jwt, Limits, Log, LogFormat, Postgres, Restore, Tls, Traces,
    Upstream,
};
use super::policy::{Policy, Route};
use super::scope::Scope;
use super::store::StoreAt;
use super::target::Target;
use crate::base::network::Network;

/// The whole configuration. Settings that were not given have their defaults.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Listen>,
    pub(crate) store: StoreAt,
    pub(crate) contract: ContractName,
    /// Empty: the headers of the contract.
    pub(crate) headers: Vec<HeaderName>,
    /// `None`: the marker of the contract. `Some(None)`: no marker.
    pub(crate) replay_marker: Option<Option<(HeaderName, HeaderValue)>>,
    pub(crate) documentation: Option<String>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) upstream: Upstream,
    pub(crate) policy: Policy,
    pub(crate) routes: Vec<Route>,
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) admin: Admin,
    pub(crate) control: Control,
    pub(crate) tls: Tls,
    pub(crate) jwt: Jwt,
    pub(crate) restore: Restore,
    pub(crate) postgres: Postgres,
    /// Whether the proxy writes `Forwarded` and `X-Forwarded-*`.
    pub(crate) forwarded: bool,
    /// The server that the proxy starts, with its arguments. Empty: none.
    pub(crate) command: Vec<std::ffi::OsString>,
    pub(crate) log: Log,
    pub(crate) traces: Traces,
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

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080)))],
            store: StoreAt::Directory("./oncekey-store".into()),
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
                fresh_for_keys: false,
                max_connections: 1024,
                health: None,
                host: Host::Pass,
                identity_for_keys: false,
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
                tunnel_idle: seconds(3600),
            },
            admin: Admin::default(),
            control: Control::default(),
            tls: Tls::default(),
            jwt: Jwt::default(),
            restore: Restore::default(),
            postgres: Postgres::default(),
            forwarded: true,
            command: Vec::new(),
            log: Log { format: LogFormat::Auto, level: tracing::Level::INFO, access: true },
            traces: Traces::default(),
            shutdown_timeout: seconds(30),
            drain_delay: Duration::ZERO,
            lock_wait: seconds(10),
        }
    }
}

impl Config {
    /// The contract, with the changes of the configuration.
    pub(crate) fn contract(&self) -> Contract {
        let mut contract = match self.contract {
            ContractName::Default => Contract::default(),
            ContractName::Ietf => Contract::ietf(),
            ContractName::Stripe => Contract::stripe(),
        };
        if !self.headers.is_empty() {
            contract.headers = self.headers.clone();
        } else if self.contract == ContractName::Default {
            // Refusals name the first header: it is the name of the future standard.
            contract.headers.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        }
        if let Some(marker) = &self.replay_marker {
            contract.replay_marker = marker.clone();
        }
        contract.documentation = self.documentation.clone();
        contract
    }

    /// Finds the mistakes that only a combination of settings shows.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.upstream.urls.is_empty() {
            return Err("no upstream: set --upstream http://127.0.0.1:3000, or urls in [upstream]"
                .to_owned());
        }
        if let Some(address) = self.control.listen.filter(|address| !address.ip().is_loopback()) {
            return Err(format!(
                "[control] listen {address} is not a loopback address: upstreams on other machines \
                 cannot save checkpoints"
            ));
        }
        if let Some(address) = self.admin.listen.filter(|address| !address.ip().is_loopback())
            && self.admin.token_file.is_none()
        {
            return Err(format!(
                "[admin] {address} is not a loopback address: set --admin-token-file too"
            ));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(
                "TLS needs both a certificate and its key: --tls-cert and --tls-key".to_owned()
            );
        }
        if self.tls.client_ca.is_some() && self.tls.cert.is_none() {
            return Err(
                "certificates of clients need TLS: set --tls-cert and --tls-key too".to_owned()
            );
        }
        self.check_scopes()
    }

    /// Refuses a scope that no request could provide: it would refuse every request.
    fn check_scopes(&self) -> Result<(), String> {
        for policy in self.policies() {
            match &policy.scope {
                Scope::Mtls(_) if self.tls.client_ca.is_none() => {
                    return Err(format!("scope {} needs --tls-client-ca", policy.scope));
                }
                Scope::Jwt(_) if self.jwt.by_gateway && self.trusted_proxies.is_empty() => {
                    return Err(
                        "[jwt] verified_by = \"gateway\" needs trusted_proxies: else a client writes its own"
                            .to_owned(),
                    );
                }
                Scope::Jwt(_) if !self.jwt.by_gateway && self.jwt.keys.is_empty() => {
                    return Err(format!(
                        "scope {} needs keys or verified_by in [jwt]",
                        policy.scope
                    ));
                }
                _ => {}
            }
        }
        for route in &self.routes {
            if let Scope::Path(name) = &route.policy.scope
                && !["", "*"].iter().any(|star| route.path.contains(&format!("{{{star}{name}}}")))
            {
                return Err(format!(
                    "route {:?} has no parameter {{{name}}}, its scope",
                    route.path
                ));
            }
        }
        self.check_paths()?;
        match &self.policy.scope {
            Scope::Path(name) => Err(format!(
                "scope path:{name} belongs into a [[route]], whose path has {{{name}}}"
            )),
            _ => Ok(()),
        }
    }

    /// Refuses two paths that match the same requests but are written differently.
    fn check_paths(&self) -> Result<(), String> {
        let mut router = matchit::Router::new();
        let mut paths: Vec<_> = self.routes.iter().map(|route| route.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            router.insert(path, ()).map_err(|error| format!("route {path:?}: {error}"))?;
        }
        Ok(())
    }

    /// The general policy and the policies of the routes.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.policy).chain(self.routes.iter().map(|route| &route.policy))
    }

    /// The longest response that any route stores, and at least the default of the engine.
    pub(crate) fn max_response(&self) -> usize {
        self.policies().map(|policy| policy.max_response).fold(1 << 20, usize::max)
    }

    /// The fields that differ in `other` and that a running process cannot change.
    pub(crate) fn fixed_fields_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let differ = [
            ("listen", self.listen != other.listen),
            ("store", self.store != other.store),
            ("[postgres]", self.postgres != other.postgres),
            ("[tls]", self.tls != other.tls),
            ("-- COMMAND", self.command != other.command),
            ("[engine]", self.engine != other.engine),
            ("[limits]", self.limits != other.limits),
            ("[admin]", self.admin != other.admin),
            ("[control]", self.control != other.control),
            ("[traces]", self.traces != other.traces),
            ("[log] format", self.log.format != other.log.format),
            ("[log] level", self.log.level != other.log.level),
            // The journal segments are sized for the longest response.
            ("max_response", self.max_response() < other.max_response()),
        ];
        differ.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Settings that are allowed, but are probably a mistake.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.warnings_where(|path| network_filesystem(path).ok().flatten())
    }

    /// `network` names the network filesystem of a path.
    fn warnings_where(&self, network: impl Fn(&Path) -> Option<&'static str>) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(name) = self.store.volume().and_then(network) {
            warnings.push(format!(
                "the store is on {name}, a network filesystem, whose locks and syncs cannot be trusted: it will not be opened"
            ));
        }
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
        let mut warn = |when: bool, text: &str| {
            if when {
                warnings.push(text.to_owned());
            }
        };
        warn(
            self.upstream.idle > Duration::from_secs(4),
            "idle is above 4 s: many servers close idle connections after 5 s, and a request that meets that has an unknown outcome",
        );
        warn(
            self.policies().any(|policy| policy.recovery == oncekey_http::Recovery::Retry),
            "recovery = \"retry\" runs operations at least once: the upstream must look at Oncekey-Attempt",
        );
        warn(
            !self.upstream.gateway && !self.upstream.urls.iter().all(Target::is_local),
            "the upstream is another machine: if it is a load balancer itself, set --gateway",
        );
        warn(
            self.max_response() > 1 << 20,
            "max_response is above the engine's 1 MiB, which is raised for it: its journal takes more space",
        );
        warn(
            self.store.is_in_memory(),
            "the store is on a tmpfs: it forgets every key at a restart",
        );
        warn(
            self.admin.listen.is_some_and(|address| !address.ip().is_loopback())
                && self.admin.hosts.is_empty(),
            "[admin] is reachable from other machines under none of their names: list them in hosts",
        );
        let mut told = HashSet::new();
        warnings.retain(|warning| told.insert(warning.clone()));
        warnings
    }
}

impl ContractName {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Ietf => "ietf",
            Self::Stripe => "stripe",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_contradict_each_other_are_refused() {
        let check = |paths: [&str; 2]| {
            let [one, other] = paths.map(|path| format!("[[route]]\npath = \"{path}\"\n"));
            let text =
                format!("[upstream]\nurls = [\"http://h:1\"]\n{one}methods = [\"PUT\"]\n{other}");
            let mut config = Config::default();
            crate::config::read(&mut config, "t", &text, |_| {}).unwrap();
            config.check()
        };
        assert!(check(["/a/{id}", "/a/{name}"]).unwrap_err().contains("/a/{name}"));
        assert_eq!(check(["/a/{id}", "/a/{id}"]), Ok(()));
        assert_eq!(check(["/a/{id}", "/a/b"]), Ok(()));
    }

    #[test]
    fn a_store_on_a_network_filesystem_is_warned_of() {
        let store = StoreAt::parse("/no/such/directory/keys").unwrap();
        let mut config = Config { store, ..Config::default() };
        let asked = std::cell::RefCell::new(Vec::new());
        let on_nfs = |path: &Path| {
            asked.borrow_mut().push(path.to_owned());
            Some("NFS")
        };
        let warned = |warnings: Vec<String>| warnings.iter().any(|line| line.contains("on NFS"));
        assert!(warned(config.warnings_where(on_nfs)));
        // The directory in which the store will be made.
        assert_eq!(*asked.borrow(), [Path::new("/")]);
        assert!(!warned(config.warnings_where(|_| None)));
        config.store = StoreAt::parse("postgres://db/x").unwrap();
        assert!(!warned(config.warnings_where(on_nfs)));
    }
}
