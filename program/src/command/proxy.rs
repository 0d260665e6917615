//! The flags of `oncekey proxy`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue};

use crate::base::units;
use crate::config::{
    Config, ContractName, Listen, LogFormat, Scope, Socket, StoreAt, Target, marker,
    passing_header, tcp_address,
};

/// A flag wins over its environment variable, which wins over the file.
#[derive(Args)]
pub(crate) struct Proxy {
    /// Where to listen: 127.0.0.1:8080, :8080 for all interfaces, unix:/path, or systemd:NAME for
    /// the sockets that systemd passes [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "ONCEKEY_LISTEN", value_delimiter = ',', value_parser = Listen::parse)]
    listen: Vec<Listen>,

    /// The server behind the proxy: http://HOST:PORT[/BASE], https://…, h2c://… or unix:/path; several take turns
    #[arg(long, value_name = "URL", env = "ONCEKEY_UPSTREAM", value_delimiter = ',', value_parser = Target::parse)]
    upstream: Vec<Target>,

    /// Where keys and responses are kept: a directory, created if it is missing, or postgres://… for a
    /// database that proxies share [default: ./oncekey-store]
    #[arg(long, value_name = "STORE", env = "ONCEKEY_STORE", value_parser = StoreAt::parse, hide_env_values = true)]
    store: Option<StoreAt>,

    /// With postgres://: creates the tables if they are missing
    #[arg(long, env = "ONCEKEY_CREATE", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    create: Option<bool>,

    /// With postgres://: a name that no other living proxy has; the next proxy with this name ends this one at once
    #[arg(long, value_name = "NAME", env = "ONCEKEY_INSTANCE")]
    instance: Option<String>,

    /// A TOML file with further settings; docs/proxy.md lists them
    #[arg(long, value_name = "FILE", env = "ONCEKEY_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// The contract that clients see [default: default]
    #[arg(long, value_enum, env = "ONCEKEY_CONTRACT")]
    contract: Option<Contract>,

    /// A header that may carry the key [default: Idempotency-Key and X-Idempotency-Key]
    #[arg(long, value_name = "NAME", env = "ONCEKEY_HEADER", value_delimiter = ',', value_parser = passing_header)]
    header: Vec<HeaderName>,

    /// A header that replayed responses carry, "Name: value" or none
    #[arg(long, value_name = "MARKER", env = "ONCEKEY_REPLAY_MARKER", value_parser = marker_of)]
    replay_marker: Option<Marker>,

    /// Refuses a request without a key with 400
    #[arg(long, env = "ONCEKEY_REQUIRED", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    required: Option<bool>,

    /// How long a response is replayed before its key is new again [default: 24h]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_TTL", value_parser = units::some_time)]
    ttl: Option<Duration>,

    /// The treatment of a key whose first request ended with an unknown outcome [default: hold]
    #[arg(long, value_enum, env = "ONCEKEY_RECOVERY")]
    recovery: Option<Recovery>,

    /// How long a duplicate waits for the response of the first request [default: 0]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_WAIT", value_parser = units::duration)]
    wait: Option<Duration>,

    /// The scope, the party that a key belongs to: none, header:NAME, basic-user, mtls:san-uri, mtls:san-dns, mtls:sha256,
    /// or jwt:CLAIM [default: none]
    #[arg(long, value_name = "SPEC", env = "ONCEKEY_SCOPE", value_parser = Scope::parse)]
    scope: Option<Scope>,

    /// The upstream is a load balancer itself: its 503 also leaves the outcome unknown
    #[arg(long, env = "ONCEKEY_GATEWAY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    gateway: Option<bool>,

    /// The time after which a client with a key gets 504; the execution continues [default: 30s]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_ANSWER_WITHIN", value_parser = units::duration)]
    answer_within: Option<Duration>,

    /// How long an upstream may be silent before the outcome is unknown; 0 means no limit [default: 10m]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_GIVE_UP_AFTER", value_parser = units::duration)]
    give_up_after: Option<Duration>,

    /// How long a connection to the upstream may take [default: 2s]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_CONNECT_TIMEOUT", value_parser = units::some_time)]
    connect_timeout: Option<Duration>,

    /// How long the response to a keyed request may pause [default: 60s]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_BODY_IDLE", value_parser = units::some_time)]
    body_idle: Option<Duration>,

    /// How long a shutdown waits for running requests [default: 30s]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_SHUTDOWN_TIMEOUT", value_parser = units::duration)]
    shutdown_timeout: Option<Duration>,

    /// How long /readyz answers 503 before a shutdown stops accepting connections [default: 0]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_DRAIN_DELAY", value_parser = units::duration)]
    drain_delay: Option<Duration>,

    /// How long to wait for a store that another process holds [default: 10s]
    #[arg(long, value_name = "TIME", env = "ONCEKEY_LOCK_WAIT", value_parser = units::duration)]
    lock_wait: Option<Duration>,

    /// Where to serve the console, the API, /healthz, /readyz and /metrics [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "ONCEKEY_ADMIN", value_parser = tcp_address)]
    admin: Option<SocketAddr>,

    /// The token of operators, created if the file is missing. Required when --admin is not a loopback address
    #[arg(long, value_name = "FILE", env = "ONCEKEY_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,

    /// Offers no control socket to the command line
    #[arg(long, env = "ONCEKEY_NO_CONTROL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    no_control: Option<bool>,

    /// TLS to clients: the certificate chain of this server, its own certificate first, as PEM
    #[arg(long, value_name = "FILE", env = "ONCEKEY_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// TLS to clients: the private key, as PEM
    #[arg(long, value_name = "FILE", env = "ONCEKEY_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Clients need a certificate signed by one of these authorities, as PEM
    #[arg(long, value_name = "FILE", env = "ONCEKEY_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,

