//! Rot that comes while the engine is open. Then keys are looked up and written, and the engine is
//! reopened.
//!
//! Answers from a cache are right. The only exception is that of rot at rest: damage confined to
//! the last journal group after an unclean stop.

use super::*;

#[derive(Debug, Default)]
struct Met {
    /// Trials with an error while the engine ran, and with an error after it was opened again.
    errors: u32,
    errors_after: u32,
    refused: u32,
    all_right: u32,
    tail_cut: u32,
}

struct Trial {
    sim: Sim,
    random: Random,
    /// The right answer for each name.
    right: Vec<(String, String)>,
    /// The number of new keys so far.
    begun: usize,
    /// The last change that was acknowledged, and where its group lies.
    last: Option<(String, PathBuf, Range<u64>)>,
    damaged: Vec<(PathBuf, Range<u64>)>,
    what: String,
}

impl Trial {
    fn new(sample: &Sample, seed: u64) -> Self {
        let right = names().zip(sample.right.iter().cloned()).collect();
        let (sim, random) = (sample.copy(), Random::new(seed));
        Self { sim, random, right, begun: 0, last: None, damaged: vec![], what: String::new() }
    }

    /// Flips, zeros, duplicates or overwrites; cutting a file that is open is not rot.
    fn rot(&mut self) {
        let lengths = self.sim.disk.files();
        let image = self.sim.disk.crash(CrashMode::ProcessKill);
        let Some((path, range)) = damage(&image, &mut self.random) else { return };
        if image.files() != lengths {
            return;
        }
        let bytes = image.read_file(&path);
        self.sim.disk.write_bytes(
            &path,
            range.start,
            &bytes[range.start as usize..range.end as usize],
        );
        self.what += &format!("{} at {range:?}; ", path.display());
        self.damaged.push((path, range));
    }

    /// The number of answers that were errors. All others are right.
    fn look(&mut self, engine: &Engine, cut: Option<&str>) -> u32 {
        let mut errors = 0;
        for (name, right) in &self.right {
            match answer(engine, name) {
                Ok(found) if found == *right || cut == Some(name) => {}
                Ok(found) => panic!("{}{name} was {right}, is {found}", self.what),
                Err(error) => {
                    expect_damage(&error, &self.what);
                    errors += 1;
                }
            }
        }
        errors
    }

    /// No known key is taken for a new one. Absent keys are not begun: their claims might outlive
    /// the trial.
    fn begin_again(&mut self, engine: &Engine) {
        for _ in 0..8 {
            let (name, right) = &self.right[self.random.below(self.right.len() as u64) as usize];
            if right == "absent" {
                continue;
            }
            match engine.begin(&key(name), body("a")).wait() {
                Ok(Begin::Replay(_)) if right.starts_with("completed") => {}
                Ok(Begin::Orphaned(_)) if right.starts_with("orphan") => {}
                Ok(other) => panic!("{}{name} was {right}, is {other:?}", self.what),
                Err(error) => expect_damage(&error, &self.what),
            }
        }
    }

    /// New keys, folds and sweeps go on. From then on an acknowledged change is the right answer.
    fn work(&mut self, engine: &Engine) {
        for _ in 0..self.random.below(12) {
            // The name of a key whose end was refused is not used again: the key is still claimed.
            self.begun += 1;
            let number = self.begun;
            let name = format!("live {number}");
            self.sim.disk.start_trace();
            let claim = match engine.begin(&key(&name), body("a")).wait() {
                Ok(Begin::Claimed(claim)) => claim,
                Ok(other) => panic!("{}a new key is {other:?}", self.what),
                Err(error) => {
                    expect_damage(&error, &self.what);
                    return;
                }
            };
            let response = vec![number as u8; 1 + self.random.below(4000) as usize];
            let token = claim.token();
            let Ok(_) = claim.complete(&response).wait() else { return };
            let right = format!("completed {token} {:?}", Some(&response[..]));
            self.right.push((name.clone(), right));
            let group = self.sim.disk.take_trace().into_iter().rfind(|op| {
                op.kind == OpKind::Write
                    && op.offset >= BLOCK
                    && op.path.to_string_lossy().contains(".seg")
            });
            self.last = group.map(|op| (name, op.path, op.offset..op.offset + op.len));
            if self.random.below(6) == 0 {
                let results = [engine.fold(), engine.sweep().map(drop)];
                for error in results.into_iter().filter_map(Result::err) {
                    expect_damage(&error, &self.what);
                }
            }
        }
    }

    /// The key that a cut tail may have taken back.
    fn cut(&self) -> Option<&str> {
        let (name, path, bytes) = self.last.as_ref()?;
        let hit = self.damaged.iter().any(|(damaged, range)| {
            damaged == path && bytes.start <= range.start && range.end <= bytes.end
        });
        hit.then_some(name)
    }

    fn run(mut self, met: &mut Met) {
        let engine = self.sim.open();
        if self.random.below(2) == 0 {
            // Caches are warm.
            assert_eq!(self.look(&engine, None), 0);
        }
        self.work(&engine);
        let mut errors = 0;
        for _ in 0..1 + self.random.below(3) {
            self.rot();
            errors += self.look(&engine, None);
            self.begin_again(&engine);
            self.work(&engine);
            errors += self.look(&engine, None);
        }
        met.errors += u32::from(errors > 0);
        let clean = self.random.below(2) == 0;
        if clean {
            drop(engine);
            self.sim = self.sim.on(self.sim.disk.crash(CrashMode::LoseAllUnsynced));
        } else {
            let image = self.sim.disk.crash(CrashMode::ProcessKill);
            drop(engine);
            self.sim = self.sim.on(image);
        }
        let engine = match self.sim.options().open_existing("/store") {
            Ok(engine) => engine,
            Err(error) => {
                expect_damage(&error, &self.what);
                met.refused += 1;
                return;
            }
        };
        let cut = self.cut().map(str::to_owned);
        let after = self.look(&engine, cut.as_deref());
        met.tail_cut += u32::from(cut.is_some());
        met.errors_after += u32::from(after > 0);
        met.all_right += u32::from(after == 0 && errors == 0);
    }
}

#[test]
fn damage_under_a_running_engine_gives_right_answers_or_errors() {
    let mut sample: Option<(u64, Sample)> = None;
    let trial = |seed| {
        let batch = seed / 60;
        if sample.as_ref().is_none_or(|(of, _)| *of != batch) {
            sample = Some((batch, Sample::new(Stop::Dropped, batch)));
        }
        let sample = &sample.as_ref().unwrap().1;
        let mut met = Met::default();
        Trial::new(sample, seed ^ 0x6c69_7665).run(&mut met);
        let Met { errors, errors_after, refused, all_right, tail_cut } = met;
        [errors, errors_after, refused, all_right, tail_cut].map(u64::from)
    };
    let test = "live::damage_under_a_running_engine_gives_right_answers_or_errors";
    let Some(Ran { counts, ended }) = child::run(test, seeds(0..300), trial) else { return };
    let [errors, errors_after, refused, all_right, tail_cut] = counts;
    eprintln!(
        "{errors} with errors, {errors_after} with errors once reopened, {refused} refused, \
         {all_right} all right, {tail_cut} cut tails, {ended} ended the process"
    );
    assert!(errors > 0 && errors_after > 0 && refused > 0 && all_right > 0);
}
