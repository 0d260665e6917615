//! The answer to an operation that was submitted.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::backend::operation::{Operation, Outcome, Recipient, Request};
use crate::base::error::{Error, ErrorKind};
use crate::base::sync::oneshot;
use crate::base::wait::{block_on, block_on_for};

/// The coming answer to an operation, for a task or for a thread.
///
/// The operation was submitted when the `Pending` was made: polling or waiting does not start it,
/// and dropping does not take it back. There are two exceptions. If a dropped `Pending` holds a
/// [`Claim`](crate::Claim), or would have held one later, the claim is aborted, because its
/// operation never ran. If it is a begin that waits for an owner, the wait ends, and makes room at
/// once for others.
///
/// As a `Future` it needs no runtime. [`wait`](Self::wait) and
/// [`wait_timeout`](Self::wait_timeout) block the thread instead.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-pending-{}", std::process::id()));
/// # let engine = oncekey::Engine::open(&dir)?;
/// # let key = oncekey::Key::new("", "k")?;
/// let checked = engine.begin(&key, oncekey::Fingerprint::builder().finish());
/// let begin = checked.wait()?; // or: checked.await?
/// # drop(begin); drop(engine); std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), oncekey::Error>(())
/// ```
#[must_use = "the answer may hold a claim, which is aborted when the Pending is dropped"]
pub struct Pending<T, E = Error> {
    state: State<T, E>,
    /// Called with the answer when it reaches its caller.
    delivered: fn(&mut T),
    /// Dropped after `state`: giving the operation up drops its sender, which then has nothing to
    /// wake.
    giving_up: GivingUp,
}

/// Called when it is dropped, unless the answer reached its caller before.
struct GivingUp(Option<Box<dyn FnOnce() + Send>>);

impl GivingUp {
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for GivingUp {
    fn drop(&mut self) {
        if let Some(give_up) = self.0.take() {
            give_up();
        }
    }
}

enum State<T, E> {
    Ready(Result<T, E>),
    /// Not polled yet: a thread may wait on it.
    Waiting(oneshot::Receiver<Told<T, E>>),
    Polled(oneshot::AsyncReceiver<Told<T, E>>),
    Done,
}

/// An answer on its way, with the memory of the operation, which is freed where the answer is
/// taken.
struct Told<T, E> {
    answer: Result<T, E>,
    _spent: Box<dyn Send>,
}

impl<T, E> Told<T, E> {
    fn into_answer(self) -> Result<T, E> {
        self.answer
    }
}

/// The other end of a [`Pending`]: turns an outcome into its answer.
struct Asked<T, E, F> {
    request: Request,
    /// There until the outcome is told.
    tell: Option<(oneshot::Sender<Told<T, E>>, F)>,
}

impl<T, E, F> Recipient for Asked<T, E, F>
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(Outcome) -> Result<T, E> + Send + 'static,
{
    fn request(&self) -> &Request {
        &self.request
    }

    fn tell(mut self: Box<Self>, outcome: Outcome) {
        if let Some((sender, answer)) = self.tell.take() {
            let answer = answer(outcome);
            // Without a receiver, a claim inside is dropped here.
            drop(sender.send(Told { answer, _spent: self }));
        }
    }
}

impl<T, E> Pending<T, E> {
    fn new(state: State<T, E>) -> Self {
        Self { state, delivered: |_| {}, giving_up: GivingUp(None) }
    }

    pub(crate) fn ready(answer: Result<T, E>) -> Self {
        Self::new(State::Ready(answer))
    }

    /// An operation, and the `Pending` whose answer `answer` makes of its outcome.
    pub(crate) fn asked(
        request: Request,
        answer: impl FnOnce(Outcome) -> Result<T, E> + Send + 'static,
    ) -> (Operation, Self)
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let op = Operation::new(Asked { request, tell: Some((sender, answer)) });
        (op, Self::new(State::Waiting(receiver)))
    }

    /// Calls `delivered` with the answer when it reaches its caller.
    pub(crate) fn on_delivery(mut self, delivered: fn(&mut T)) -> Self {
        self.delivered = delivered;
        self
    }

    /// Calls `give_up` when the `Pending` is dropped before the answer reached its caller. By then
    /// an answer goes back to its sender.
    pub(crate) fn on_giving_up(mut self, give_up: impl FnOnce() + Send + 'static) -> Self {
        self.giving_up = GivingUp(Some(Box::new(give_up)));
        self
    }
}