    /// Whether a key is claimed before or after its claim is synced [default: strict]
    #[arg(long, value_enum, env = "ONCEKEY_DURABILITY")]
    durability: Option<Durability>,

    /// The form of logs [default: text on a terminal, else json]
    #[arg(long, value_enum, env = "ONCEKEY_LOG")]
    log: Option<Log>,

    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "ONCEKEY_LOG_LEVEL")]
    log_level: Option<tracing::Level>,

    /// Whether each request writes a log line [default: on]
    #[arg(long, value_enum, env = "ONCEKEY_ACCESS_LOG")]
    access_log: Option<Switch>,

    /// Reads the configuration, prints its mistakes, and does not start
    #[arg(long)]
    pub(crate) check: bool,

    /// With --check: ends with 2 when there is a warning
    #[arg(long, requires = "check")]
    pub(crate) strict: bool,

    /// With --check: prints the configuration that is in force, as TOML
    #[arg(long, requires = "check")]
    pub(crate) print: bool,

    /// The server behind the proxy, with its arguments: started before the proxy takes requests, and stopped
    /// after the proxy has drained
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Contract {
    /// 409 for a key in use and for another request
    Default,
    /// draft-ietf-httpapi-idempotency-key-header: 422 for another request, quoted keys
    Ietf,
    /// Like Stripe's API: POST alone, Idempotent-Replayed: true
    Stripe,
}

#[derive(Clone, Copy, ValueEnum)]
enum Recovery {
    /// A retry is refused with 409 idempotency_outcome_unknown: at most once
    Hold,
    /// A retry runs again: at least once
    Retry,
}

#[derive(Clone, Copy, ValueEnum)]
enum Durability {
    /// After: survives power loss
    Strict,
    /// Before: survives kill -9
    Relaxed,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// A type of its own: clap takes a bare Option for a flag that may be absent.
#[derive(Clone)]
struct Marker(Option<(HeaderName, HeaderValue)>);

fn marker_of(text: &str) -> Result<Marker, String> {
    marker(text).map(Marker)
}

impl Proxy {
    /// Applies the flags to `config`, except those of the policy.
    pub(crate) fn apply(&self, config: &mut Config) {
        if !self.listen.is_empty() {
            config.listen.clone_from(&self.listen);
        }
        if !self.upstream.is_empty() {
            config.upstream.urls.clone_from(&self.upstream);
        }
        set(&mut config.store, &self.store);
        if let Some(contract) = self.contract {
            config.contract = match contract {
                Contract::Default => ContractName::Default,
                Contract::Ietf => ContractName::Ietf,
                Contract::Stripe => ContractName::Stripe,
            };
        }
        if !self.header.is_empty() {
            config.headers.clone_from(&self.header);
        }
        if let Some(Marker(marker)) = &self.replay_marker {
            config.replay_marker = Some(marker.clone());
        }
        set(&mut config.upstream.gateway, &self.gateway);
        set(&mut config.upstream.connect_timeout, &self.connect_timeout);
        set(&mut config.upstream.body_idle, &self.body_idle);
        set(&mut config.shutdown_timeout, &self.shutdown_timeout);
        set(&mut config.drain_delay, &self.drain_delay);
        set(&mut config.lock_wait, &self.lock_wait);
        set(&mut config.postgres.create, &self.create);
        set(&mut config.postgres.instance, &self.instance);
        config.admin.listen = self.admin.or(config.admin.listen);
        let file = |place: &mut Option<PathBuf>, said: &Option<PathBuf>| {
            if said.is_some() {
                place.clone_from(said);
            }
        };
        file(&mut config.admin.token_file, &self.admin_token_file);
        file(&mut config.tls.cert, &self.tls_cert);
        file(&mut config.tls.key, &self.tls_key);
        file(&mut config.tls.client_ca, &self.tls_client_ca);
        match self.no_control {
            Some(true) => config.control.socket = Socket::Off,
            Some(false) if config.control.socket == Socket::Off => {
                config.control.socket = Socket::Auto;
            }
            _ => {}
        }
        config.command.clone_from(&self.command);
        if let Some(durability) = self.durability {
            config.engine.durability = match durability {
                Durability::Strict => oncekey::Durability::Strict,
                Durability::Relaxed => oncekey::Durability::Relaxed,
            };
        }
        if let Some(log) = self.log {
            config.log.format = match log {
                Log::Text => LogFormat::Text,
                Log::Json => LogFormat::Json,
            };
        }
        set(&mut config.log.level, &self.log_level);
        set(&mut config.log.access, &self.access_log.map(|switch| matches!(switch, Switch::On)));
    }

    /// Applies the flags to the policy that routes start from, before the routes are read.
    pub(crate) fn apply_policy(&self, policy: &mut crate::config::Policy) {
        set(&mut policy.required, &self.required);
        set(&mut policy.ttl, &self.ttl);
        set(&mut policy.wait, &self.wait);
        set(&mut policy.scope, &self.scope);
        set(&mut policy.answer_within, &self.answer_within);
        set(&mut policy.give_up_after, &self.give_up_after);
        if let Some(recovery) = self.recovery {
            policy.recovery = match recovery {
                Recovery::Hold => oncekey_http::Recovery::Hold,
                Recovery::Retry => oncekey_http::Recovery::Retry,
            };
        }
    }
}

fn set<T: Clone>(place: &mut T, said: &Option<T>) {
    if let Some(said) = said {
        place.clone_from(said);
    }
}
