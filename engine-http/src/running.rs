//! Counts the executions that run, and waits until none does.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::stats;

#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    count: usize,
    wakers: Vec<Waker>,
}

impl Running {
    /// Counts one more execution until the guard is dropped.
    pub(crate) fn enter(&self) -> Guard {
        self.0.lock().count += 1;
        stats::raise(stats::RUNNING, 1);
        Guard(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().count
    }

    /// Waits until nothing runs.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        let running = self.clone();
        poll_fn(move |context| {
            let mut state = running.0.lock();
            if state.count == 0 {
                return Poll::Ready(());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

pub(crate) struct Guard(Running);

impl Drop for Guard {
    fn drop(&mut self) {
        stats::lower(stats::RUNNING, 1);
        let mut state = self.0.0.lock();
        state.count -= 1;
        if state.count == 0 {
            let wakers = std::mem::take(&mut state.wakers);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    struct CountWakes(AtomicUsize);

    impl Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_waits_is_woken_once_when_the_last_one_ends() {
        let running = Running::default();
        let (one, two) = (running.enter(), running.enter());
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let waker = wakes.clone().into();
        let mut context = Context::from_waker(&waker);
        let mut drained = pin!(running.drained());
        assert!(drained.as_mut().poll(&mut context).is_pending());
        assert!(drained.as_mut().poll(&mut context).is_pending());
        drop(one);
        assert_eq!((running.count(), wakes.0.load(Ordering::Relaxed)), (1, 0));
        drop(two);
        assert_eq!((running.count(), wakes.0.load(Ordering::Relaxed)), (0, 1));
        assert!(drained.as_mut().poll(&mut context).is_ready());
    }
}
