//! How a process takes part in a fleet.

use std::time::Duration;

use crate::admission::limits::Bounds;
use crate::backend::{MIN_TTL, Settings};
use crate::base::error::{Error, Result};
use crate::base::range::{at_least, at_most};

/// The least value of `max_store_bytes`. An empty store takes a fifth of it.
const LEAST_STORE: u64 = 1 << 20;

/// The longest name of an instance, in bytes.
const MAX_NAME: usize = 255;

/// Options of an engine over a shared store; every one has a default that suits a server.
///
/// With the feature `serde` they are a section of a file of settings: times are numbers of seconds, and a field that is
/// left out has its default.
#[derive(Clone, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Options {
    /// How long a completed response is replayed, and how long an orphan stands. Default 24 hours; at least 1 ms.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub ttl: Duration,
    /// From which age on a claim counts as an orphan although its owner lives. Default `None`: never.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds::optional"))]
    pub max_execution: Option<Duration>,
    /// The longest response that is kept, in bytes. Default 1 MiB, at most 16 MiB.
    pub max_response: usize,
    /// The longest checkpoint, in bytes. Default 64 KiB, at most 16 MiB.
    pub max_checkpoint: usize,
    /// How many claims of this process may be in flight. Default 65,536. At the bound `begin` is `Overloaded`.
    pub max_in_flight: usize,
    /// How many begins of this process may be on their way to the store. Default 65,536.
    pub max_queue: usize,
    /// How many begins of this process may wait for an owner. Default 65,536.
    pub max_waiters: usize,
    /// How many orphans the whole store may have, as the last upkeep counted: from then on begins are `Overloaded`.
    /// Default 1,000,000.
    pub max_orphans: usize,
    /// How large the whole store may grow, in bytes, as the last upkeep measured: from then on new claims are
    /// `StoreFull`. Default `None`: off; at least 1 MiB.
    pub max_store_bytes: Option<u64>,
    /// How long a begin waits for an answer of the store before it is `Unavailable`. Default 5 seconds.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub overload_after: Duration,
    /// How long the end of a claim is tried again before it is `OutcomeUnknown`. Default 30 seconds.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub settle_for: Duration,
    /// How often the store is kept up, by one process at a time. Default 60 seconds.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub upkeep_interval: Duration,
    /// Memory for responses that are replayed without a question to the store, in bytes. Default 16 MiB.
    pub replay_bytes: usize,
    /// Whether `begin` waits until its claim is durable at the server. Default `true`; `false` is
    /// `Durability::Relaxed`.
    pub durable_claims: bool,
    /// How long this process counts as living after each renewal. Default 15 s, 1 s to 10 min.
    #[cfg_attr(feature = "serde", serde(with = "crate::base::serialize::seconds"))]
    pub lease: Duration,
    /// A name that no other living process has: at open it ends its predecessor. Default none; at most 255 bytes.
    pub instance_name: String,
    /// The version that the store notes with this process. Default that of this crate.
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

    /// The bounds of the operations of this process.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            in_flight: self.max_in_flight,
            queued: self.max_queue,
            waiting: self.max_waiters,
            orphans: self.max_orphans as u64,
            ..Bounds::NONE
        }
    }

    /// Checks every option against its bound, as opening a fleet's store does first.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), which names the option, its value and the bound.
    pub fn validate(&self) -> Result<()> {
        self.settings().validate()?;
        self.bounds().validate()?;
        at_least("lease", self.lease, Duration::from_secs(1))?;
        at_most("lease", self.lease, Duration::from_secs(600))?;
        at_least("overload_after", self.overload_after, MIN_TTL)?;
        at_least("settle_for", self.settle_for, MIN_TTL)?;
        at_least("upkeep_interval", self.upkeep_interval, MIN_TTL)?;
        at_least("max_store_bytes", self.max_store_bytes.unwrap_or(LEAST_STORE), LEAST_STORE)?;
        at_most("the bytes of instance_name", self.instance_name.len(), MAX_NAME)?;
        if self.instance_name.contains('\0') {
            return Err(Error::invalid("instance_name has a NUL byte, none is allowed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_beyond_its_range_is_refused_by_its_name_with_the_bound() {
        let refused = |change: fn(&mut Options)| {
            let mut options = Options::default();
            options.validate().unwrap();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        for (told, change) in [
            ("ttl is 0ns, at least 1ms", (|o| o.ttl = Duration::ZERO) as fn(&mut Options)),
            ("max_execution is 0ns, at least 1ms", |o| o.max_execution = Some(Duration::ZERO)),
            ("max_response is 16777217, at most 16777216", |o| o.max_response = (16 << 20) + 1),
            ("max_checkpoint is 16777217, at most 16777216", |o| o.max_checkpoint = (16 << 20) + 1),
            ("max_in_flight is 0, at least 1", |o| o.max_in_flight = 0),
            ("max_queue is 0, at least 1", |o| o.max_queue = 0),
            ("max_waiters is 0, at least 1", |o| o.max_waiters = 0),
            ("max_orphans is 0, at least 1", |o| o.max_orphans = 0),
            ("lease is 999ms, at least 1s", |o| o.lease = Duration::from_millis(999)),
            ("lease is 601s, at most 600s", |o| o.lease = Duration::from_secs(601)),
            ("overload_after is 0ns, at least 1ms", |o| o.overload_after = Duration::ZERO),
            ("settle_for is 0ns, at least 1ms", |o| o.settle_for = Duration::ZERO),
            ("upkeep_interval is 0ns, at least 1ms", |o| o.upkeep_interval = Duration::ZERO),
            ("max_store_bytes is 1, at least 1048576", |o| o.max_store_bytes = Some(1)),
            ("instance_name is 256, at most 255", |o| o.instance_name = "n".repeat(256)),
            ("instance_name has a NUL byte", |o| o.instance_name = "a\0".to_owned()),
        ] {
            let message = refused(change);
            assert!(message.contains(told), "{message}");
        }
    }
}
