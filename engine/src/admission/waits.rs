//! When to look again at keys where a begin waits.

use std::collections::BTreeSet;

use crate::backend::operation::Wait;
use crate::base::sync::{Instant, Mutex};
use crate::semantics::key::KeyHash;

/// Ends of waits, and deadlines of claims that a begin waits for. The committer watches them.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    /// Ordered by time. The number separates waits that end at the same moment; a deadline has 0.
    due: Mutex<BTreeSet<(Instant, u64, KeyHash)>>,
}

impl Waits {
    /// Watches the end of a wait. Returns whether it is due before everything else.
    pub(crate) fn watch(&self, wait: Wait, hash: KeyHash) -> bool {
        self.insert((wait.until, wait.number, hash))
    }

    /// Watches the deadline of a claim. Returns whether it is due before everything else.
    pub(crate) fn watch_deadline(&self, at: Instant, hash: KeyHash) -> bool {
        self.insert((at, 0, hash))
    }

    fn insert(&self, timer: (Instant, u64, KeyHash)) -> bool {
        let mut due = self.due.lock();
        due.insert(timer);
        due.first() == Some(&timer)
    }

    /// Forgets a wait that ended otherwise.
    pub(crate) fn forget(&self, wait: Wait, hash: KeyHash) {
        self.due.lock().remove(&(wait.until, wait.number, hash));
    }

    /// A key to look at now, else the time when the next key is due.
    pub(crate) fn next(&self, now: Instant) -> Result<KeyHash, Option<Instant>> {
        let mut due = self.due.lock();
        match due.first() {
            Some((at, ..)) if *at > now => Err(Some(*at)),
            Some(_) => due.pop_first().map(|(.., hash)| hash).ok_or(None),
            None => Err(None),
        }
    }
}
