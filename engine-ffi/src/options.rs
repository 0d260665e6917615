//! How a store is opened.

use std::path::Path;
use std::time::Duration;

use oncekey::Durability;

use crate::error::Failure;

/// Every answer that a change happened waits until the change is synced to disk.
pub const ONCEKEY_STRICT: u32 = 301;
/// `begin` grants a claim once it is written, before it is synced: survives kill -9, and after a
/// power loss an operation may run twice.
pub const ONCEKEY_RELAXED: u32 = 302;

/// Refuse to create a store.
pub const ONCEKEY_OPEN_EXISTING: u32 = 65_536;
/// Open although the wall clock stands further ahead than `max_clock_gap_ms`.
pub const ONCEKEY_ACCEPT_CLOCK_JUMP: u32 = 131_072;
/// Open a store on a network filesystem, whose locks and syncs are not to be trusted.
pub const ONCEKEY_ALLOW_NETWORK_FILESYSTEM: u32 = 262_144;

/// Options of a store: set `size`, leave everything else 0, and change what is to differ from the
/// defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// sizeof(oncekey_options) of the caller.
    pub size: u32,
    /// ONCEKEY_OPEN_EXISTING and the others, ored.
    pub flags: u32,
    /// ONCEKEY_STRICT or ONCEKEY_RELAXED. 0: ONCEKEY_STRICT.
    pub durability: u32,
    /// Must be 0.
    pub reserved: u32,
    /// How long a completed response is replayed, and an orphan stands. 0: 24 hours.
    pub ttl_ms: u64,
    /// From which age on a claim counts as an orphan although its owner lives. 0: never.
    pub max_execution_ms: u64,
    /// The longest response that is kept, in bytes. 0: 1 MiB; at most 16 MiB.
    pub max_response: u64,
    /// The longest checkpoint, in bytes. 0: 64 KiB; at most 16 MiB.
    pub max_checkpoint: u64,
    /// How many claims may be in flight. 0: 65,536.
    pub max_in_flight: u64,
    /// How many orphans may stand unresolved. 0: 1,000,000.
    pub max_orphans: u64,
    /// How many begins may wait for the disk. 0: 65,536.
    pub max_queue: u64,
    /// How many begins may wait for an owner. 0: 65,536.
    pub max_waiters: u64,
    /// How large the store may grow, in bytes. 0: no bound.
    pub max_store_bytes: u64,
    /// How long a begin waits for memory before it is refused. 0: 5 seconds.
    pub overload_after_ms: u64,
    /// Memory for records that are not folded yet, in bytes. 0: 32 MiB.
    pub recent_bytes: u64,
    /// Memory for what is read again, in bytes. 0: 64 MiB.
    pub cache_bytes: u64,
    /// The size of a journal segment, in bytes, a multiple of 4096. 0: 32 MiB.
    pub segment_bytes: u64,
    /// How often expired records are looked for. 0: 60 seconds.
    pub sweep_interval_ms: u64,
    /// How far the wall clock may stand ahead of the store's last time. 0: 30 days.
    pub max_clock_gap_ms: u64,
    /// How many files of records may be open. 0: 256; at least 8.
    pub max_open_files: u64,
    /// How many bytes claims in flight and orphans may take, checkpoints included. 0: 1 GiB.
    pub max_open_bytes: u64,
}

const KNOWN_FLAGS: u32 =
    ONCEKEY_OPEN_EXISTING | ONCEKEY_ACCEPT_CLOCK_JUMP | ONCEKEY_ALLOW_NETWORK_FILESYSTEM;

impl Options {
    pub(crate) fn open(&self, path: &Path) -> Result<oncekey::Engine, Failure> {
        let options = self.to_engine()?;
        Ok(if self.flags & ONCEKEY_OPEN_EXISTING == 0 {
            options.open(path)
        } else {
            options.open_existing(path)
        }?)
    }

