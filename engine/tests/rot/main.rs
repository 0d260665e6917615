//! Rot: whatever happens to bytes at rest or under a running engine, every answer is right or an
//! error. No answer is a wrong "absent" or an older state, and nothing panics.
//!
//! One exception, by the crash argument of docs/crash.md: damage confined to the last journal group
//! after an unclean stop looks like a torn write. Then the store is what it was before that group.
//!
//! `ONCEKEY_SEEDS=0..10000 cargo test --release -p oncekey --test rot` runs the campaign. A failure
//! names its seed and leaves the damaged store in a directory that it names.
#![allow(missing_docs, clippy::unwrap_used)]

mod child;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod live;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use child::Ran;
use common::*;
use damage::damage;
use oncekey::{Begin, Damage, Engine, Error, ErrorKind, Lookup};
use oncekey_testing::{CrashMode, OpKind, SimDisk};

const KEYS: u16 = 260;
const BLOCK: u64 = 4096;

/// The answer of `get` for every key.
type Answers = Vec<String>;

/// A store at rest, and the right answers.
struct Sample {
    sim: Sim,
    right: Answers,
    /// The answers without the last group.
    before: Answers,
    /// Where the last group lies, when the store was not closed.
    last_group: Option<(PathBuf, Range<u64>)>,
    tokens: BTreeSet<[u8; 24]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Closed,
    Dropped,
    Killed,
}

fn name(number: u16) -> String {
    format!("key {number}")
}

impl Sample {
    /// A store with folded, merged, swept and journalled records in every state.
    fn new(stop: Stop, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let sim = Sim::new();
        let engine = sim.open();
        let mut tokens = BTreeSet::new();
        for round in 0..5 {
            for number in (round * 40)..(round * 40 + 40) {
                change(&engine, number, &mut random, &mut tokens);
            }
            engine.fold().unwrap();
            sim.clock.advance(Duration::from_millis(1 + random.below(3000)));
        }
        // The first rounds' short-lived records expire, some of them get a second life.
        sim.clock.advance(Duration::from_secs(2));
        engine.sweep().unwrap();
        for number in 190..KEYS {
            change(&engine, number, &mut random, &mut tokens);
        }
        let last = match begin(&engine, "last") {
            Begin::Claimed(claim) => claim,
            other => panic!("{other:?}"),
        };
        let before = answers(&sim.on(sim.disk.crash(CrashMode::ProcessKill)).open());
        sim.disk.start_trace();
        last.complete(&vec![7; 1 + random.below(4000) as usize]).wait().unwrap();
        let group = sim.disk.take_trace().into_iter().rfind(|op| {
            op.kind == OpKind::Write
                && op.offset >= BLOCK
                && op.path.to_string_lossy().contains(".seg")
        });
        let group = group.unwrap();
        let image = match stop {
            Stop::Killed => sim.disk.crash(CrashMode::ProcessKill),
            Stop::Dropped => {
                drop(engine);
                sim.disk.crash(CrashMode::LoseAllUnsynced)
            }
            Stop::Closed => {
                engine.close().unwrap();
                sim.disk.crash(CrashMode::LoseAllUnsynced)
            }
        };
        let last_group =
            (stop != Stop::Closed).then(|| (group.path, group.offset..group.offset + group.len));
        let sim = sim.on(image);
        let right = answers(&sim.on(sim.disk.crash(CrashMode::ProcessKill)).open());
        assert_ne!(right, before);
        assert!(sim.options().verify("/store").unwrap().is_sound());
        Self { sim, right, before, last_group, tokens }
    }

    /// A copy of the disk to damage.
    fn copy(&self) -> Sim {
        self.sim.on(self.sim.disk.crash(CrashMode::LoseAllUnsynced))
    }

    fn is_last_group(&self, path: &Path, range: &Range<u64>) -> bool {
        self.last_group.as_ref().is_some_and(|(group, bytes)| {
            group == path && bytes.start <= range.start && range.end <= bytes.end
        })
    }
}

/// Brings a new key into one of the states.
fn change(engine: &Engine, number: u16, random: &mut Random, tokens: &mut BTreeSet<[u8; 24]>) {
    let claim = match begin(engine, &name(number)) {
        Begin::Claimed(claim) => claim,
        // Numbers overlap between rounds on purpose.
        _ => return,
    };
    tokens.insert(claim.token().to_bytes());
    let response = vec![number as u8; random.below(1200) as usize];
    match random.below(10) {
        0 => claim.abort().wait().unwrap(),
        1 => {
            claim.checkpoint(&number.to_le_bytes()).wait().unwrap();
            drop(claim);
            orphan(engine, &name(number));
        }
        2 => std::mem::forget(claim),
        3 => drop(claim.complete_with(None, None).wait().unwrap()),
        4 => {
            let ttl = Duration::from_secs(1);
            claim.complete_with(Some(&response), Some(ttl)).wait().unwrap();
        }
        _ => drop(claim.complete(&response).wait().unwrap()),
    }
}

