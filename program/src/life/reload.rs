//! Reads the configuration again while the process runs.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::signal::unix::Signal;

use super::maker::Maker;
use crate::base::exit::Failure;
use crate::config::{self, Config};
use crate::front::proxy::Proxy;
use crate::front::serve::Current;
use crate::front::tls::Tls;
use crate::report::metrics;

/// Reads the configuration from its current sources.
pub(crate) type Configure = Box<dyn Fn() -> Result<Config, Failure> + Send + Sync>;

/// Replaces the current proxy by a new one, if the configuration allows it.
pub(crate) struct Reloader {
    /// The configuration at the start of the process.
    pub(crate) running: Config,
    pub(crate) configure: Configure,
    pub(crate) maker: Maker,
    pub(crate) proxy: Arc<Current>,
    pub(crate) tls: Option<Arc<Tls>>,
    /// The configuration in force, as TOML.
    pub(crate) printed: Mutex<String>,
}

impl Reloader {
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().clone()
    }

    /// Reloads at each signal.
    pub(crate) async fn at_each(self: Arc<Self>, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            // The failure was logged already.
            let _ = self.reload().await;
        }
    }

    /// # Errors
    /// The reasons why the whole old configuration stays in force.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<(), Vec<String>> {
        let this = self.clone();
        // This reads files and resolves names. It also starts health checks, which need the runtime.
        let runtime = tokio::runtime::Handle::current();
        let made = tokio::task::spawn_blocking(move || {
            let _inside = runtime.enter();
            this.make()
        });
        let made = made.await.unwrap_or_else(|error| Err(vec![error.to_string()]));
        match made {
            Ok((proxy, printed)) => {
                self.proxy.set(proxy);
                *self.printed.lock() = printed;
                metrics::reloaded("done");
                tracing::info!("the configuration was reloaded");
                Ok(())
            }
            Err(lines) => {
                metrics::reloaded("refused");
                let reason = lines.join("; ");
                tracing::error!(
                    reason,
                    "the configuration was not reloaded; the old one is in force"
                );
                Err(lines)
            }
        }
    }

    fn make(&self) -> Result<(Proxy, String), Vec<String>> {
        let config = (self.configure)().map_err(|failure| failure.lines)?;
        let fixed = self.running.fixed_fields_that_differ(&config);
        if !fixed.is_empty() {
            return Err(vec![format!("a restart is needed to change {}", fixed.join(", "))]);
        }
        let proxy = self.maker.proxy(&config).map_err(|error| vec![error])?;
        // Last, since nothing may be refused after it.
        if let Some(tls) = &self.tls {
            tls.reload().map_err(|error| vec![error])?;
        }
        Ok((proxy, config::print(&config)))
    }
}
