//! A fleet: engines over one shared store. The test can hold the wire of each engine, cut it, or
//! let it lose groups.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use oncekey::fleet::memory::SharedMemory;
use oncekey::fleet::store::{
    Done, Expiring, Failure, Group, GroupAnswer, NewInstance, Opened, Registered, Renewal, Rows,
    Store, Upkeep, error,
};
use oncekey::fleet::{Options, open};
use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key, Result};
use parking_lot::Mutex;

use super::{Bounds, Recovery, Rig};
use crate::Random;

/// A shared store whose clock stands still until the test moves it.
pub trait SharedStore: Sized + Send + Sync + 'static {
    /// See [`Rig::PACE`].
    const PACE: u32;

    /// An empty store. `None`, with a line on standard output, where this machine cannot run one.
    fn new() -> Option<Self>;

    /// Connects an engine with this TTL to the store.
    fn connect(&self, ttl: Duration) -> Arc<dyn Store>;

    /// Moves the clock of the store ahead.
    fn advance(&self, by: Duration);
}

/// A store in memory.
#[derive(Debug)]
pub struct InMemory(SharedMemory);

impl SharedStore for InMemory {
    const PACE: u32 = 50;

    fn new() -> Option<Self> {
        Some(Self(SharedMemory::new()))
    }

    fn connect(&self, _: Duration) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn advance(&self, by: Duration) {
        self.0.advance(by);
    }
}

/// Two engines over a shared store.
pub struct Fleet<S> {
    store: S,
    wires: Mutex<Vec<Arc<Wire>>>,
    advanced: Mutex<Duration>,
}

impl<S> Debug for Fleet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fleet({} wires)", self.wires.lock().len())
    }
}

/// A limit that no engine reaches, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(300);

impl<S: SharedStore> Rig for Fleet<S> {
    const ENGINES: usize = 2;
    const LAPSES: bool = true;
    const UNIT: Duration = Duration::from_secs(1);
    const PACE: u32 = S::PACE;

    fn new() -> Option<Self> {
        let store = S::new()?;
        Some(Self { store, wires: Mutex::default(), advanced: Mutex::default() })
    }

    fn open_nth(&self, nth: usize, bounds: &Bounds) -> Engine {
        let wire = Arc::new(Wire::to(self.store.connect(bounds.ttl)));
        let options = Options {
            ttl: bounds.ttl,
            max_execution: bounds.max_execution,
            max_response: bounds.max_response,
            max_checkpoint: bounds.max_checkpoint,
            max_in_flight: bounds.max_in_flight,
            max_queue: bounds.max_queue,
            max_waiters: bounds.max_waiters,
            overload_after: PATIENCE,
            settle_for: PATIENCE,
            lease: Duration::from_secs(600),
            upkeep_interval: Duration::from_secs(3600),
            // An engine ends its predecessor of the same name, so that no test waits for a lease.
            instance_name: format!("engine-{nth}"),
            ..Options::default()
        };
        self.wires.lock().push(wire.clone());
        open(wire, options).unwrap()
    }

    fn advance(&self, engine: &Engine, by: Duration) {
        self.store.advance(by);
        let mut advanced = self.advanced.lock();
        *advanced += by;
        // The engine learns the time from an answer of the store.
        let key = Key::new("the time", format!("{advanced:?}")).unwrap();
        let fingerprint = Fingerprint::builder().part("body", "").finish();
        match engine.begin(&key, fingerprint).wait().unwrap() {
            Begin::Claimed(claim) => claim.abort().wait().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn since_start(&self) -> Duration {
        *self.advanced.lock()
    }

    fn kill(&mut self) {
        self.wires.get_mut().drain(..).for_each(|wire| wire.cut());
    }

    fn hold(&self, _: &Engine) {
        self.wires.lock().iter().for_each(|wire| wire.state.lock().held = true);
    }

    fn wait_until_held(&self) {
        while !self.wires.lock().iter().any(|wire| !wire.state.lock().waiting.is_empty()) {
            std::thread::yield_now();
        }
    }

    fn release(&self) {
        self.wires.lock().iter().for_each(|wire| wire.release());
    }

    fn disturb(&self, random: &mut Random) {
        for wire in self.wires.lock().iter() {
            let fates = (0..6).map(|_| match random.below(6) {
                0 => Fate::AnswerLost,
                1 => Fate::NeverSent,
                2 => Fate::Refused,
                _ => Fate::Fine,
            });
            wire.state.lock().fates = fates.collect();
        }
    }

    fn recover(
        &mut self,
        engines: &mut Vec<Engine>,
        bounds: &Bounds,
        random: &mut Random,
    ) -> Recovery {
        self.wires.get_mut().iter().for_each(|wire| wire.state.lock().fates.clear());
        match random.below(4) {
            0 | 1 => {
                engines.iter().for_each(|engine| engine.reopen().unwrap());
                return Recovery::InPlace;
            }
            2 => {
                engines.iter().for_each(|engine| assert!(engine.close().is_ok()));
                self.wires.get_mut().clear();
            }
            _ => self.kill(),
        }
        *engines = self.open_all(bounds);
        Recovery::Anew
    }
}

/// The fate of a group of changes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    /// Carried out, but the answer does not come back.
    AnswerLost,
    /// Not carried out, but the engine does not learn this.
    NeverSent,
    /// Not carried out, and the engine learns this.
    Refused,
}

#[derive(Default)]
struct State {
    /// The process at the engine's end of the wire was killed.
    cut: bool,
    held: bool,
    waiting: Vec<(Group, Done<GroupAnswer>)>,
    /// The fates of the next groups; the last element is for the next group.
    fates: Vec<Fate>,
}

/// The wire between one engine and the store.
struct Wire {
    store: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

fn gone() -> oncekey::Error {
    error(ErrorKind::Unavailable, "the wire was cut", None)
}

impl Wire {
    fn to(store: Arc<dyn Store>) -> Self {
        Self { store, state: Arc::default() }
    }

