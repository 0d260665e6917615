//! Those who wait at one key, in the order in which they came.

use std::collections::VecDeque;

use crate::admission::limits::Limits;
use crate::backend::operation::{Operation, Wait};
use crate::base::error::Error;

/// Operations that wait at one key; each counts towards the bound of those who wait.
#[derive(Default)]
pub(crate) struct Line(VecDeque<Operation>);

impl Line {
    /// Lets an operation wait, behind the others. One that the bound refuses comes back.
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

    /// Lets an operation wait on that waited before.
    pub(crate) fn rejoin(&mut self, op: Operation, limits: &Limits) {
        limits.wait_on();
        self.0.push_back(op);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the first out.
    pub(crate) fn pop(&mut self, limits: &Limits) -> Option<Operation> {
        let op = self.0.pop_front()?;
        limits.stop_waiting();
        Some(op)
    }

    /// Goes through those who wait, in order: whom `stays` gives back waits on.
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

    /// Takes out the one whose caller does not wait any more. `None` when it does not wait here, since it was answered
    /// or is about to be.
    pub(crate) fn withdraw(&mut self, wait: Wait, limits: &Limits) -> Option<Operation> {
        let at = self.0.iter().position(|op| op.wait == Some(wait))?;
        let op = self.0.remove(at)?;
        limits.stop_waiting();
        Some(op)
    }
}
