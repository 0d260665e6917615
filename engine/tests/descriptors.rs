//! Few files are open, few exist, and a process that may open no more recovers by itself.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::*;
use oncekey::{Begin, Engine, ErrorKind, Options};
use oncekey_testing::{Fault, OpKind, Ops};

const CHILD: &str = "ONCEKEY_FEW_DESCRIPTORS";

/// TTLs from a second to a year in even ratios.
fn ttl_of(number: u32) -> Duration {
    Duration::from_secs_f64(3600.0 * (8760.0_f64).powf(f64::from(number) / 999.0))
}

fn far_and_near(engine: &Engine) {
    for number in 0..1000u32 {
        let claim = claim(engine, &format!("k{number}"));
        let response = number.to_le_bytes();
        claim.complete_with(Some(&response), Some(ttl_of(number))).wait().unwrap();
        if number % 100 == 99 {
            engine.fold().unwrap();
        }
    }
    // The same again, out of order, so that each fold has records of many buckets.
    for number in (0..1000u32).map(|number| number * 7 % 1000) {
        let claim = claim(engine, &format!("again {number}"));
        claim.complete_with(Some(b"x"), Some(ttl_of(number))).wait().unwrap();
        if number % 50 == 0 {
            engine.fold().unwrap();
        }
    }
}

fn all_replay(engine: &Engine) {
    for number in 0..1000u32 {
        let found = replay(engine, &format!("k{number}"));
        assert_eq!(found.response(), Some(&number.to_le_bytes()[..]));
    }
}

#[test]
fn a_thousand_ttls_need_few_descriptors() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let options = Options::new().segment_bytes(4 << 20).max_response(4096);
        let engine = options.clone().open(&dir).unwrap();
        far_and_near(&engine);
        all_replay(&engine);
        assert_eq!(engine.stats().failures, 0);
        engine.close().unwrap();
        let engine = options.open(&dir).unwrap();
        all_replay(&engine);
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let open: Vec<_> =
            open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()).collect();
        // A quarter of the limit for records and runs, the journal, the store file and its lock.
        let of_store = open.iter().filter(|file| file.starts_with(&dir)).count();
        assert!(of_store <= 16 + 16, "{open:#?}");
        return;
    }
    let dir = std::env::temp_dir().join(format!("oncekey-descriptors-{}", std::process::id()));
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_thousand_ttls_need_few_descriptors", "--nocapture"])
        .env(CHILD, &dir)
        .status();
    let files = std::fs::read_dir(&dir).unwrap();
    let records = files
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("records-"))
        .count();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(child.unwrap().success());
    assert!(records < 150, "{records} record files");
}

fn exhausted(errno: i32) -> Fault {
    Fault::new(Ops::Opening, 0).errno(errno).forever()
}

fn begin_until_claimed(engine: &Engine, name: &str) -> oncekey::Claim {
    loop {
        match engine.begin(&key(name), body("a")).wait() {
            Ok(Begin::Claimed(claim)) => return claim,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}"),
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_fold_without_descriptors_is_put_off_and_ends_go_on() {
    for errno in [Fault::EMFILE, Fault::ENFILE] {
        for nth in 0..6 {
            let sim = Sim::new();
            let engine = sim.open();
            fold_one_of_two(&engine);
            let held = claim(&engine, "held");
            sim.disk.inject(Fault::new(Ops::Opening, nth).errno(errno).forever());
            match engine.fold() {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(replay(&engine, "journalled").response(), Some(&b"two"[..]));
                    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error:?}");
                    assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::Overloaded);
                    let refused = engine.backup_to("/copy").unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::Overloaded);
                }
            }
            held.checkpoint(b"half").wait().unwrap();
            held.complete(b"done").wait().unwrap();
            sim.disk.clear_faults();
            begin_until_claimed(&engine, "later").complete(b"x").wait().unwrap();
            engine.fold().unwrap();
            both_replay(&engine);
            assert_eq!(replay(&engine, "held").response(), Some(&b"done"[..]));
            assert_eq!(engine.stats().failures, 0);
            engine.close().unwrap();
            assert!(sim.options().verify("/store").unwrap().is_sound());
        }
    }
}

