//! The thread that runs the machine: it takes events in and performs actions.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::machine::{Action, Event, Machine};
use super::store::{Done, Failure, Store, Upkeep};
use crate::admission::counters::Counters;
use crate::admission::limits::Limits;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Condvar, Instant, Mutex};

/// The state that the thread and the callers share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) events: Mutex<Events>,
    pub(super) wake: Condvar,
    pub(super) counters: Counters,
    pub(super) instance: AtomicU64,
    /// Told when the instance changes and when the thread ends. Its waiters hold `events`.
    pub(super) changed: Condvar,
    pub(super) limits: Arc<Limits>,
    pub(super) max_store_bytes: Option<u64>,
}

#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    sleeping: bool,
    /// The thread has ended, or will end without looking at the queue.
    pub(super) ended: bool,
}

impl Shared {
    /// Queues an event, or gives it back when the thread would not take it.
    pub(super) fn push(&self, event: Event) -> Option<Event> {
        let mut events = self.events.lock();
        if events.ended {
            return Some(event);
        }
        events.queue.push_back(event);
        if std::mem::take(&mut events.sleeping) {
            self.wake.notify_one();
        }
        None
    }

    /// Waits until this process has another instance than `old`, or the thread has ended. Returns
    /// whether that came before `until`.
    pub(super) fn wait_for_other(&self, old: u64, until: Instant) -> bool {
        let mut events = self.events.lock();
        let is_over = |events: &Events| events.ended || self.instance.load(Ordering::SeqCst) != old;
        while !is_over(&events) && !self.changed.wait_until(&mut events, until).timed_out() {}
        is_over(&events)
    }

    fn set_instance(&self, instance: u64) {
        if self.instance.swap(instance, Ordering::SeqCst) != instance {
            // ORDER: a caller that saw the old instance under the lock waits by now.
            drop(self.events.lock());
            self.changed.notify_all();
        }
    }

    /// Notes the result of a round of upkeep.
    pub(super) fn kept(&self, upkeep: &Upkeep) {
        self.counters.swept.fetch_add(upkeep.removed, Ordering::Relaxed);
        self.counters.store_bytes.store(upkeep.bytes, Ordering::Relaxed);
        self.limits.orphans.set_folded(upkeep.orphans);
        let full = self.max_store_bytes.is_some_and(|most| upkeep.bytes >= most);
        let why = full.then(|| Error::new(ErrorKind::StoreFull, "max_store_bytes is reached"));
        self.limits.shortage.set(why);
    }

    fn take(&self, until: Instant) -> VecDeque<Event> {
        let mut events = self.events.lock();
        if events.queue.is_empty() {
            events.sleeping = true;
            let _timed_out = self.wake.wait_until(&mut events, until);
            events.sleeping = false;
        }
        std::mem::take(&mut events.queue)
    }
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: Machine,
}

impl Driver {
    pub(super) fn run(mut self) {
        crate::base::sync::thread::enter();
        let mut stopping = false;
        loop {
            let events = self.shared.take(self.machine.next_tick());
            let now = Instant::now();
            for event in events {
                stopping |= matches!(event, Event::Stop);
                self.machine.take_in(now, event);
            }
            let actions = self.machine.act(now);
            self.shared.set_instance(self.machine.instance());
            // The store works on the next group while the callers of this one are woken.
            let (answers, requests): (Vec<_>, Vec<_>) =
                actions.into_iter().partition(|action| matches!(action, Action::Answer(_)));
            requests.into_iter().chain(answers).for_each(|action| self.perform(action));
            if stopping && self.machine.is_idle() && self.leave() {
                return;
            }
        }
    }

    /// Ends the thread, unless an event came meanwhile.
    fn leave(&self) -> bool {
        let mut events = self.shared.events.lock();
        events.ended = events.queue.is_empty();
        self.shared.changed.notify_all();
        events.ended
    }

    fn perform(&self, action: Action) {
        let store = &self.shared.store;
        match action {
            Action::Answer(answer) => {
                self.shared.counters.count(&answer);
                answer.give();
            }
            Action::Group(group) => {
                self.shared.counters.groups.fetch_add(1, Ordering::Relaxed);
                let images = group.images.len() as u64;
                self.shared.counters.entries.fetch_add(images, Ordering::Relaxed);
                let lane = group.lane;
                store.group(group, self.event(move |result| Event::GroupDone(lane, result)));
            }
            Action::Read(by, hashes) => store.read(by, hashes, self.event(Event::ReadDone)),
            Action::Renew(id) => store.renew(id, self.event(Event::Renewed)),
            Action::Register(new) => store.register(new, self.event(Event::Registered)),
            Action::End(by, others) => store.end(by, others, self.event(|_| Event::Ended)),
            Action::Upkeep(by) => {
                let shared = self.shared.clone();
                let done: Done<Upkeep> = Box::new(move |result| {
                    if let Ok(upkeep) = &result {
                        shared.kept(upkeep);
                    }
                    drop(shared.push(Event::Kept));
                });
                // The machine paces its own rounds. The interval keeps the rounds of other
                // processes apart.
                store.upkeep(by, Duration::from_secs(30), done);
            }
        }
    }

    fn event<T: 'static>(
        &self,
        event: impl FnOnce(Result<T, Failure>) -> Event + Send + 'static,
    ) -> Done<T> {
        let shared = self.shared.clone();
        Box::new(move |result| {
            if result.is_err() {
                shared.counters.failures.fetch_add(1, Ordering::Relaxed);
            }
            drop(shared.push(event(result)));
        })
    }
}
