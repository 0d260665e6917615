//! The feature `serde`: the form of the public values, and that they can be read back.
#![cfg(feature = "serde")]
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use oncekey::{CloseReport, Durability, ErrorKind, Key, Options, Stats};
use serde_json::json;

fn options(value: serde_json::Value) -> Result<Options, serde_json::Error> {
    serde_json::from_value(value)
}

#[test]
fn a_key_is_text_where_it_is_text_and_comes_back_whatever_it_is() {
    let key = Key::new("tenant-7", "order \u{e9}").unwrap();
    assert_eq!(
        serde_json::to_value(&key).unwrap(),
        json!({"scope": "tenant-7", "key": "order \u{e9}"})
    );
    for key in [key, Key::new("", [0xff, 0, b'"']).unwrap()] {
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<Key>(&text).unwrap(), key, "{text}");
    }
    let error = serde_json::from_value::<Key>(json!({"scope": "", "key": ""})).unwrap_err();
    assert!(error.to_string().contains("1 to 255"), "{error}");
    // The scope may be left out.
    let key: Key = serde_json::from_value(json!({"key": "k"})).unwrap();
    assert_eq!((key.scope(), key.key()), (&b""[..], &b"k"[..]));
}

#[test]
fn options_are_a_section_of_a_settings_file() {
    let set = options(json!({"ttl": 3600, "overload_after": 0.25, "max_execution": 2,
        "durability": "Relaxed", "max_in_flight": 10}));
    let sim = Sim::new();
    let expected = Options::new()
        .ttl(Duration::from_secs(3600))
        .overload_after(Duration::from_millis(250))
        .max_execution(Some(Duration::from_secs(2)))
        .durability(Durability::Relaxed)
        .max_in_flight(10);
    let written = |options: &Options| serde_json::to_value(options).unwrap();
    let set = set.unwrap();
    assert_eq!(written(&set), written(&expected));
    assert_eq!(written(&set)["ttl"], 3600);
    // Every value can be read back, the longest time, too.
    let all = expected.max_clock_gap(Duration::MAX);
    assert_eq!(written(&options(written(&all)).unwrap()), written(&all));
    // An empty section means the defaults, with the real disk and clock.
    assert_eq!(written(&options(json!({})).unwrap()), written(&Options::new()));
    for (wrong, named) in [
        (json!({"tll": 1}), "tll"),
        (json!({"ttl": -1}), "negative"),
        (json!({"ttl": "1h"}), "ttl"),
    ] {
        let error = options(wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(named) || error.contains("untagged"), "{wrong}: {error}");
    }
    // Bounds are checked at open, as always.
    let refused = options(json!({"max_orphans": 0})).unwrap();
    let refused = refused.disk(std::sync::Arc::new(sim.disk)).open("/store").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("max_orphans is 0, at least 1"), "{refused}");
}

#[test]
fn reports_can_be_handed_on() {
    let sim = Sim::new();
    let engine = sim.open();
    claim(&engine, "k").complete(b"r").wait().unwrap();
    let held = claim(&engine, "held");
    let stats = engine.stats();
    let value = serde_json::to_value(&stats).unwrap();
    assert_eq!((&value["claimed"], &value["in_flight"]), (&json!(2), &json!(1)));
    assert_eq!(serde_json::from_value::<Stats>(value).unwrap(), stats);
    // A newer version reads what an older one wrote.
    assert_eq!(serde_json::from_value::<Stats>(json!({})).unwrap(), Stats::default());

    let report = engine.close().unwrap();
    drop(held);
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["in_flight"], 1);
    assert_eq!(serde_json::from_value::<CloseReport>(value).unwrap(), report);

    let verified = sim.options().verify("/store").unwrap();
    let value = serde_json::to_value(&verified).unwrap();
    assert_eq!(value, json!({"records": verified.records(), "damage": []}));
}

#[cfg(not(any(oncekey_loom, oncekey_shuttle)))]
#[test]
fn options_of_a_fleet_are_a_section_too() {
    use oncekey::fleet::Options;
    let read = serde_json::from_value::<Options>;
    let set = read(json!({"lease": 2.5, "max_orphans": 10, "max_store_bytes": 1048576})).unwrap();
    assert_eq!((set.lease, set.max_orphans), (Duration::from_millis(2500), 10));
    let written = serde_json::to_value(&set).unwrap();
    assert_eq!((&written["lease"], &written["ttl"]), (&json!(2.5), &json!(86400)));
    assert_eq!(serde_json::to_value(read(written.clone()).unwrap()).unwrap(), written);
    assert!(read(json!({"leese": 1})).unwrap_err().to_string().contains("leese"));
}

#[test]
fn a_damage_has_its_key_and_its_fault() {
    let sim = Sim::new();
    let engine = sim.open();
    claim(&engine, "k").complete(&[b'r'; 64]).wait().unwrap();
    engine.fold().unwrap();
    engine.close().unwrap();
    let files = sim.disk.files().into_iter().map(|(path, _)| path);
    let records = files.filter(|path| path.to_string_lossy().contains("records-"));
    for path in records {
        let mut bytes = sim.disk.read_file(&path);
        let at = bytes.windows(8).position(|bytes| bytes == b"rrrrrrrr").unwrap();
        bytes[at] ^= 1;
        sim.disk.put_file(&path, &bytes);
    }
    let verified = sim.options().verify("/store").unwrap();
    let value = serde_json::to_value(&verified).unwrap();
    let damage = &value["damage"][0];
    assert_eq!(damage["key"], json!({"scope": "scope", "key": "k"}), "{value}");
    assert_eq!(damage["error"]["kind"], "Corrupted");
    assert_eq!(damage["error"]["message"], verified.damage()[0].error().to_string());
}