    fn to_engine(self) -> Result<oncekey::Options, Failure> {
        let durability = match self.durability {
            0 | ONCEKEY_STRICT => Durability::Strict,
            ONCEKEY_RELAXED => Durability::Relaxed,
            other => return Err(Failure::invalid(format!("there is no durability {other}"))),
        };
        if self.flags & !KNOWN_FLAGS != 0 || self.reserved != 0 {
            return Err(Failure::invalid("the options have flags that this library does not know"));
        }
        let mut to = oncekey::Options::new()
            .durability(durability)
            .accept_clock_jump(self.flags & ONCEKEY_ACCEPT_CLOCK_JUMP != 0)
            .allow_network_filesystem(self.flags & ONCEKEY_ALLOW_NETWORK_FILESYSTEM != 0)
            .max_execution(set(self.max_execution_ms).map(Duration::from_millis))
            .max_store_bytes(set(self.max_store_bytes));
        to = change(to, self.ttl_ms, |to, ms| to.ttl(Duration::from_millis(ms)));
        to = change(to, self.max_response, |to, n| to.max_response(count(n)));
        to = change(to, self.max_checkpoint, |to, n| to.max_checkpoint(count(n)));
        to = change(to, self.max_in_flight, |to, n| to.max_in_flight(count(n)));
        to = change(to, self.max_orphans, |to, n| to.max_orphans(count(n)));
        to = change(to, self.max_queue, |to, n| to.max_queue(count(n)));
        to = change(to, self.max_waiters, |to, n| to.max_waiters(count(n)));
        to = change(to, self.overload_after_ms, |to, ms| {
            to.overload_after(Duration::from_millis(ms))
        });
        to = change(to, self.recent_bytes, |to, n| to.recent_bytes(count(n)));
        to = change(to, self.cache_bytes, |to, n| to.cache_bytes(count(n)));
        to = change(to, self.max_open_files, |to, n| to.max_open_files(count(n)));
        to = change(to, self.max_open_bytes, oncekey::Options::max_open_bytes);
        to = change(to, self.segment_bytes, oncekey::Options::segment_bytes);
        to = change(to, self.sweep_interval_ms, |to, ms| {
            to.sweep_interval(Duration::from_millis(ms))
        });
        to =
            change(to, self.max_clock_gap_ms, |to, ms| to.max_clock_gap(Duration::from_millis(ms)));
        Ok(to)
    }
}

fn set(value: u64) -> Option<u64> {
    Some(value).filter(|value| *value != 0)
}

fn change(
    options: oncekey::Options,
    value: u64,
    change: impl FnOnce(oncekey::Options, u64) -> oncekey::Options,
) -> oncekey::Options {
    match set(value) {
        Some(value) => change(options, value),
        None => options,
    }
}

/// A bound beyond what this machine can count, and the engine can add up, is as good as none.
fn count(value: u64) -> usize {
    const MOST: usize = isize::MAX as usize / 2;
    usize::try_from(value).map_or(MOST, |value| value.min(MOST))
}

#[cfg(test)]
mod tests {
    /// The engine's own list, from its source; files and clocks of tests are not for C.
    #[test]
    fn every_option_of_the_engine_can_be_set() {
        let source = include_str!("../../engine/src/embedded/options.rs");
        let mut found = 0;
        for rest in source.split("    pub fn ").skip(1).filter(|rest| rest.contains("(mut self")) {
            let name = rest.split('(').next().unwrap();
            if !rest.lines().next().unwrap().contains("mut self")
                || ["disk", "clock"].contains(&name)
            {
                continue;
            }
            let set = [format!(".{name}("), format!("Options::{name})")];
            let ours = include_str!("options.rs").split_once("fn to_engine").unwrap().1;
            assert!(set.iter().any(|set| ours.contains(set.as_str())), "{name} can not be set");
            found += 1;
        }
        assert!(found > 15, "{found} options");
    }
}
