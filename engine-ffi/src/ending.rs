//! Operations that consume their handle: the ends of claims and orphans, and taking an orphan over.

use std::pin::Pin;
use std::task::{Context, Poll};

use oncekey::{Failed, Pending};

use crate::error::Failure;
use crate::handle::{Table, Taken};

/// An operation on a value that was taken out of its table. Its handle is gone when the answer is
/// there, unless the engine gives the value back. Dropped before, the operation goes on and the handle
/// is freed.
pub(crate) struct Ending<T, H: 'static> {
    pending: Pending<T, Failed<H>>,
    taken: Taken<H>,
}

impl<T, H> Ending<T, H> {
    pub(crate) fn submit(
        table: &'static Table<H>,
        handle: u64,
        submit: impl FnOnce(H) -> Pending<T, Failed<H>>,
    ) -> Result<Self, Failure> {
        let (value, taken) = table.take(handle)?;
        Ok(Self { pending: submit(value), taken })
    }

    pub(crate) fn wait(self) -> Result<T, Failure> {
        answer(self.pending.wait(), self.taken)
    }

    /// The answer, or the operation itself, which wakes the task when there is one.
    pub(crate) fn poll(mut self, context: &mut Context<'_>) -> Result<Result<T, Failure>, Self> {
        match Pin::new(&mut self.pending).poll(context) {
            Poll::Pending => Err(self),
            Poll::Ready(result) => Ok(answer(result, self.taken)),
        }
    }
}

fn answer<T, H>(result: Result<T, Failed<H>>, taken: Taken<H>) -> Result<T, Failure> {
    result.map_err(|failed| {
        let (error, handle) = failed.into_parts();
        if let Some(handle) = handle {
            taken.give_back(handle);
        }
        error.into()
    })
}
