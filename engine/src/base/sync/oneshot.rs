//! The parts of the crate oneshot that the engine uses, with locks that shuttle controls.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) use ::oneshot::RecvError;

use super::Mutex;

struct Channel<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    message: Option<T>,
    waker: Option<Waker>,
    /// Whether each end still exists.
    sender: bool,
    receiver: bool,
}

pub(crate) struct Sender<T>(Arc<Channel<T>>);
pub(crate) struct Receiver<T>(Arc<Channel<T>>);
pub(crate) struct AsyncReceiver<T>(Receiver<T>);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { message: None, waker: None, sender: true, receiver: true };
    let channel = Arc::new(Channel { state: Mutex::new(state) });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Sender<T> {
    /// Returns the message as an error when the receiver is gone.
    pub(crate) fn send(self, message: T) -> Result<(), T> {
        let mut state = self.0.state.lock();
        if !state.receiver {
            return Err(message);
        }
        state.message = Some(message);
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.sender = false;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The message, if it is there already.
    pub(crate) fn try_recv(&self) -> Result<T, ()> {
        self.0.state.lock().message.take().ok_or(())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.receiver = false;
        let unreceived = state.message.take();
        drop(state);
        drop(unreceived);
    }
}

impl<T> IntoFuture for Receiver<T> {
    type Output = Result<T, RecvError>;
    type IntoFuture = AsyncReceiver<T>;

    fn into_future(self) -> AsyncReceiver<T> {
        AsyncReceiver(self)
    }
}

impl<T> Future for AsyncReceiver<T> {
    type Output = Result<T, RecvError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.state.lock();
        if state.sender {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(state.message.take().ok_or(RecvError))
    }
}
