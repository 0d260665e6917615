//! Opens a store with the options of C: a directory of this process alone, or a database that processes
//! share.

use std::path::Path;
use std::time::Duration;

use crate::abi::options::*;
use crate::boundary::convert::Caller;
use crate::boundary::failure::Failure;
use crate::boundary::signals;
use crate::objects::option_values::{countable, durability_of, refuse};
use crate::objects::shared_store;

const KNOWN_FLAGS: u32 = ONCEKEY_OPEN_EXISTING
    | ONCEKEY_ACCEPT_CLOCK_JUMP
    | ONCEKEY_ALLOW_NETWORK_FILESYSTEM
    | ONCEKEY_REPLICATION_REQUIRED
    | ONCEKEY_ACCEPT_LOST_HISTORY
    | ONCEKEY_WITHOUT_STARTUP_OPTIONS;

impl Options {
    pub(crate) fn open(&self, place: &Path, caller: &Caller) -> Result<oncekey::Engine, Failure> {
        if self.flags & !KNOWN_FLAGS != 0 || self.reserved != 0 {
            return Err(Failure::invalid("the options have flags that this library does not know"));
        }
        if let Some(url) = shared_store::url(place) {
            return shared_store::open(url, self, caller);
        }
        let (options, place) = (self.to_engine()?, place.to_owned());
        let create = self.flags & ONCEKEY_OPEN_EXISTING == 0;
        let open = move || if create { options.open(place) } else { options.open_existing(place) };
        Ok(signals::without("oncekey-open", open)??)
    }

    fn to_engine(self) -> Result<oncekey::Options, Failure> {
        // Without `..`, so that an option that is not handed on does not compile.
        let Self {
            size: _,
            flags,
            durability,
            reserved: _,
            ttl_ms,
            max_execution_ms,
            max_response,
            max_checkpoint,
            max_in_flight,
            max_orphans,
            max_queue,
            max_waiters,
            max_store_bytes,
            overload_after_ms,
            recent_bytes,
            cache_bytes,
            segment_bytes,
            sweep_interval_ms,
            max_clock_gap_ms,
            max_open_files,
            max_open_bytes,
            backup_bytes_per_second,
            lock_wait_ms,
            lease_ms: _,
            settle_for_ms: _,
            schema: _,
            instance_name: _,
            root_certificates: _,
        } = self;
        self.refuse_shared()?;
        let flag = |flag| flags & flag != 0;
        let to = oncekey::Options::new()
            .durability(durability_of(durability)?)
            .accept_clock_jump(flag(ONCEKEY_ACCEPT_CLOCK_JUMP))
            .allow_network_filesystem(flag(ONCEKEY_ALLOW_NETWORK_FILESYSTEM));
        use oncekey::Options as To;
        Ok(Change(to)
            .time(ttl_ms, To::ttl)
            .time(max_execution_ms, |to, time| to.max_execution(Some(time)))
            .time(overload_after_ms, To::overload_after)
            .time(sweep_interval_ms, To::sweep_interval)
            .time(max_clock_gap_ms, To::max_clock_gap)
            .time(lock_wait_ms, To::lock_wait)
            .count(max_response, To::max_response)
            .count(max_checkpoint, To::max_checkpoint)
            .count(max_in_flight, To::max_in_flight)
            .count(max_orphans, To::max_orphans)
            .count(max_queue, To::max_queue)
            .count(max_waiters, To::max_waiters)
            .count(max_open_files, To::max_open_files)
            .count(recent_bytes, To::recent_bytes)
            .count(cache_bytes, To::cache_bytes)
            .bytes(max_store_bytes, |to, bytes| to.max_store_bytes(Some(bytes)))
            .bytes(max_open_bytes, To::max_open_bytes)
            .bytes(segment_bytes, To::segment_bytes)
            .bytes(backup_bytes_per_second, |to, rate| to.backup_bytes_per_second(Some(rate)))
            .0)
    }

    /// Refuses each option that only a shared store has.
    fn refuse_shared(&self) -> Result<(), Failure> {
        let flag = |flag| self.flags & flag != 0;
        refuse(
            "a directory",
            [
                ("lease_ms", self.lease_ms != 0),
                ("settle_for_ms", self.settle_for_ms != 0),
                ("schema", self.schema.len != 0),
                ("instance_name", self.instance_name.len != 0),
                ("root_certificates", self.root_certificates.len != 0),
                ("ONCEKEY_REPLICATION_REQUIRED", flag(ONCEKEY_REPLICATION_REQUIRED)),
                ("ONCEKEY_ACCEPT_LOST_HISTORY", flag(ONCEKEY_ACCEPT_LOST_HISTORY)),
                ("ONCEKEY_WITHOUT_STARTUP_OPTIONS", flag(ONCEKEY_WITHOUT_STARTUP_OPTIONS)),
            ],
        )
    }
}

/// The engine's options, changed by each value that is not 0.
struct Change(oncekey::Options);

