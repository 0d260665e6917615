//! The state that all requests of operators share.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State;
use oncekey::Engine;
use serde_json::{Map, Value};

use super::audit::Audit;
use super::jobs::Jobs;
use super::series::{self, Series};
use super::sessions::Sessions;
use crate::layer::IdempotencyLayer;

/// An action of the embedder on behalf of an operator. `Err` holds the reasons, one per line.
pub(crate) type Hook =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Vec<String>>> + Send>> + Send + Sync>;

/// How an [`Admin`](crate::Admin) is set up.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) backups: Option<PathBuf>,
    pub(crate) audit: Audit,
    pub(crate) read_only: bool,
    pub(crate) show_responses: bool,
    /// Members of `GET info`.
    pub(crate) about: Map<String, Value>,
    pub(crate) configuration: Option<Arc<dyn Fn() -> Value + Send + Sync>>,
    pub(crate) unready: Option<Arc<dyn Fn() -> Option<&'static str> + Send + Sync>>,
    pub(crate) console: bool,
    pub(crate) reload: Option<Hook>,
    pub(crate) drain: Option<Hook>,
}

/// The state that the clones of an [`Admin`](crate::Admin) share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) engine: Engine,
    /// `None` when the requests of the engine go through no layer of this crate.
    pub(crate) layer: Option<IdempotencyLayer>,
    pub(crate) started: SystemTime,
    pub(crate) sessions: Sessions,
    pub(crate) jobs: Jobs,
    pub(crate) series: Series,
}

/// The state of a router.
pub(crate) struct Desk {
    pub(crate) common: Arc<Common>,
    pub(crate) settings: Settings,
    /// The value that a browser behind an embedder's authentication must send in `Oncekey-Csrf`.
    pub(crate) csrf: Option<String>,
}

pub(crate) type Shared = State<Arc<Desk>>;

impl Desk {
    pub(crate) fn engine(&self) -> &Engine {
        &self.common.engine
    }

    /// Why this server should get no requests; `None` when it should.
    pub(crate) fn unready(&self) -> Option<&'static str> {
        match &self.settings.unready {
            Some(unready) => unready(),
            None => self.engine().stats().full.then_some("store_full"),
        }
    }

    /// Starts sampling, unless a clone has started it or no runtime exists yet.
    pub(crate) fn begin_sampling(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.common.series.begin() {
            let sampled = Arc::downgrade(&self.common);
            let sample =
                |common: &Common| common.series.sample(&common.engine, common.layer.as_ref());
            runtime.spawn(series::keep_sampling(sampled, sample));
        }
    }
}
