//! The sections of the configuration that do not describe requests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use oncekey::Durability;

use super::target::Target;

#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) urls: Vec<Target>,
    pub(crate) gateway: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) body_idle: Duration,
    /// The certificates that an https upstream is verified with; `None`: those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// Whether each keyed request opens a new connection.
    pub(crate) fresh_for_keys: bool,
    /// The largest number of open connections to each upstream.
    pub(crate) max_connections: u32,
    /// The path of the health check of an upstream.
    pub(crate) health: Option<String>,
    pub(crate) host: Host,
    /// Whether keyed requests ask for responses without a content coding.
    pub(crate) identity_for_keys: bool,
}

/// The `Host` that an upstream gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// The host of the client's request.
    Pass,
    /// The name in the upstream's URL.
    Upstream,
    Literal(HeaderValue),
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
    /// How long a tunnel may carry no data.
    pub(crate) tunnel_idle: Duration,
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

/// The destination of the spans of requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traces {
    /// A collector that speaks OTLP over HTTP; `None`: no spans are sent.
    pub(crate) collector: Option<Target>,
    /// The authorities that may sign the certificate of the collector; `None`: those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// The name of this proxy as a service in a trace.
    pub(crate) service: String,
    /// One in this many requests without a trace begins one; 0: none does.
    pub(crate) one_in: u32,
}

impl Default for Traces {
    fn default() -> Self {
        Self { collector: None, ca: None, service: "oncekey".to_owned(), one_in: 1 }
    }
}

/// Health, metrics and the API for operators.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Admin {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) viewer_token_file: Option<PathBuf>,
    pub(crate) hosts: Vec<String>,
    pub(crate) read_only: bool,
    pub(crate) show_responses: bool,
    pub(crate) backups: Option<PathBuf>,
    pub(crate) audit_log: Option<PathBuf>,
}

/// The ways to reach the process from this machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Control {
    /// The address on which upstreams save checkpoints; `None`: they cannot.
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) socket: Socket,
}

/// The place of the control socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Socket {
    /// The path at which the command line looks for it.
    #[default]
    Auto,
    Path(PathBuf),
    Off,
}

/// TLS to clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tls {
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// The authorities that may sign the certificates of clients; `None`: clients need no certificate.
    pub(crate) client_ca: Option<PathBuf>,
}

/// How bearer tokens are verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Jwt {
    pub(crate) keys: Vec<PathBuf>,
    /// A trusted proxy in front has verified them already.
    pub(crate) by_gateway: bool,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
}

/// How to refuse keys that a restored store may have forgotten.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Restore {
    /// Keys that are UUIDs of version 7 made before this time are refused.
    pub(crate) refuse_uuid7_before: Option<SystemTime>,
    /// Whether all other keys are refused as well.
    pub(crate) refuse_others: bool,
}

/// How this process takes part in a shared database.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Postgres {
    pub(crate) create: bool,
    pub(crate) schema: String,
    pub(crate) lease: Duration,
    pub(crate) instance: String,
    pub(crate) ca: Option<PathBuf>,
}

impl Default for Postgres {
    fn default() -> Self {
        let (schema, lease) = ("oncekey".to_owned(), Duration::from_secs(15));
        Self { create: false, schema, lease, instance: String::new(), ca: None }
    }
}
