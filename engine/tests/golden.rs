//! Stores written by every released format are read by every later build.
//!
//! `ONCEKEY_WRITE_GOLDEN=1 cargo test -p oncekey --test golden` writes the store of this build's
//! format, once, before its release; afterwards it is never written again.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use oncekey::{Engine, Options};
use oncekey_testing::ManualClock;

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

/// The real disk; the clock stands where it stood when the fixtures were written.
fn open(path: &Path) -> Engine {
    Options::new()
        .ttl(TTL)
        .max_response(4096)
        .max_checkpoint(1024)
        .segment_bytes(128 << 10)
        .clock(Arc::new(ManualClock::new()))
        .open(path)
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn write(engine: &Engine) {
    complete(engine, "folded", b"a response in the store file");
    let without = claim(engine, "without a response");
    without.complete_with(None, None).wait().unwrap();
    let folded = claim(engine, "folded orphan");
    folded.checkpoint(b"folded").wait().unwrap();
    drop(folded);
    orphan(engine, "folded orphan");
    engine.fold().unwrap();
    complete(engine, "journalled", b"a response in the journal");
    let held = claim(engine, "held");
    held.checkpoint(b"half").wait().unwrap();
    std::mem::forget(held);
}

#[test]
fn a_store_of_format_1_is_read() {
    let scratch = std::env::temp_dir().join(format!("oncekey-golden-{}", std::process::id()));
    if std::env::var_os("ONCEKEY_WRITE_GOLDEN").is_some() {
        let engine = open(&scratch);
        write(&engine);
        // Copied while the engine holds it, the store is as after kill -9.
        fs::remove_dir_all(fixture(1)).ok();
        copy(&scratch, &fixture(1));
        drop(engine);
        fs::remove_dir_all(&scratch).unwrap();
    }
    copy(&fixture(1), &scratch);
    assert!(oncekey::verify(&scratch).unwrap().is_sound());
    let engine = open(&scratch);
    let folded = replay(&engine, "folded");
    assert_eq!(folded.response(), Some(&b"a response in the store file"[..]));
    assert_eq!(replay(&engine, "without a response").response(), None);
    assert_eq!(orphan(&engine, "folded orphan").attempt(), 1);
    let journalled = replay(&engine, "journalled");
    assert_eq!(journalled.response(), Some(&b"a response in the journal"[..]));
    assert_eq!(checkpoint(orphan(&engine, "held").last_checkpoint()), b"half");
    assert_eq!(checkpoint(orphan(&engine, "folded orphan").last_checkpoint()), b"folded");
    let other = engine.begin(&key("folded"), body("b")).wait().unwrap();
    assert!(matches!(&other, oncekey::Begin::Mismatch(m) if m.parts() == ["body"]));
    engine.close().unwrap();
    fs::remove_dir_all(&scratch).unwrap();
}
