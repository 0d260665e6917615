//! A mutated store directory: an error or right answers, never a panic, an abort or a wrong replay.
#![no_main]

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::sync::LazyLock;

use common::{Random, Sim};
use libfuzzer_sys::fuzz_target;
use oncekey::{Begin, Engine};
use oncekey_testing::{CrashMode, SimDisk};

const KEYS: u8 = 60;

/// Closed, so that the journal has no last group that could be taken for torn.
static STORE: LazyLock<SimDisk> = LazyLock::new(|| {
    let sim = Sim::new();
    let engine = sim.open();
    for number in 0..KEYS {
        common::complete(&engine, &format!("key {number}"), &[number; 300]);
        if number % 20 == 0 {
            engine.fold().unwrap();
        }
    }
    drop(common::claim(&engine, "orphan"));
    engine.close().unwrap();
    sim.disk.crash(CrashMode::LoseAllUnsynced)
});

// redb may panic on damage, which the engine makes an error; libFuzzer's hook would end the process.
// A panic of the target itself still does.
fuzz_target!(init: std::panic::set_hook(Box::new(|info| eprintln!("{info}"))), |bytes: &[u8]| {
    let sim = Sim::new().on(STORE.crash(CrashMode::LoseAllUnsynced));
    let files = sim.disk.files();
    let mut random = Random::taped(bytes.to_vec());
    while random.is_taped() {
        let (path, len) = &files[random.below(files.len() as u64) as usize];
        if *len == 0 {
            continue;
        }
        let block = random.below(len.div_ceil(4096));
        let at = (block * 4096 + random.below(4096)).min(len - 1);
        match random.below(5) {
            0 => sim.disk.flip_bit(path, at, random.below(8) as u32),
            1 => sim.disk.copy_block(path, random.below(len.div_ceil(4096)), block),
            2 => sim.disk.zero_block(path, block),
            3 => {
                let noise: Vec<_> =
                    (0..random.below(64)).map(|_| random.below(256) as u8).collect();
                sim.disk.write_bytes(path, at, &noise);
            }
            _ => {
                sim.disk.truncate(path, at);
                break;
            }
        }
    }
    let _ = sim.options().verify("/store");
    let damaged = contents(&sim.disk);
    let Ok(engine) = sim.options().open_existing("/store") else {
        assert!(contents(&sim.disk) == damaged, "a refused open changed the store");
        for (path, _) in &files {
            sim.disk.put_file(path, &STORE.read_file(path));
        }
        check(&sim.options().open_existing("/store").unwrap(), false);
        return;
    };
    check(&engine, true);
    if let Ok(Begin::Claimed(claim)) = engine.begin(&common::key("new"), common::body("a")).wait() {
        let _ = claim.complete(&[1; 300]).wait();
    }
    let _ = engine.fold();
    let _ = engine.sweep();
    check(&engine, true);
});

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter().filter(|(path, _)| !path.ends_with("LOCK"));
    files.map(|(path, _)| (path.clone(), disk.read_file(&path))).collect()
}

fn check(engine: &Engine, damaged: bool) {
    for number in 0..KEYS {
        match engine.begin(&common::key(format!("key {number}")), common::body("a")).wait() {
            Ok(Begin::Replay(recorded)) => {
                assert_eq!(recorded.response(), Some(&[number; 300][..]));
            }
            Ok(other) => panic!("key {number} is {other:?}"),
            Err(error) => assert!(damaged, "key {number}: {error:?}"),
        }
    }
    match engine.begin(&common::key("orphan"), common::body("a")).wait() {
        Ok(Begin::Orphaned(_)) | Err(_) => {}
        Ok(other) => panic!("the orphan is {other:?}"),
    }
}