    fn cut(&self) {
        self.state.lock().cut = true;
        self.release();
    }

    fn release(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.held = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(group, done)| self.group(group, done));
    }

    /// Wraps the callback, when the wire is whole, so that an answer that comes after a cut is
    /// lost.
    fn open<T: 'static>(&self, done: Done<T>) -> Option<Done<T>> {
        if self.state.lock().cut {
            done(Err(Failure::Refused(gone())));
            return None;
        }
        let state = self.state.clone();
        Some(Box::new(move |answer| {
            let cut = state.lock().cut;
            done(if cut { Err(Failure::Refused(gone())) } else { answer });
        }))
    }
}

impl Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Store for Wire {
    fn open(&self, new: &NewInstance) -> Result<Opened> {
        self.store.open(new)
    }

    fn register(&self, new: NewInstance, done: Done<Registered>) {
        if let Some(done) = self.open(done) {
            self.store.register(new, done);
        }
    }

    fn group(&self, group: Group, done: Done<GroupAnswer>) {
        let fate = {
            let mut state = self.state.lock();
            if state.held && !state.cut {
                return state.waiting.push((group, done));
            }
            state.fates.pop().unwrap_or(Fate::Fine)
        };
        let Some(done) = self.open(done) else { return };
        let lost = || error(ErrorKind::Unavailable, "lost on the wire", None);
        match fate {
            Fate::Fine => self.store.group(group, done),
            Fate::AnswerLost => {
                let unheard = move |_| done(Err(Failure::Unknown(lost())));
                self.store.group(group, Box::new(unheard));
            }
            Fate::NeverSent => done(Err(Failure::Unknown(lost()))),
            Fate::Refused => done(Err(Failure::NotCarriedOut(lost()))),
        }
    }

    fn read(&self, instance: u64, hashes: Vec<u128>, done: Done<Rows>) {
        if let Some(done) = self.open(done) {
            self.store.read(instance, hashes, done);
        }
    }

    fn renew(&self, instance: u64, done: Done<Renewal>) {
        if let Some(done) = self.open(done) {
            self.store.renew(instance, done);
        }
    }

    fn end(&self, by: u64, others: Vec<u64>, done: Done<Vec<u64>>) {
        if let Some(done) = self.open(done) {
            self.store.end(by, others, done);
        }
    }

    fn list(&self, by: u64, overdue: bool, done: Done<()>) {
        if let Some(done) = self.open(done) {
            self.store.list(by, overdue, done);
        }
    }

    fn orphans(&self, instance: u64, after: Option<u128>, most: usize, done: Done<Rows>) {
        if let Some(done) = self.open(done) {
            self.store.orphans(instance, after, most, done);
        }
    }

    fn scan(&self, instance: u64, from: u128, most: usize, done: Done<Rows>) {
        if let Some(done) = self.open(done) {
            self.store.scan(instance, from, most, done);
        }
    }

    fn expiring(&self, done: Done<Vec<Expiring>>) {
        if let Some(done) = self.open(done) {
            self.store.expiring(done);
        }
    }

    fn upkeep(&self, by: u64, interval: Duration, done: Done<Upkeep>) {
        if let Some(done) = self.open(done) {
            self.store.upkeep(by, interval, done);
        }
    }

    fn close(&self, instance: u64) -> Result<()> {
        if self.state.lock().cut {
            return Err(gone());
        }
        self.store.close(instance)
    }

    fn location(&self) -> String {
        self.store.location()
    }

    fn as_any(&self) -> &dyn Any {
        self.store.as_any()
    }
}