fn answer(engine: &Engine, name: &str) -> Result<String, Error> {
    Ok(match engine.get(&key(name))? {
        Lookup::Absent => "absent".into(),
        Lookup::Orphaned(orphan) => {
            let saved = orphan.last_checkpoint()?;
            let saved = saved.as_deref().map(<[u8]>::to_vec);
            format!("orphan {} {} {saved:?}", orphan.token(), orphan.attempt())
        }
        Lookup::Completed(recorded) => {
            format!("completed {} {:?}", recorded.token(), recorded.response())
        }
        // Damage that a fold met failed the engine before a claim of this test was aborted.
        other => match engine.fold() {
            Err(error) => return Err(error),
            Ok(_) => panic!("{other:?} after a restart"),
        },
    })
}

fn names() -> impl Iterator<Item = String> {
    (0..KEYS).map(name).chain(["last".to_owned(), "never used".to_owned()])
}

fn answers(engine: &Engine) -> Answers {
    names().map(|name| answer(engine, &name).unwrap()).collect()
}

/// Leaves the damaged store where a person can look at it.
struct Evidence<'a> {
    disk: &'a SimDisk,
    what: String,
}

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let dir = std::env::temp_dir().join(format!("oncekey-rot-{}", std::process::id()));
            let dumped = self.disk.dump_to(&dir);
            eprintln!("damage: {}; store in {} ({dumped:?})", self.what, dir.display());
        }
    }
}

/// An error that damage may cause, and no panic of a thread behind it.
fn expect_damage(error: &Error, trial: &str) {
    let kinds = [
        ErrorKind::Corrupted,
        ErrorKind::StoreTruncated,
        ErrorKind::StoreForeign,
        ErrorKind::StoreEmpty,
        ErrorKind::Unavailable,
    ];
    assert!(kinds.contains(&error.kind()), "{trial}: {error:?}");
    let text = format!("{error:?} {error}");
    assert!(!text.contains("thread of the engine panicked"), "{trial}: {text}");
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter();
    let files = files.filter(|(path, _)| !path.ends_with("LOCK"));
    files.map(|(path, _)| (path.clone(), disk.read_file(path))).collect()
}

#[derive(Debug, Default)]
struct Outcomes {
    refused: u32,
    some_errors: u32,
    all_right: u32,
    tail_cut: u32,
    /// Damaged records that `verify` named.
    named: usize,
}

impl Outcomes {
    /// Checks that every answer is right or an error. Returns the number of errors.
    fn check(&mut self, engine: &Engine, sample: &Sample, tail: bool, trial: &str) {
        let found: Vec<_> = names().map(|name| answer(engine, &name)).collect();
        let fits = |expected: &Answers| {
            found
                .iter()
                .zip(expected)
                .all(|(found, right)| found.as_ref().map_or(true, |f| f == right))
        };
        let errors = found.iter().filter_map(|found| found.as_ref().err());
        errors.clone().for_each(|error| expect_damage(error, trial));
        if !fits(&sample.right) {
            let wrong = names()
                .zip(&found)
                .zip(&sample.right)
                .find(|((_, found), right)| found.as_ref().is_ok_and(|found| found != *right));
            assert!(tail && fits(&sample.before), "{trial}: {wrong:?}");
            self.tail_cut += 1;
        } else if errors.count() > 0 {
            self.some_errors += 1;
        } else {
            self.all_right += 1;
        }
    }
}

/// Work on a damaged store that opened may fail, but it may not lie, and no token comes twice.
fn work(engine: &Engine, sample: &Sample, random: &mut Random, trial: &str) {
    for number in 0..12 {
        match engine.begin(&key(format!("new {number}")), body("a")).wait() {
            Ok(Begin::Claimed(claim)) => {
                assert!(!sample.tokens.contains(&claim.token().to_bytes()), "{trial}: token again");
                let response = vec![1; random.below(4000) as usize];
                if let Err(failed) = claim.complete(&response).wait() {
                    assert_eq!(failed.kind(), ErrorKind::Unavailable, "{trial}");
                }
            }
            Ok(other) => panic!("{trial}: a new key is {other:?}"),
            Err(error) => expect_damage(&error, trial),
        }
    }
    for _ in 0..3 {
        let results = [engine.fold(), engine.sweep().map(drop)];
        for error in results.into_iter().filter_map(Result::err) {
            expect_damage(&error, trial);
        }
    }
}

