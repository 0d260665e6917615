//! How a process takes part in a fleet.

use std::time::Duration;

use crate::admission::limits::Bounds;
use crate::backend::{MIN_TTL, Settings};
use crate::base::error::{Error, Result};

/// Options of an engine over a shared store; every one has a default that suits a server.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Options {
    pub ttl: Duration,
    pub max_execution: Option<Duration>,
    pub max_response: usize,
    pub max_checkpoint: usize,
    pub max_in_flight: usize,
    pub max_queue: usize,
    pub max_waiters: usize,
    /// Of the whole store, as the last upkeep counted: from then on begins are `Overloaded`.
    pub max_orphans: usize,
    /// Of the whole store, as the last upkeep measured: from then on new claims are `StoreFull`.
    pub max_store_bytes: Option<u64>,
    pub overload_after: Duration,
    pub settle_for: Duration,
    pub upkeep_interval: Duration,
    pub replay_bytes: usize,
    pub durable_claims: bool,
    pub lease: Duration,
    pub instance_name: String,
    pub build: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 60 * 60),
            max_execution: None,
            max_response: 1 << 20,
            max_checkpoint: 64 << 10,
            max_in_flight: 65_536,
            max_queue: 65_536,
            max_waiters: 65_536,
            max_orphans: 1_000_000,
            max_store_bytes: None,
            overload_after: Duration::from_secs(5),
            settle_for: Duration::from_secs(30),
            upkeep_interval: Duration::from_secs(60),
            replay_bytes: 16 << 20,
            durable_claims: true,
            lease: Duration::from_secs(15),
            instance_name: String::new(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl Options {
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            ttl: self.ttl,
            max_execution: self.max_execution,
            max_response: self.max_response,
            max_checkpoint: self.max_checkpoint,
        }
    }

    /// What bounds the operations of this process.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            in_flight: self.max_in_flight,
            queued: self.max_queue,
            waiting: self.max_waiters,
            orphans: self.max_orphans as u64,
            ..Bounds::NONE
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        const MAX_PAYLOAD: usize = 16 << 20;
        let lease = Duration::from_secs(1)..=Duration::from_secs(600);
        let wrong = [
            ("ttl", self.ttl < MIN_TTL),
            ("max_execution", self.max_execution.is_some_and(|limit| limit < MIN_TTL)),
            ("max_response", self.max_response > MAX_PAYLOAD),
            ("max_checkpoint", self.max_checkpoint > MAX_PAYLOAD),
            ("max_in_flight", self.max_in_flight == 0),
            ("max_queue", self.max_queue == 0),
            ("max_waiters", self.max_waiters == 0),
            ("max_orphans", self.max_orphans == 0),
            ("lease (1 second to 10 minutes)", !lease.contains(&self.lease)),
            ("upkeep_interval", self.upkeep_interval < MIN_TTL),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((option, _)) => Err(Error::invalid(format!("{option} is outside its limits"))),
            None => Ok(()),
        }
    }
}
