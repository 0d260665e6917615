//! A worker of an open store, which a thread runs or a test steps.

#[cfg(feature = "stepping")]
use crate::semantics::time::Time;

/// A worker: it waits for work and does it until it is stopped or the engine fails.
pub(crate) trait Worker: Send {
    /// Works until the end, on a thread of its own.
    fn run(self: Box<Self>);

    /// One round, without waiting. `None` in the place of the worker once it has ended.
    ///
    /// Takes the worker, so that a panic drops it while it unwinds, as that of a thread does.
    #[cfg(feature = "stepping")]
    fn round(self: Box<Self>) -> (Option<Box<dyn Worker>>, RoundEnd);

    /// Lets work that may wait fall behind, as far as it may.
    #[cfg(feature = "stepping")]
    fn neglect(&mut self) {}
}

/// How a round of a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoundEnd {
    Worked,
    /// There was nothing to be done.
    Idle,
    /// The engine failed: the worker does nothing any more, and waits to be stopped.
    Failed,
}

/// What the fold worker does, in the order of urgency.
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

/// The session that workers work for, as far as the one who runs them needs it.
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