impl Change {
    fn bytes(
        self,
        bytes: u64,
        set: impl FnOnce(oncekey::Options, u64) -> oncekey::Options,
    ) -> Self {
        Self(if bytes == 0 { self.0 } else { set(self.0, bytes) })
    }

    fn time(
        self,
        ms: u64,
        set: impl FnOnce(oncekey::Options, Duration) -> oncekey::Options,
    ) -> Self {
        self.bytes(ms, |to, ms| set(to, Duration::from_millis(ms)))
    }

    fn count(
        self,
        count: u64,
        set: impl FnOnce(oncekey::Options, usize) -> oncekey::Options,
    ) -> Self {
        self.bytes(count, |to, count| set(to, countable(count)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The engine's options by name, as they print themselves.
    fn printed(options: &oncekey::Options) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        let mut name = String::new();
        for line in format!("{options:#?}").lines() {
            let field =
                line.strip_prefix("    ").filter(|line| line.starts_with(char::is_alphabetic));
            if let Some((field, _)) = field.and_then(|line| line.split_once(": ")) {
                name = field.to_owned();
            }
            fields.entry(name.clone()).or_insert_with(String::new).push_str(line);
        }
        fields.remove("");
        fields
    }

    /// Options as C zeroes them.
    fn unset() -> Options {
        // SAFETY: `Plain`: zeros are options.
        unsafe { std::mem::zeroed() }
    }

    #[test]
    fn an_option_of_shared_stores_is_refused_for_a_directory_by_its_name() {
        let name = crate::abi::types::Slice { ptr: b"x".as_ptr(), len: 1 };
        for (name, options) in [
            ("lease_ms", Options { lease_ms: 1_000, ..unset() }),
            ("settle_for_ms", Options { settle_for_ms: 1, ..unset() }),
            ("schema", Options { schema: name, ..unset() }),
            ("instance_name", Options { instance_name: name, ..unset() }),
            ("root_certificates", Options { root_certificates: name, ..unset() }),
            (
                "ONCEKEY_REPLICATION_REQUIRED",
                Options { flags: ONCEKEY_REPLICATION_REQUIRED, ..unset() },
            ),
            (
                "ONCEKEY_ACCEPT_LOST_HISTORY",
                Options { flags: ONCEKEY_ACCEPT_LOST_HISTORY, ..unset() },
            ),
            (
                "ONCEKEY_WITHOUT_STARTUP_OPTIONS",
                Options { flags: ONCEKEY_WITHOUT_STARTUP_OPTIONS, ..unset() },
            ),
        ] {
            let refused = options.to_engine().unwrap_err();
            assert_eq!(refused.status(), crate::abi::status::ONCEKEY_INVALID_INPUT);
            assert!(refused.message().contains(&format!("{name} is not an option")), "{name}");
        }
    }

    #[test]
    fn every_option_of_the_engine_can_be_set() {
        let changed = Options {
            size: 0,
            flags: ONCEKEY_ACCEPT_CLOCK_JUMP | ONCEKEY_ALLOW_NETWORK_FILESYSTEM,
            durability: ONCEKEY_RELAXED,
            reserved: 0,
            ttl_ms: 1001,
            max_execution_ms: 1002,
            max_response: 1003,
            max_checkpoint: 1004,
            max_in_flight: 1005,
            max_orphans: 1006,
            max_queue: 1007,
            max_waiters: 1008,
            max_store_bytes: 1009,
            overload_after_ms: 1010,
            recent_bytes: 1011,
            cache_bytes: 1012,
            segment_bytes: 1013,
            sweep_interval_ms: 1014,
            max_clock_gap_ms: 1015,
            max_open_files: 1016,
            max_open_bytes: 1017,
            backup_bytes_per_second: 1018,
            lock_wait_ms: 1019,
            ..unset()
        };
        let changed = printed(&changed.to_engine().unwrap());
        let defaults = printed(&oncekey::Options::new());
        assert_eq!(changed.keys().collect::<Vec<_>>(), defaults.keys().collect::<Vec<_>>());
        let unset: Vec<_> = defaults.iter().filter(|(name, of)| changed[*name] == **of).collect();
        // The seams of tests are not for C, and neither is the note that names the owner's control socket.
        let unset: Vec<_> = unset.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            unset.iter().filter(|name| **name != "stepper").collect::<Vec<_>>(),
            [&"clock", &"disk", &"owner_note"]
        );
        // Each value reached its own option.
        for (name, number) in
            [("ttl", "1.001s"), ("max_execution", "1.002s"), ("max_open_bytes", "1017")]
        {
            assert!(changed[name].contains(number), "{name}");
        }
        let numbers = (1001..=1019).filter(|number| {
            let ms = format!("{:?}", Duration::from_millis(*number));
            let has = |text: &String| text.contains(&number.to_string()) || text.contains(&ms);
            changed.values().filter(|text| has(text)).count() == 1
        });
        assert_eq!(numbers.count(), 19);
    }
}
