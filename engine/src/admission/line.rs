//! The operations that wait at one key, in the order of their arrival.

use std::collections::VecDeque;

use crate::admission::limits::Limits;
use crate::backend::operation::{Operation, Wait};
use crate::base::error::Error;

/// Operations that wait at one key. Each counts towards the bound on waiting operations.
#[derive(Default)]
pub(crate) struct Line(VecDeque<Operation>);

impl Line {
    /// Lets an operation wait behind the others. Gives it back when the bound refuses it.
    pub(crate) fn join(
        &mut self,
        op: Operation,
        limits: &Limits,
    ) -> Result<(), (Operation, Error)> {
        match limits.wait(&op.command) {
            Ok(()) => {
                self.0.push_back(op);
                Ok(())
            }
            Err(error) => Err((op, error)),
        }
    }

    /// Lets an operation that waited before wait again.
    pub(crate) fn rejoin(&mut self, op: Operation, limits: &Limits) {
        limits.wait_on();
        self.0.push_back(op);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the first operation.
    pub(crate) fn pop(&mut self, limits: &Limits) -> Option<Operation> {
        let op = self.0.pop_front()?;
        limits.stop_waiting();
        Some(op)
    }

    /// Offers each waiting operation to `stays`, in order. An operation that `stays` returns keeps
    /// waiting.
    pub(crate) fn sift(
        &mut self,
        limits: &Limits,
        mut stays: impl FnMut(Operation) -> Option<Operation>,
    ) {
        for _ in 0..self.0.len() {
            let Some(op) = self.0.pop_front() else { return };
            match stays(op) {
                Some(op) => self.0.push_back(op),
                None => limits.stop_waiting(),
            }
        }
    }

    /// Takes out the operation whose caller stopped waiting. `None`: it does not wait here, because
    /// it was answered or is about to be.
    pub(crate) fn withdraw(&mut self, wait: Wait, limits: &Limits) -> Option<Operation> {
        let at = self.0.iter().position(|op| op.wait == Some(wait))?;
        let op = self.0.remove(at)?;
        limits.stop_waiting();
        Some(op)
    }
}
