//! A store that is a database: many processes share it.

use std::path::Path;

use crate::abi::options::*;
use crate::boundary::convert::Caller;
use crate::boundary::failure::Failure;

/// The URL of a database, if the place is one.
pub(crate) fn url(place: &Path) -> Option<&str> {
    let is_url =
        |text: &&str| ["postgres://", "postgresql://"].iter().any(|of| text.starts_with(of));
    place.to_str().filter(is_url)
}

/// Refuses, and explains how to build a library that opens a database.
#[cfg(not(feature = "postgres"))]
pub(super) fn open(_: &str, _: &Options, _: &Caller) -> Result<oncekey::Engine, Failure> {
    let context = "this library opens directories alone: build it with the feature postgres \
                   (engine-ffi/install.sh --features postgres) to open the URL of a database";
    Err(Failure::new(crate::abi::status::ONCEKEY_UNSUPPORTED, context))
}

#[cfg(feature = "postgres")]
pub(super) use postgres::open;

#[cfg(feature = "postgres")]
mod postgres {
    use std::time::Duration;

    use oncekey::Durability;

    use super::*;
    use crate::boundary::{descriptors, signals};
    use crate::objects::option_values::{countable, durability_of, refuse};

    /// Opens the database that `url` names.
    pub(crate) fn open(
        url: &str,
        options: &Options,
        caller: &Caller,
    ) -> Result<oncekey::Engine, Failure> {
        let is = |flag| options.flags & flag != 0;
        let mut to = oncekey_postgres::Options::new(url)
            .create(!is(ONCEKEY_OPEN_EXISTING))
            .accept_clock_jump(is(ONCEKEY_ACCEPT_CLOCK_JUMP))
            .replication_required(is(ONCEKEY_REPLICATION_REQUIRED))
            .accept_lost_history(is(ONCEKEY_ACCEPT_LOST_HISTORY))
            .startup_options(!is(ONCEKEY_WITHOUT_STARTUP_OPTIONS))
            .engine(engine(options, caller)?);
        if options.schema.len > 0 {
            to = to.schema(caller.text(options.schema, "the schema")?);
        }
        if options.root_certificates.len > 0 {
            to = to.root_certificates(caller.bytes(options.root_certificates, "the certificates")?);
        }
        descriptors::fill_standard_streams()?;
        Ok(signals::without("oncekey-open", move || to.open())??)
    }

