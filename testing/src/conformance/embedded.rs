//! The embedded store on a simulated disk.

use std::sync::Arc;
use std::time::Duration;

use oncekey::{Clock, Engine, Options};

use super::{Bounds, Recovery, Rig};
use crate::{CrashMode, Fault, HeldDisk, ManualClock, OpKind, Random, SimDisk};

/// An embedded store on a disk and a clock of its own.
#[derive(Debug)]
pub struct Embedded {
    disk: SimDisk,
    held: HeldDisk,
    clock: ManualClock,
}

impl Embedded {
    fn on(disk: SimDisk, clock: ManualClock) -> Self {
        let held = HeldDisk::new(disk.clone(), "journal");
        Self { disk, held, clock }
    }
}

impl Rig for Embedded {
    const PACE: u32 = 150;

    fn new() -> Option<Self> {
        Some(Self::on(SimDisk::new(), ManualClock::new()))
    }

    /// Uses small buffers and segments, so that folds and recycling happen early.
    fn open_nth(&self, _: usize, bounds: &Bounds) -> Engine {
        Options::new()
            .ttl(bounds.ttl)
            .max_execution(bounds.max_execution)
            .max_response(bounds.max_response)
            .max_checkpoint(bounds.max_checkpoint)
            .max_in_flight(bounds.max_in_flight)
            .max_queue(bounds.max_queue)
            .max_waiters(bounds.max_waiters)
            .segment_bytes(128 << 10)
            .recent_bytes(64 << 10)
            .disk(Arc::new(self.held.clone()))
            .clock(Arc::new(self.clock.clone()))
            .open("/store")
            .unwrap()
    }

    fn advance(&self, _: &Engine, by: Duration) {
        self.clock.advance(by);
    }

    fn since_start(&self) -> Duration {
        self.clock.wall().duration_since(ManualClock::new().wall()).unwrap_or_default()
    }

    fn step_clock(&self, seconds: i64) {
        self.clock.jump_wall(seconds);
    }

    fn kill(&mut self) {
        *self = Self::on(self.disk.crash(CrashMode::ProcessKill), self.clock.clone());
    }

    fn hold(&self, engine: &Engine) {
        // The fold worker has prepared a segment once this sweep returns. Its sync would otherwise
        // take the place of the sync that a test waits for.
        engine.sweep().unwrap();
        self.held.hold();
    }

    fn wait_until_held(&self) {
        self.held.wait_for_sync();
    }

    fn release(&self) {
        self.held.release();
    }

    fn disturb(&self, random: &mut Random) {
        let nth = random.below(60);
        let fault = match random.below(6) {
            0 => Fault::at_kind(OpKind::Sync, nth / 2).errno(Fault::EIO).drop_dirty(),
            1 => Fault::at_change(nth).errno(Fault::EIO).applied(),
            2 => Fault::at_change(nth).errno(Fault::ENOSPC).partial(4096),
            3 => Fault::at_change(nth).panic(),
            4 => return self.disk.power_off_at(nth),
            _ => return,
        };
        self.disk.inject(fault);
    }

    fn recover(
        &mut self,
        engines: &mut Vec<Engine>,
        bounds: &Bounds,
        random: &mut Random,
    ) -> Recovery {
        if !self.disk.is_powered_off() && random.below(2) == 0 {
            self.disk.clear_faults();
            engines.iter().for_each(|engine| engine.reopen().unwrap());
            return Recovery::InPlace;
        }
        let image = match random.below(4) {
            0 if !self.disk.is_powered_off() => {
                self.disk.clear_faults();
                engines.iter().for_each(|engine| drop(engine.close()));
                self.disk.crash(CrashMode::LoseAllUnsynced)
            }
            1 => self.disk.crash(CrashMode::ProcessKill),
            _ => self.disk.crash(CrashMode::PowerLoss { seed: random.below(u64::MAX) }),
        };
        *self = Self::on(image, self.clock.clone());
        *engines = self.open_all(bounds);
        Recovery::Anew
    }
}
