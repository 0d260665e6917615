//! The ends of an engine: a close, a kill, a loss of power, a reopen; and the next start.

use super::*;

impl World<'_> {
    pub(super) fn restart(&mut self) {
        if self.random.below(2) == 0 {
            self.decide_withdrawn();
        }
        self.withdrawn.clear();
        let stats = self.engine.stats();
        self.met.folds += stats.folds;
        self.met.swept += stats.swept;
        self.met.failures += u64::from(self.stepper.has_failed());
        self.met.faults += self.sim.disk.faults_fired();
        let off = self.sim.disk.is_powered_off();
        match self.random.below(4) {
            0 | 1 if !off => self.reopen(),
            2 if !off => {
                self.met.closes += 1;
                self.sim.disk.clear_faults();
                self.move_wall();
                self.forget_handles();
                let image = self.sim.disk.clone();
                self.start_on(image, true);
            }
            3 => {
                self.met.kills += 1;
                let image = self.sim.disk.crash(CrashMode::ProcessKill);
                self.die(image);
            }
            _ => {
                self.met.power_losses += 1;
                let seed = self.random.below(u64::MAX);
                let image = self.sim.disk.crash(CrashMode::PowerLoss { seed });
                self.sim.clock.reboot();
                self.die(image);
            }
        }
    }

    fn move_wall(&mut self) {
        let seconds = match self.random.below(4) {
            0 => self.random.below(7200) as i64,
            1 => -(self.random.below(7200) as i64),
            _ => return,
        };
        self.met.wall_back += u64::from(seconds < 0);
        self.sim.clock.jump_wall(seconds);
    }

    pub(super) fn reopen(&mut self) {
        self.met.reopened += 1;
        self.sim.disk.clear_faults();
        self.move_wall();
        if self.random.below(3) == 0 {
            self.sim.disk.inject(Fault::at(self.random.below(40)).errno(Fault::EIO).applied());
        }
        while let Err(error) = self.engine.reopen() {
            self.met.reopenings_failed += 1;
            assert!(self.sim.disk.faults_fired() > 0, "{error:?}");
            self.sim.disk.clear_faults();
        }
        self.sim.disk.clear_faults();
        self.hear();
        assert_eq!(self.asked.len(), 0, "everyone is answered when the engine is reopened");
        self.restarted();
    }

    fn forget_handles(&mut self) {
        self.asked.clear();
        self.claims.clear();
        self.orphans.clear();
    }

    pub(super) fn die(&mut self, image: oncekey_testing::SimDisk) {
        self.move_wall();
        self.forget_handles();
        self.start_on(image, false);
    }

    fn start_on(&mut self, image: oncekey_testing::SimDisk, orderly: bool) {
        self.take_trace();
        let next = self.sim.on(image);
        if self.trace.is_some() {
            next.disk.start_trace();
        }
        // The old engine writes to its own disk, unless it is closed in good order.
        let stepper = Stepper::new(self.random.below(u64::MAX));
        if orderly {
            // The work that a close waits for is done before it.
            self.settle();
            self.stepper.want_fold();
            self.settle();
            drop(self.engine.close());
        }
        self.engine = Self::options(&stepper, &next).open("/store").unwrap();
        (self.sim, self.stepper) = (next, stepper);
        self.restarted();
    }

    pub(super) fn take_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            for op in self.sim.disk.take_trace() {
                format!("{op:?}").hash(trace);
            }
            for (path, _) in self.sim.disk.files() {
                self.sim.disk.read_file(path).hash(trace);
            }
        }
    }

    /// Tells the history what time it was and is.
    fn restarted(&mut self) {
        let wall = millis(self.sim.clock.wall()).saturating_sub(self.start);
        let now = self.stepper.now() - self.start;
        let ends: Vec<_> = self.times.iter().copied().filter(|end| wall.max(*end) == now).collect();
        assert!(!ends.is_empty(), "engine time {now}, the wall clock {wall}, {:?}", self.times);
        self.history.restart_dated(ends, now);
        self.now = now;
        self.times = vec![now];
    }
}