    fn engine(options: &Options, caller: &Caller) -> Result<oncekey::fleet::Options, Failure> {
        // Without `..`, so that an option that is not handed on does not compile.
        let Options {
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
            lease_ms,
            settle_for_ms,
            schema: _,
            instance_name,
            root_certificates: _,
        } = *options;
        let network = flags & ONCEKEY_ALLOW_NETWORK_FILESYSTEM != 0;
        refuse(
            "a database",
            [
                ("recent_bytes", recent_bytes != 0),
                ("segment_bytes", segment_bytes != 0),
                ("max_clock_gap_ms", max_clock_gap_ms != 0),
                ("max_open_files", max_open_files != 0),
                ("max_open_bytes", max_open_bytes != 0),
                ("backup_bytes_per_second", backup_bytes_per_second != 0),
                ("lock_wait_ms", lock_wait_ms != 0),
                ("ONCEKEY_ALLOW_NETWORK_FILESYSTEM", network),
            ],
        )?;
        let default = oncekey::fleet::Options::default();
        let time = |ms, default| if ms == 0 { default } else { Duration::from_millis(ms) };
        let count = |number, default| if number == 0 { default } else { countable(number) };
        Ok(oncekey::fleet::Options {
            durable_claims: durability_of(durability)? == Durability::Strict,
            ttl: time(ttl_ms, default.ttl),
            max_execution: (max_execution_ms > 0).then(|| Duration::from_millis(max_execution_ms)),
            max_response: count(max_response, default.max_response),
            max_checkpoint: count(max_checkpoint, default.max_checkpoint),
            max_in_flight: count(max_in_flight, default.max_in_flight),
            max_orphans: count(max_orphans, default.max_orphans),
            max_queue: count(max_queue, default.max_queue),
            max_waiters: count(max_waiters, default.max_waiters),
            max_store_bytes: (max_store_bytes > 0).then_some(max_store_bytes),
            overload_after: time(overload_after_ms, default.overload_after),
            settle_for: time(settle_for_ms, default.settle_for),
            upkeep_interval: time(sweep_interval_ms, default.upkeep_interval),
            replay_bytes: count(cache_bytes, default.replay_bytes),
            lease: time(lease_ms, default.lease),
            instance_name: caller.text(instance_name, "the instance name")?.to_owned(),
            build: default.build,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Options as C zeroes them.
        fn unset() -> Options {
            // SAFETY: `Plain`: zeros are options.
            unsafe { std::mem::zeroed() }
        }

        fn caller() -> Caller {
            // SAFETY: the slices of these tests are of constants.
            unsafe { Caller::new() }
        }

        #[test]
        fn an_option_of_directories_is_refused_for_a_database_by_its_name() {
            for (name, options) in [
                ("recent_bytes", Options { recent_bytes: 1, ..unset() }),
                ("segment_bytes", Options { segment_bytes: 4096, ..unset() }),
                ("max_clock_gap_ms", Options { max_clock_gap_ms: 1, ..unset() }),
                ("max_open_files", Options { max_open_files: 8, ..unset() }),
                ("max_open_bytes", Options { max_open_bytes: 1, ..unset() }),
                ("backup_bytes_per_second", Options { backup_bytes_per_second: 1, ..unset() }),
                ("lock_wait_ms", Options { lock_wait_ms: 1, ..unset() }),
                (
                    "ONCEKEY_ALLOW_NETWORK_FILESYSTEM",
                    Options { flags: ONCEKEY_ALLOW_NETWORK_FILESYSTEM, ..unset() },
                ),
            ] {
                let refused =
                    open("postgres://nowhere.invalid/x", &options, &caller()).unwrap_err();
                assert_eq!(refused.status(), crate::abi::status::ONCEKEY_INVALID_INPUT);
                assert!(refused.message().contains(&format!("{name} is not an option")), "{name}");
            }
        }

        #[test]
        fn every_option_of_a_shared_store_reaches_the_one_that_it_is_for() {
            let options = Options {
                durability: ONCEKEY_RELAXED,
                ttl_ms: 1_001,
                max_execution_ms: 1_002,
                max_response: 1_003,
                max_checkpoint: 1_004,
                max_in_flight: 1_005,
                max_orphans: 1_006,
                max_queue: 1_007,
                max_waiters: 1_008,
                max_store_bytes: 1_009,
                overload_after_ms: 1_010,
                settle_for_ms: 1_011,
                sweep_interval_ms: 1_012,
                cache_bytes: 1_013,
                lease_ms: 1_014,
                instance_name: crate::abi::types::Slice { ptr: b"pod-3".as_ptr(), len: 5 },
                ..unset()
            };
            let to = engine(&options, &caller()).unwrap();
            let millis = [to.ttl, to.overload_after, to.settle_for, to.upkeep_interval, to.lease]
                .map(|time| time.as_millis());
            assert_eq!(millis, [1_001, 1_010, 1_011, 1_012, 1_014]);
            assert_eq!(to.max_execution, Some(Duration::from_millis(1_002)));
            let counts = [
                to.max_response,
                to.max_checkpoint,
                to.max_in_flight,
                to.max_orphans,
                to.max_queue,
                to.max_waiters,
                to.replay_bytes,
            ];
            assert_eq!(counts, [1_003, 1_004, 1_005, 1_006, 1_007, 1_008, 1_013]);
            assert_eq!((to.max_store_bytes, to.durable_claims), (Some(1_009), false));
            assert_eq!(to.instance_name, "pod-3");
            let defaults = engine(&unset(), &caller()).unwrap();
            let expected = oncekey::fleet::Options::default();
            assert_eq!(format!("{defaults:?}"), format!("{expected:?}"));
        }
    }
}

#[cfg(all(test, not(feature = "postgres")))]
mod tests {
    use super::*;

    #[test]
    fn a_library_without_the_feature_says_how_to_build_one_with_it() {
        // SAFETY: no slice is set.
        let (options, caller) = unsafe { (std::mem::zeroed::<Options>(), Caller::new()) };
        for place in ["postgres://db/shop", "postgresql://db/shop"] {
            let refused = options.open(Path::new(place), &caller).unwrap_err();
            assert_eq!(refused.status(), crate::abi::status::ONCEKEY_UNSUPPORTED);
            assert!(refused.message().contains("--features postgres"), "{}", refused.message());
        }
    }
}
