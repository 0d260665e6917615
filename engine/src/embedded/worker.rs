//! A worker of an open store, which a thread runs or a test steps.

#[cfg(feature = "stepping")]
use crate::semantics::time::Time;

/// A worker: it waits for work and does it until it is stopped or the engine fails.
pub(crate) trait Worker: Send {
    /// Works until the end, on a thread of its own.
    fn run(self: Box<Self>);

    /// Does one round, without waiting. Returns no worker once the worker has ended.
    ///
    /// Takes the worker by value: a panic drops it while it unwinds, as a panic of a thread does.
    #[cfg(feature = "stepping")]
    fn round(self: Box<Self>) -> (Option<Box<dyn Worker>>, RoundEnd);

    /// Lets deferrable work fall behind as far as it may.
    #[cfg(feature = "stepping")]
    fn neglect(&mut self) {}
}

/// How a round of a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoundEnd {
    Worked,
    /// There was no work.
    Idle,
    /// The engine failed: the worker does no more work and waits to be stopped.
    Failed,
}

/// The duties of the fold worker, in the order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "stepping"), allow(unreachable_pub))]
pub enum Duty {
    /// Preparing a journal segment.
    Prepare,
    /// Folding.
    Fold,
    /// Loading filters.
    Load,
    /// Merging runs.
    Merge,
    /// Removing expired records.
    Sweep,
}

/// The part of a session that a stepper of its workers needs.
#[cfg(feature = "stepping")]
pub(crate) trait Employer: Send + Sync {
    /// The committer has ended: no thread watches the ends of waits any more.
    fn committer_ended(&self);
    /// A worker panicked.
    fn panicked(&self);
    fn has_failed(&self) -> bool;
    /// Engine time.
    fn now(&self) -> Time;
    /// Asks for a fold without waiting for it.
    fn want_fold(&self);
    /// Asks for a sweep without waiting for it.
    fn want_sweep(&self);
}
