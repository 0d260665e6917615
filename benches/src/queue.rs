//! The way from callers to the thread that commits for all of them.

use parking_lot::{Condvar, Mutex};

/// A queue that is taken whole: everything that came while the last group was committed becomes the
/// next.
#[derive(Debug)]
pub struct Queue<T> {
    inner: Mutex<Inner<T>>,
    wake: Condvar,
}

#[derive(Debug)]
struct Inner<T> {
    items: Vec<T>,
    sleeping: bool,
    stopped: bool,
}

impl<T> Queue<T> {
    /// Puts `item` behind the others.
    pub fn push(&self, item: T) {
        let mut inner = self.inner.lock();
        inner.items.push(item);
        if std::mem::take(&mut inner.sleeping) {
            self.wake.notify_one();
        }
    }

    /// Ends those who take, once everything is taken.
    pub fn stop(&self) {
        self.inner.lock().stopped = true;
        self.wake.notify_one();
    }

    /// Waits for items and takes all of them into `items`, which is empty; `false` when the queue is
    /// stopped and empty.
    pub fn take(&self, items: &mut Vec<T>) -> bool {
        let mut inner = self.inner.lock();
        while inner.items.is_empty() {
            if inner.stopped {
                return false;
            }
            inner.sleeping = true;
            self.wake.wait(&mut inner);
            inner.sleeping = false;
        }
        std::mem::swap(&mut inner.items, items);
        true
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let inner = Inner { items: Vec::new(), sleeping: false, stopped: false };
        Self { inner: Mutex::new(inner), wake: Condvar::new() }
    }
}
