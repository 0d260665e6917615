//! Options that reach the database, at their ends: the value works there, or is refused at open by the name of the
//! option and its bound. `engine/tests/fleet.rs` has the options that stay in the engine.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::cluster;
use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key, fleet};
use oncekey_postgres::Options;

#[test]
fn the_longest_times_are_times_of_the_database_too() {
    let Some(cluster) = cluster() else { return };
    for set in [
        (|to| to.ttl = Duration::MAX) as fn(&mut fleet::Options),
        |to| to.max_execution = Some(Duration::MAX),
        |to| to.upkeep_interval = Duration::MAX,
        |to| to.lease = Duration::from_secs(600),
    ] {
        let mut engine = fleet::Options::default();
        set(&mut engine);
        works(&cluster.options(&cluster.database(), "").engine(engine).open().unwrap());
    }
}

#[test]
fn a_text_works_or_is_refused_by_the_name_of_its_option() {
    let Some(cluster) = cluster() else { return };
    type Set = fn(Options, String) -> Options;
    let (schema, instance): (Set, Set) = (Options::schema, Options::instance_name);
    let certificates: Set = |options, text| options.root_certificates(text);
    for (set, text, told) in [
        (schema, "s".repeat(63), ""),
        (schema, String::new(), "the bytes of schema are 0, 1 to 63 are allowed"),
        (schema, "s".repeat(64), "the bytes of schema are 64, 1 to 63 are allowed"),
        (schema, "s\0".to_owned(), "schema has a NUL byte"),
        (instance, String::new(), ""),
        (instance, "n".repeat(255), ""),
        (instance, "n".repeat(256), "the bytes of instance_name is 256, at most 255"),
        (instance, "n\0".to_owned(), "instance_name has a NUL byte"),
        (certificates, String::new(), "root_certificates has no certificate"),
        (certificates, "text".to_owned(), "root_certificates has no certificate"),
        (
            certificates,
            "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----".to_owned(),
            "root_certificates cannot be used",
        ),
    ] {
        let options = set(cluster.options(&cluster.database(), ""), text);
        match options.open() {
            Ok(engine) if told.is_empty() => works(&engine),
            Err(error) if !told.is_empty() => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{told}: {error}");
                assert!(error.to_string().contains(told), "{told}: {error}");
                assert_eq!(options.validate().unwrap_err().to_string(), error.to_string());
            }
            other => panic!("{told:?}: {other:?}"),
        }
    }
}

/// Claims, completes, sweeps, reopens and closes.
fn works(engine: &Engine) {
    let key = Key::new("scope", "k").unwrap();
    let fingerprint = || Fingerprint::builder().part("body", "a").finish();
    let begun = engine.begin(&key, fingerprint()).wait().unwrap();
    let Begin::Claimed(claim) = begun else { panic!("{begun:?}") };
    claim.complete(b"r").wait().unwrap();
    engine.sweep().unwrap();
    engine.reopen().unwrap();
    assert!(matches!(engine.begin(&key, fingerprint()).wait().unwrap(), Begin::Replay(_)));
    engine.close().unwrap();
}
