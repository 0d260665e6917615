//! The routes: the policy of each request, and the stack that answers it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::request::Parts;
use oncekey_http::{Contract, IdempotencyLayer, IdempotencyService, Stored};
use tower_layer::Layer;

use super::scope::Scoped;
use crate::config::{Config, Outcome, Outcomes, Policy, Scope};
use crate::upstream::{Conduct, Control, UpstreamService, Upstreams};

/// The rules for the requests of one route.
pub(crate) struct Route {
    /// The pattern, for logs; `*` for requests that match no route.
    pub(crate) pattern: String,
    pub(crate) scope: Scope,
    pub(crate) answer_within: Duration,
    pub(crate) stack: Stack,
}

/// The service that answers the requests of a route.
pub(crate) enum Stack {
    /// The layer around the upstream.
    Keyed(IdempotencyService<UpstreamService>),
    /// Keys have no meaning on this route.
    Plain(UpstreamService),
}

/// One of the routes with the same pattern.
struct Entry {
    /// Empty: every method.
    methods: Vec<Method>,
    route: Arc<Route>,
}

/// All routes.
pub(crate) struct Routes {
    router: matchit::Router<Vec<Entry>>,
    fallback: Arc<Route>,
}

impl Routes {
    /// # Errors
    /// When two routes have the same pattern, written differently.
    pub(crate) fn new(
        config: &Config,
        layer: &IdempotencyLayer,
        upstreams: &Arc<Upstreams>,
        control: Option<&Arc<Control>>,
    ) -> Result<Self, String> {
        let route = |pattern: &str, policy: &Policy| {
            Arc::new(Route {
                pattern: pattern.to_owned(),
                scope: policy.scope.clone(),
                answer_within: policy.answer_within,
                stack: stack(config, policy, layer, upstreams, control),
            })
        };
        let mut grouped: Vec<(&str, Vec<Entry>)> = Vec::new();
        for each in &config.routes {
            let route = route(&each.path, &each.policy);
            let entry = Entry { methods: each.methods.clone(), route };
            match grouped.iter_mut().find(|(path, _)| *path == each.path) {
                Some((_, entries)) => entries.push(entry),
                None => grouped.push((&each.path, vec![entry])),
            }
        }
        let mut router = matchit::Router::new();
        for (path, entries) in grouped {
            router.insert(path, entries).map_err(|error| format!("route {path:?}: {error}"))?;
        }
        Ok(Self { router, fallback: route("*", &config.policy) })
    }

    /// The route of a request, and the parameters of its path if the scope needs them.
    pub(crate) fn find(&self, parts: &Parts) -> (&Arc<Route>, Vec<(String, String)>) {
        let none = (&self.fallback, Vec::new());
        let Ok(found) = self.router.at(parts.uri.path()) else { return none };
        // A route for the method wins over a route for every method.
        let named = found.value.iter().find(|entry| entry.methods.contains(&parts.method));
        let every = || found.value.iter().find(|entry| entry.methods.is_empty());
        let Some(Entry { route, .. }) = named.or_else(every) else { return none };
        let parameters = match route.scope {
            Scope::Path(_) => found
                .params
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            _ => Vec::new(),
        };
        (route, parameters)
    }
}

fn stack(
    config: &Config,
    policy: &Policy,
    layer: &IdempotencyLayer,
    upstreams: &Arc<Upstreams>,
    control: Option<&Arc<Control>>,
) -> Stack {
    let conduct = Conduct {
        outcomes: outcomes(config, policy),
        max_response: policy.max_response,
        give_up_after: policy.give_up_after,
        body_idle: config.upstream.body_idle,
        tunnel_idle: config.limits.tunnel_idle,
        identity: config.upstream.identity_for_keys,
    };
    let (upstreams, control) = (upstreams.clone(), control.cloned());
    let upstream = UpstreamService { upstreams, conduct: Arc::new(conduct), control };
    if !policy.keys {
        return Stack::Plain(upstream);
    }
    let mut rules = oncekey_http::Policy::new()
        .required(policy.required)
        .recovery(policy.recovery)
        .ttl(policy.ttl)
        .wait(policy.wait)
        // The service below marks each response with the outcome of its key.
        .stored(Stored::AtLeastOnceUnless(Arc::new(|_| true)))
        .fingerprint_headers(policy.fingerprinted())
        .drop_headers(policy.drop_headers.iter().cloned())
        .max_request_body(policy.max_request_body)
        .max_response(policy.max_response);
    if policy.scope != Scope::None {
        rules = rules.scope(|parts| {
            parts.extensions.get::<Scoped>().map(|Scoped(scope)| scope.clone()).unwrap_or_default()
        });
    }
    Stack::Keyed(layer.clone().policy(rules).layer(upstream))
}

fn outcomes(config: &Config, policy: &Policy) -> Outcomes {
    let mut outcomes = policy.outcomes.clone();
    if config.upstream.gateway {
        outcomes.0.entry(503).or_insert(Outcome::Unknown);
    }
    outcomes
}

/// Whether the layer treats a request as one with a key.
pub(crate) fn is_keyed(contract: &Contract, parts: &Parts) -> bool {
    contract.methods.contain(&parts.method)
        && contract.headers.iter().any(|name| parts.headers.contains_key(name))
}