/// If the file of a record cannot be opened, the answer is that the record cannot be read now, never that there is
/// none.
#[test]
fn a_replay_without_a_descriptor_is_refused_for_now() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"one");
    engine.fold().unwrap();
    let engine = {
        engine.close().unwrap();
        sim.open()
    };
    sim.disk.inject(exhausted(Fault::EMFILE).on_path("records-"));
    assert_eq!(begin_error(&engine, "k").kind(), ErrorKind::Overloaded);
    sim.disk.clear_faults();
    assert_eq!(replay(&engine, "k").response(), Some(&b"one"[..]));
    assert_eq!(engine.stats().failures, 0);
}

/// A reader closes one of its files to open another.
#[test]
fn open_files_make_way_when_the_host_has_used_the_rest_up() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "near", b"one");
    claim(&engine, "far").complete_with(Some(b"two"), Some(TTL * 10)).wait().unwrap();
    engine.fold().unwrap();
    replay(&engine, "near");
    sim.disk.inject(Fault::at_kind(OpKind::Open, 0).errno(Fault::EMFILE).on_path("records-"));
    assert_eq!(replay(&engine, "far").response(), Some(&b"two"[..]));
    assert_eq!(sim.disk.faults_fired(), 1);
}

/// The fold worker loads the filters of runs when the store is open. Opening itself reads no run.
#[test]
fn loading_filters_without_descriptors_is_put_off() {
    for errno in [Fault::EMFILE, Fault::ENFILE] {
        let sim = Sim::new();
        let engine = sim.open();
        complete(&engine, "k", b"x");
        engine.close().unwrap();
        sim.disk.inject(exhausted(errno).on_path("run-"));
        let engine = sim.open();
        while !engine.stats().full {
            assert_eq!(engine.stats().failures, 0);
            std::thread::yield_now();
        }
        assert!(sim.disk.faults_fired() > 0);
        assert_eq!(begin_error(&engine, "new").kind(), ErrorKind::Overloaded);
        sim.disk.clear_faults();
        begin_until_claimed(&engine, "later").complete(b"y").wait().unwrap();
        replay(&engine, "k");
        assert_eq!(engine.stats().failures, 0);
        engine.close().unwrap();
    }
}

#[test]
fn a_segment_that_cannot_be_prepared_is_reported_with_its_own_kind() {
    let cases = [
        (Fault::EMFILE, ErrorKind::Overloaded),
        (Fault::ENFILE, ErrorKind::Overloaded),
        (Fault::ENOSPC, ErrorKind::StoreFull),
        (Fault::EIO, ErrorKind::Io),
        (2, ErrorKind::Io),
        (13, ErrorKind::StoreUnreadable),
    ];
    for (errno, kind) in cases {
        let sim = Sim::new();
        let engine = sim.open();
        let mut held: Vec<_> = (0..100).map(|n| claim(&engine, &format!("held {n}"))).collect();
        let refuses = Fault::at_kind(OpKind::Create, 0).errno(errno).forever();
        sim.disk.inject(refuses.on_path("journal-"));
        // A fold recycles no segment while its files cannot be created.
        sim.disk.inject(
            Fault::at_kind(OpKind::Create, 0).errno(Fault::EMFILE).on_path("run-").forever(),
        );
        let refused = loop {
            match held.pop().unwrap().complete(&[7; 4096]).wait() {
                Ok(_) => {}
                Err(failed) => break failed,
            }
        };
        assert_eq!(refused.kind(), kind, "{refused:?}");
        let mut granted = Vec::new();
        let error = loop {
            match engine.begin(&key(format!("new {}", granted.len())), body("a")).wait() {
                Ok(begun) => granted.push(begun),
                Err(error) => break error,
            }
        };
        assert!([kind, ErrorKind::Overloaded].contains(&error.kind()), "{error:?}");
        assert!(std::error::Error::source(&error).is_some());
        let claim = refused.into_handle().unwrap();
        sim.disk.clear_faults();
        let mut claim = Some(claim);
        while let Some(again) = claim.take() {
            claim = again.complete(b"again").wait().err().and_then(|failed| failed.into_handle());
        }
        assert_eq!(
            replay(&engine, &format!("held {}", held.len())).response(),
            Some(&b"again"[..])
        );
        assert_eq!(engine.stats().failures, 0);
    }
}

#[test]
fn the_bound_of_open_files_is_checked() {
    let sim = Sim::new();
    let refused = sim.options().max_open_files(7).open("/store").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    sim.options().max_open_files(8).open("/store").unwrap();
}
