//! Operations that consume their handle: the ends of claims and orphans, and taking an orphan over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use oncekey::{Failed, Pending};

use crate::boundary::failure::Failure;
use crate::boundary::handle_table::{Table, Taken};

/// An operation on a value that was taken out of its table. Its handle is gone when the answer is
/// there, unless the engine gives the value back. Dropped before, the operation goes on and the handle
/// is freed.
pub(crate) struct Ending<T, H: 'static> {
    pending: Pending<T, Failed<H>>,
    /// Nothing once it was answered.
    taken: Option<Taken<H>>,
}

impl<T, H> Ending<T, H> {
    pub(crate) fn submit(
        table: &'static Table<H>,
        handle: u64,
        submit: impl FnOnce(H) -> Pending<T, Failed<H>>,
    ) -> Result<Self, Failure> {
        let (value, taken) = table.take(handle)?;
        Ok(Self { pending: submit(value), taken: Some(taken) })
    }

    pub(crate) fn wait(self) -> Result<T, Failure> {
        answer(self.pending.wait(), self.taken)
    }

    /// The answer, once, when it is there; otherwise the task is woken when it is.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        let result = ready!(Pin::new(&mut self.pending).poll(context));
        Poll::Ready(answer(result, self.taken.take()))
    }
}

fn answer<T, H>(result: Result<T, Failed<H>>, taken: Option<Taken<H>>) -> Result<T, Failure> {
    result.map_err(|failed| {
        let (error, handle) = failed.into_parts();
        if let (Some(handle), Some(taken)) = (handle, taken) {
            taken.give_back(handle);
        }
        error.into()
    })
}
