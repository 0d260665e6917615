//! How a thread waits for an answer.
//!
//! Nothing here uses thread-local storage. An ending thread runs destructors of C and C++ after
//! Rust has freed its thread-local storage, and a call from such a destructor must wait like any
//! other. `std::thread::current` panics there, and so does everything that parks with it, such as
//! `Receiver::recv` of the crate oneshot.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::sync::{CENTURY, Condvar, Instant, Mutex};

/// The place where one thread sleeps until its future can make progress.
#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    /// Sleeps until a wake-up or for `longest`. One wake-up ends one sleep.
    fn sleep(&self, longest: Duration) {
        let mut woken = self.woken.lock();
        if longest >= CENTURY {
            while !*woken {
                self.changed.wait(&mut woken);
            }
        } else {
            let end = Instant::now() + longest;
            while !*woken && !self.changed.wait_until(&mut woken, end).timed_out() {}
        }
        *woken = false;
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}

/// Blocks the thread until the future is ready.
pub(crate) fn block_on<F>(future: F) -> F::Output
where
    F: IntoFuture,
    F::IntoFuture: Unpin,
{
    let mut future = future.into_future();
    loop {
        if let Some(output) = block_on_for(&mut future, Duration::MAX) {
            return output;
        }
    }
}

/// Blocks the thread until the future is ready, for at most `timeout`.
pub(crate) fn block_on_for<F: Future + Unpin>(
    future: &mut F,
    timeout: Duration,
) -> Option<F::Output> {
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(parker.clone());
    let mut context = Context::from_waker(&waker);
    let start = Instant::now();
    loop {
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut context) {
            return Some(output);
        }
        let left = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
        parker.sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_with_a_limit_lasts_until_the_answer_or_the_limit() {
        // Asks to be polled again, twice.
        let mut polls = 0;
        let mut future = std::future::poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
        });
        assert_eq!(block_on_for(&mut future, Duration::from_secs(3600)), Some(3));
        let mut never = std::future::pending::<()>();
        assert_eq!(block_on_for(&mut never, Duration::from_millis(1)), None);
    }

    #[test]
    fn a_thread_that_sleeps_is_woken_once_for_each_sleep() {
        let parker = Arc::new(Parker::default());
        let waker = Waker::from(parker.clone());
        for longest in [Duration::MAX, Duration::from_secs(3600)] {
            let waker = waker.clone();
            let other = std::thread::spawn(move || waker.wake());
            parker.sleep(longest);
            other.join().unwrap();
            assert!(!*parker.woken.lock());
        }
    }
}
