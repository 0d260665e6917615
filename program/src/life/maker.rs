//! Makes the proxies of successive configurations, which share the store.

use std::sync::Arc;

use http::HeaderValue;
use oncekey_http::IdempotencyLayer;

use crate::base::latency::Latency;
use crate::config::{Config, Scope};
use crate::front::jwt::Tokens;
use crate::front::proxy::Proxy;
use crate::front::restored::Restored;
use crate::front::route::Routes;
use crate::report::access_log::AccessLog;
use crate::report::spans::Spans;
use crate::upstream::{Control, Upstreams, health};
use crate::wire::hygiene::Hygiene;
use crate::wire::names::Names;

/// The parts that all proxies of the process share.
pub(crate) struct Maker {
    pub(crate) layer: IdempotencyLayer,
    pub(crate) json: bool,
    pub(crate) control: Option<Arc<Control>>,
    pub(crate) counted: Option<Arc<Latency>>,
    pub(crate) spans: Option<Arc<Spans>>,
    via: HeaderValue,
}

impl Maker {
    pub(crate) fn new(
        layer: IdempotencyLayer,
        json: bool,
        control: Option<Arc<Control>>,
        counted: Option<Arc<Latency>>,
        spans: Option<Arc<Spans>>,
    ) -> Self {
        Self { layer, json, control, counted, spans, via: via() }
    }

    /// # Errors
    /// When a file of the configuration cannot be read, or routes contradict each other.
    pub(crate) fn proxy(&self, config: &Config) -> Result<Proxy, String> {
        let contract = config.contract();
        let layer = self.layer.clone().contract(contract.clone());
        let upstreams = Arc::new(Upstreams::new(&config.upstream)?);
        let routes = Routes::new(config, &layer, &upstreams, self.control.as_ref())?;
        if let Some(path) = &config.upstream.health {
            health::check(&upstreams, path);
        }
        let mut ours = contract.headers.clone();
        ours.extend(config.policies().filter_map(|policy| policy.scope.header().cloned()));
        let hygiene = Hygiene {
            names: Arc::new(Names { ours, forwarded: config.forwarded }),
            trusted: config.trusted_proxies.clone(),
            via: self.via.clone(),
        };
        let by_token = config.policies().any(|policy| matches!(policy.scope, Scope::Jwt(_)));
        let tokens = by_token.then(|| Tokens::new(&config.jwt)).transpose()?;
        let access_log = config.log.access.then_some(AccessLog { json: self.json });
        Ok(Proxy {
            contract,
            hygiene,
            routes,
            tokens,
            restored: Restored(config.restore.clone()),
            upstreams,
            access_log,
            counted: self.counted.clone(),
            spans: self.spans.clone(),
            misspelled: Default::default(),
        })
    }
}

/// The value of `Via`. Its id lets this process recognize its own requests.
fn via() -> HeaderValue {
    use std::hash::{BuildHasher, RandomState};
    let id = RandomState::new().hash_one(std::process::id());
    HeaderValue::try_from(format!("1.1 oncekey ({id:016x})"))
        .unwrap_or_else(|_| HeaderValue::from_static("1.1 oncekey"))
}