/// `begin` must not take a known key for a new one.
fn begins(engine: &Engine, sample: &Sample, tail: bool, random: &mut Random, trial: &str) {
    for _ in 0..8 {
        let number = random.below(u64::from(KEYS)) as u16;
        let right = &sample.right[usize::from(number)];
        let begun = engine.begin(&key(name(number)), body("a")).wait();
        match begun {
            Ok(Begin::Claimed(claim)) => {
                assert!(right == "absent" || tail, "{trial}: {number} was {right}");
                let _ = claim.abort().wait();
            }
            Ok(Begin::Replay(_)) => assert!(right.starts_with("completed"), "{trial}: {right}"),
            Ok(Begin::Orphaned(_)) => assert!(right.starts_with("orphan"), "{trial}: {right}"),
            Ok(other) => panic!("{trial}: {other:?}, right is {right}"),
            Err(error) => expect_damage(&error, trial),
        }
    }
}

fn run_trial(sample: &Sample, seed: u64, outcomes: &mut Outcomes) {
    let mut random = Random::new(seed);
    let sim = sample.copy();
    let Some((path, range)) = damage(&sim.disk, &mut random) else { return };
    let trial = format!("{} at {range:?}", path.display());
    let damaged = sim.disk.crash(CrashMode::LoseAllUnsynced);
    let _evidence = Evidence { disk: &damaged, what: trial.clone() };
    let tail = sample.is_last_group(&path, &range);
    let verified = sim.options().verify("/store");
    let sound = match &verified {
        Ok(found) => {
            let keys: Vec<_> = names().map(key).collect();
            let mut named = found.damage().iter().filter_map(Damage::key);
            outcomes.named += named.clone().count();
            assert!(named.all(|named| keys.contains(named)), "{trial}: {found:?}");
            found.is_sound()
        }
        Err(error) => {
            expect_damage(error, &trial);
            false
        }
    };
    assert_eq!(contents(&sim.disk), contents(&damaged), "{trial}: verify changed the store");
    let engine = match sim.options().open_existing("/store") {
        Ok(engine) => engine,
        Err(error) => {
            expect_damage(&error, &trial);
            assert!(!sound, "{trial}: verify found nothing, but {error:?}");
            assert!(
                contents(&sim.disk) == contents(&damaged),
                "{trial}: a refused open changed it"
            );
            outcomes.refused += 1;
            // The damage is undone: everything is there.
            sim.disk.put_file(&path, &sample.sim.disk.read_file(&path));
            assert_eq!(
                answers(&sim.options().open_existing("/store").unwrap()),
                sample.right,
                "{trial}"
            );
            return;
        }
    };
    let some_errors = outcomes.some_errors;
    outcomes.check(&engine, sample, tail, &trial);
    assert!(!sound || some_errors == outcomes.some_errors, "{trial}: verify found nothing");
    if seed.is_multiple_of(4) {
        begins(&engine, sample, tail, &mut random, &trial);
        work(&engine, sample, &mut random, &trial);
        outcomes.check(&engine, sample, tail, &trial);
        // The work on the damaged store must not hide the damage.
        drop(engine);
        if let Ok(engine) = sim.options().open_existing("/store") {
            outcomes.check(&engine, sample, tail, &trial);
        }
    }
}

#[test]
fn damage_at_rest_gives_right_answers_or_errors() {
    let mut sample: Option<(u64, Sample)> = None;
    let trial = |seed| {
        // Depends on the seed alone, so that one seed replays one trial.
        let batch = seed / 60;
        if sample.as_ref().is_none_or(|(of, _)| *of != batch) {
            let stop = [Stop::Killed, Stop::Dropped, Stop::Closed][(batch % 3) as usize];
            sample = Some((batch, Sample::new(stop, batch)));
        }
        let mut outcomes = Outcomes::default();
        run_trial(&sample.as_ref().unwrap().1, seed, &mut outcomes);
        let Outcomes { refused, some_errors, all_right, tail_cut, named } = outcomes;
        [refused.into(), some_errors.into(), all_right.into(), tail_cut.into(), named as u64]
    };
    let test = "damage_at_rest_gives_right_answers_or_errors";
    let Some(Ran { counts, ended }) = child::run(test, seeds(0..400), trial) else { return };
    let [refused, some_errors, all_right, tail_cut, named] = counts;
    eprintln!(
        "{refused} refused, {some_errors} with errors, {all_right} all right, {tail_cut} cut tails, \
         {named} records named, {ended} ended the process"
    );
    assert!(refused > 0 && some_errors > 0 && all_right > 0 && named > 0);
}
