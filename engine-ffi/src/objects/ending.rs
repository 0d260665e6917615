//! Operations that consume their handle: the ends of claims and orphans, and the takeover of an orphan.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use oncekey::{Failed, Pending};

use crate::boundary::failure::Failure;
use crate::boundary::handle_table::{Table, Taken};

/// An operation on a value that was taken out of its table. The handle is gone when the answer arrives,
/// unless the engine returns the value. If this is dropped earlier, the operation continues and the handle is
/// freed.
pub(crate) struct Ending<T, H: 'static> {
    pending: Pending<T, Failed<H>>,
    /// `None` after the answer.
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

    /// The answer, returned once. If there is none yet, the task is woken later.
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