impl<T, E: From<Error>> Pending<T, E> {
    /// Blocks the thread until the answer is there.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn wait(mut self) -> Result<T, E> {
        let received = match self.state {
            State::Ready(answer) => Some(answer),
            // Most answers that need no disk are there already, so nothing is made for a wait.
            State::Waiting(receiver) => match receiver.try_recv() {
                Ok(told) => Some(told.into_answer()),
                Err(_) => block_on(receiver).ok().map(Told::into_answer),
            },
            State::Polled(receiver) => block_on(receiver).ok().map(Told::into_answer),
            State::Done => return Err(taken()),
        };
        self.giving_up.disarm();
        deliver(received, self.delivered)
    }

    /// Blocks the thread for at most `timeout`. Without an answer by then it returns the `Pending`
    /// unchanged, and the operation goes on.
    ///
    /// # Errors
    /// `Err` is the `Pending` itself; the errors of the operation are inside `Ok`.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Result<T, E>, Self> {
        let mut receiver = match self.state {
            State::Waiting(receiver) => receiver.into_future(),
            State::Polled(receiver) => receiver,
            State::Ready(_) | State::Done => return Ok(self.wait()),
        };
        let Some(told) = block_on_for(&mut receiver, timeout) else {
            self.state = State::Polled(receiver);
            return Err(self);
        };
        self.giving_up.disarm();
        Ok(deliver(told.ok().map(Told::into_answer), self.delivered))
    }
}

/// Hands the answer out. A sender vanishes only when its thread panicked.
fn deliver<T, E: From<Error>>(
    received: Option<Result<T, E>>,
    delivered: fn(&mut T),
) -> Result<T, E> {
    let mut answer = received.unwrap_or_else(|| {
        Err(Error::new(ErrorKind::OutcomeUnknown, "the engine stopped while it was working").into())
    });
    if let Ok(value) = &mut answer {
        delivered(value);
    }
    answer
}

fn taken<E: From<Error>>() -> E {
    Error::invalid("the answer was already taken").into()
}

impl<T, E: From<Error>> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Ready(answer) => return Poll::Ready(deliver(Some(answer), self.delivered)),
                State::Waiting(receiver) => self.state = State::Polled(receiver.into_future()),
                State::Polled(mut receiver) => {
                    return match Pin::new(&mut receiver).poll(context) {
                        Poll::Ready(received) => {
                            self.giving_up.disarm();
                            Poll::Ready(deliver(
                                received.ok().map(Told::into_answer),
                                self.delivered,
                            ))
                        }
                        Poll::Pending => {
                            self.state = State::Polled(receiver);
                            Poll::Pending
                        }
                    };
                }
                State::Done => return Poll::Ready(Err(taken())),
            }
        }
    }
}

impl<T, E> Unpin for Pending<T, E> {}

impl<T, E> fmt::Debug for Pending<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Ready(_) => "Pending(ready)",
            State::Waiting(_) | State::Polled(_) => "Pending(submitted)",
            State::Done => "Pending(taken)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::SharedBytes;
    use crate::semantics::command::{Command, Reply};
    use crate::semantics::key::{Key, KeyHash};
    use crate::semantics::time::Time;
    use crate::semantics::token::Token;

    const TOKEN: Token = Token { incarnation: 1, epoch: 1, sequence: 1 };

    fn asked(command: Command) -> (Operation, Pending<()>) {
        let key = Key::new("", "k").unwrap();
        let request = Request { key, hash: KeyHash(1), command, wait: None };
        Pending::asked(request, |outcome| outcome.map(drop))
    }

    fn tell(op: Operation) {
        op.tell(Ok((Reply::Done, None, Time(1))));
    }

    #[test]
    fn a_thread_gets_the_answer_before_and_after_a_poll() {
        for polled in [false, true] {
            let (op, mut pending) = asked(Command::Abort { token: TOKEN });
            if polled {
                let mut context = Context::from_waker(std::task::Waker::noop());
                assert!(Pin::new(&mut pending).poll(&mut context).is_pending());
            }
            assert_eq!(format!("{pending:?}"), "Pending(submitted)");
            let pending = pending.wait_timeout(Duration::from_millis(1)).unwrap_err();
            let thread = std::thread::spawn(move || pending.wait());
            tell(op);
            thread.join().unwrap().unwrap();
        }
    }

    /// The memory is not freed on the thread that answers: see [`Operation`].
    #[test]
    fn what_an_operation_was_made_of_ends_where_its_answer_is_taken() {
        for taken in [false, true] {
            let data = SharedBytes::copy_of(&[1]);
            let (op, pending) = asked(Command::Checkpoint { token: TOKEN, data: data.clone() });
            tell(op);
            assert_eq!(data.holders(), 2);
            if taken {
                pending.wait().unwrap()
            } else {
                drop(pending)
            }
            assert_eq!(data.holders(), 1);
        }
    }

    #[test]
    fn a_vanished_sender_is_an_unknown_outcome() {
        let (op, pending) = asked(Command::Abort { token: TOKEN });
        drop(op);
        assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn polling_after_the_answer_is_an_error_not_a_panic() {
        let mut pending = Pending::<()>::ready(Ok(()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut pending).poll(&mut context), Poll::Ready(Ok(()))));
        assert!(matches!(Pin::new(&mut pending).poll(&mut context), Poll::Ready(Err(_))));
    }
}
