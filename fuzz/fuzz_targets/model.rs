//! The engine against the state machine. The fuzzer chooses the calls of one caller, the operation of the disk that
//! fails, and the restarts. The answers must have an order that the model allows.
#![no_main]

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::caller::Caller;
use common::{Random, Sim, TTL};
use libfuzzer_sys::fuzz_target;
use oncekey_testing::{CrashMode, Fault, History, OpKind};

// redb may panic on damage, which the engine makes an error; libFuzzer's hook would end the process.
// A panic of the target itself still does.
fuzz_target!(init: std::panic::set_hook(Box::new(|info| eprintln!("{info}"))), |bytes: &[u8]| {
    let mut random = Random::taped(bytes.to_vec());
    let history = History::new();
    let mut sim = Sim::new();
    let mut engine = sim.open();
    let mut claims = Vec::new();
    for _life in 0..8 {
        if !random.is_taped() {
            break;
        }
        let nth = random.below(64);
        match random.below(6) {
            0 => sim.disk.inject(Fault::at_kind(OpKind::Sync, nth).errno(Fault::EIO).drop_dirty()),
            1 => sim.disk.inject(Fault::at_change(nth).errno(Fault::EIO).applied()),
            2 => sim.disk.inject(Fault::at_change(nth).errno(Fault::ENOSPC).partial(4096)),
            3 => sim.disk.power_off_at(nth),
            _ => {}
        }
        let steps = random.below(24);
        let mut caller = Caller { engine: &engine, sink: &history, random, keys: 3, claims };
        (0..steps).for_each(|_| caller.step());
        (random, claims) = (caller.random, caller.claims);
        // The folder may meet a fault meanwhile: none is left when the power is looked at.
        sim.disk.clear_faults();
        if !sim.disk.is_powered_off() && random.below(2) == 0 {
            engine.reopen().unwrap();
        } else {
            let image = match random.below(3) {
                0 => sim.disk.crash(CrashMode::ProcessKill),
                _ => sim.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) }),
            };
            claims = Vec::new();
            sim = sim.on(image);
            engine = sim.open();
        }
        let advance = 20_000 * random.below(4);
        sim.clock.advance(Duration::from_millis(advance));
        history.restart(advance);
    }
    history.check(TTL.as_millis() as u64).unwrap();
});
