//! How a fleet is opened.

use std::net::IpAddr;
use std::time::Duration;

use oncekey::fleet::store::error;
use oncekey::{ErrorKind, Result};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::tls;

/// The length of the longest name, in bytes. PostgreSQL cuts a longer name off, so that two names
/// may become one.
const LONGEST_IDENTIFIER: usize = 63;

/// How long the server may take for a statement. The server is told this, too.
pub(crate) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of a fleet: where its database is, and how this engine takes part.
///
/// Passwords come with the URL. Neither `Debug` nor an error shows them.
#[derive(Clone)]
pub struct Options {
    pub(crate) settings: Settings,
    pub(crate) engine: oncekey::fleet::Options,
}

impl Options {
    /// The database that `url` names: `postgres://user:password@host,host/database?…`, as libpq reads it.
    /// Of several hosts, the one that takes writes is used.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self { settings: Settings::new(url.as_ref()), engine: Default::default() }
    }

    /// The schema that holds the tables. Default `oncekey`; 1 to 63 bytes, since PostgreSQL cuts a longer name off.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.settings.schema = schema.into();
        self
    }

    /// Whether tables are made where there are none. Default no: an operator runs the text of
    /// [`creation_sql`](Self::creation_sql).
    pub fn create(mut self, create: bool) -> Self {
        self.settings.create = create;
        self
    }

    /// Whether a server without `synchronous_standby_names` is refused. Default no.
    pub fn replication_required(mut self, required: bool) -> Self {
        self.settings.replication_required = required;
        self
    }

    /// Whether settings are sent when a connection begins. Default yes. A pooler may refuse them; then
    /// the role must have them, as docs/fleet.md lists.
    pub fn startup_options(mut self, sent: bool) -> Self {
        self.settings.startup_options = sent;
        self
    }

    /// Opens a store although its server's clock is more than 30 days ahead of the last time that
    /// the store saw: after a pause of that length, or once the clock was checked. Default no,
    /// which is `ClockJump`: a wrong clock would expire everything, for all processes of the fleet.
    pub fn accept_clock_jump(mut self, accept: bool) -> Self {
        self.settings.accept_clock_jump = accept;
        self
    }

    /// Continues when the server lacks changes that it had acknowledged to this process: after the
    /// promotion of a standby that lagged behind. Default no, which is `HistoryLost` until the
    /// process is started again. Keys whose claim or response was lost are new then, and their
    /// operations run again.
    pub fn accept_lost_history(mut self, accept: bool) -> Self {
        self.settings.accept_lost_history = accept;
        self
    }

    /// Trusts these certificates (PEM) instead of those of the system.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.settings.root_certificates = Some(pem.into());
        self
    }

    /// The text that makes an empty store, for those who run their migrations themselves.
    pub fn creation_sql(&self) -> String {
        crate::statements::Statements::new(&self.settings.schema).creation().to_owned()
    }

    /// How long this instance counts as living after each renewal. When that time is over after its
    /// death, other processes may declare its operations orphans. Default 15 s, 1 s to 10 min.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.engine.lease = lease;
        self
    }

    /// A name that no other living instance has, such as the name of a pod. An open with this name
    /// ends the predecessor of the same name, whose claims are orphans at once. Default none; at
    /// most 255 bytes.
    pub fn instance_name(mut self, name: impl Into<String>) -> Self {
        self.engine.instance_name = name.into();
        self
    }

    /// How long a completed response is replayed, and how long an orphan is kept. Default 24 hours.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.engine.ttl = ttl;
        self
    }

    /// Bounds and durations of the engine: all of them, so that [`lease`](Self::lease),
    /// [`instance_name`](Self::instance_name) and [`ttl`](Self::ttl) come behind it, or in it.
    ///
    /// ```
    /// use oncekey_postgres::{EngineOptions, Options};
    /// let bounds = EngineOptions { max_orphans: 10_000, ..EngineOptions::default() };
    /// let options = Options::new("postgres://app@db.internal/shop").engine(bounds);
    /// options.validate()?;
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    pub fn engine(mut self, options: oncekey::fleet::Options) -> Self {
        self.engine = options;
        self
    }
}

impl Options {
    /// Checks every option against its bound, as `open` does before it connects.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), which names the option, its value and the bound.
    pub fn validate(&self) -> Result<()> {
        self.settings.validate()?;
        self.engine.validate()
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Options({})", self.settings.location())
    }
}

/// The settings that the connections of a store need.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) schema: String,
    pub(crate) create: bool,
    pub(crate) replication_required: bool,
    pub(crate) startup_options: bool,
    pub(crate) accept_clock_jump: bool,
    pub(crate) accept_lost_history: bool,
    pub(crate) synchronous_commit: &'static str,
    pub(crate) root_certificates: Option<Vec<u8>>,
    pub(crate) bucket_ms: u64,
}

/// A plan is made once, for tables of any size. Without these settings, a plan that was made while
/// a table was small would scan it when it is large.
const PLANS: &str = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off \
                     -c plan_cache_mode=force_generic_plan";

impl Settings {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            schema: "oncekey".to_owned(),
            create: false,
            replication_required: false,
            startup_options: true,
            accept_clock_jump: false,
            accept_lost_history: false,
            synchronous_commit: "on",
            root_certificates: None,
            bucket_ms: 6 * 3_600_000,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.config()?;
        let refused = |why: String| Err(error(ErrorKind::InvalidInput, &why, None));
        let length = self.schema.len();
        if length == 0 || length > LONGEST_IDENTIFIER {
            return refused(format!(
                "the bytes of schema are {length}, 1 to {LONGEST_IDENTIFIER} are allowed"
            ));
        }
        if self.schema.contains('\0') {
            return refused("schema has a NUL byte, none is allowed".to_owned());
        }
        self.root_certificates.as_deref().map_or(Ok(()), |pem| tls::roots(pem).map(drop))
    }

    /// The settings that the client needs to connect.
    ///
    /// # Errors
    /// `InvalidInput`: not a URL of PostgreSQL. The error shows nothing of it.
    pub(crate) fn config(&self) -> Result<Config> {
        let invalid = |source: tokio_postgres::Error| {
            error(ErrorKind::InvalidInput, "the URL of the database", Some(source.into()))
        };
        // The client always checks certificates, and does not know the word `verify-full`.
        let url = self.url.replace("sslmode=verify-full", "sslmode=require");
        let mut config: Config = url.parse().map_err(invalid)?;
        if config.get_hosts().is_empty() {
            return Err(error(
                ErrorKind::InvalidInput,
                "the URL of the database names no host",
                None,
            ));
        }
        if !url.contains("sslmode=") {
            let local = config.get_hosts().iter().all(is_local);
            config.ssl_mode(if local { SslMode::Disable } else { SslMode::Require });
        }
        if config.get_application_name().is_none() {
            config.application_name("oncekey");
        }
        if self.startup_options {
            let given = config.get_options().unwrap_or_default().to_owned();
            let timeout = STATEMENT_TIMEOUT.as_millis();
            config.options(format!("{given} {PLANS} -c statement_timeout={timeout}").trim());
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(config)
    }

    /// The hosts, the database and the schema. Nothing in it is secret.
    pub(crate) fn location(&self) -> String {
        let Ok(config) = self.config() else { return "postgres".to_owned() };
        let hosts: Vec<_> = config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        let hosts = hosts.join(",");
        format!("postgres://{hosts}/{}#{}", config.get_dbname().unwrap_or_default(), self.schema)
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) if name == "localhost" => true,
        Host::Tcp(name) => name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}
