//! The locks of loom or shuttle behind the interface of parking_lot: no poisoning, and condition
//! variables that wait on a borrowed guard. Time is virtual.

use std::cell::Cell;
use std::fmt;
use std::ops::{Add, Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

#[cfg(oncekey_loom)]
use loom::sync as explorer;
#[cfg(oncekey_shuttle)]
use shuttle::sync as explorer;

pub(crate) use explorer::atomic;

/// A wait longer than this never times out: the explored models leave out overload and sweeps.
const NEVER: Duration = Duration::from_secs(1);

thread_local! {
    // All threads of an execution are coroutines of one thread of the system.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A point in virtual time, which advances only when a wait times out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        NOW.get().saturating_sub(self.0)
    }

    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    pub(crate) fn checked_sub(self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(duration).map(Self)
    }

    fn left(self) -> Duration {
        self.0.saturating_sub(NOW.get())
    }

    /// Lets other threads run, then advances the time to `self` unless it is later already.
    fn arrive(self) {
        thread::yield_now();
        NOW.set(NOW.get().max(self.0));
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Only a failed test poisons a lock of the explorers.
fn sound<T, E>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|_| panic!("a thread panicked with this lock held"))
}

pub(crate) struct Mutex<T>(explorer::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only while a condition waits.
    guard: Option<explorer::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(explorer::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(sound(self.0.lock())) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard { mutex: self, guard: Some(self.0.try_lock().ok()?) })
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_deref().expect("no condition waits")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_deref_mut().expect("no condition waits")
    }
}

pub(crate) struct Condvar(explorer::Condvar);

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(explorer::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.guard.take().expect("no condition waits");
        guard.guard = Some(sound(self.0.wait(held)));
    }

    /// A short wait always times out. The caller then looks at its condition, as after a
    /// notification that came too late.
    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        if deadline.left() > NEVER {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        guard.guard = None;
        deadline.arrive();
        guard.guard = Some(sound(guard.mutex.0.lock()));
        WaitTimeoutResult(true)
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}

/// A shared value behind a lock that the schedulers control.
pub(crate) struct Swap<T>(explorer::RwLock<Arc<T>>);

impl<T> Swap<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self(explorer::RwLock::new(value))
    }

    pub(crate) fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
        Box::new(sound(self.0.read()).clone())
    }

    pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
        std::mem::replace(&mut *sound(self.0.write()), value)
    }
}

impl<T> fmt::Debug for Swap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Swap")
    }
}

pub(crate) mod thread {
    #[cfg(oncekey_loom)]
    use loom::thread::{Thread, current};
    #[cfg(oncekey_shuttle)]
    use shuttle::thread::{Thread, current};

    #[cfg(oncekey_loom)]
    pub(crate) use loom::thread::{Builder, JoinHandle, yield_now};
    #[cfg(oncekey_shuttle)]
    pub(crate) use shuttle::thread::{Builder, JoinHandle, yield_now};

    pub(crate) fn enter() {}

    pub(crate) fn is_current(thread: &Thread) -> bool {
        thread.id() == current().id()
    }
}
