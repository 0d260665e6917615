//! The memory that request bodies may take while the layer holds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::stats;

/// A limit of bytes that all buffers share. Clones share the same budget.
#[derive(Clone)]
pub(crate) struct Budget {
    limit: usize,
    held: Arc<AtomicUsize>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Arc::default() }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether `bytes` bytes are free now.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        bytes <= self.limit.saturating_sub(self.held()) as u64
    }

    /// Takes bytes from the budget; `false` when fewer are free.
    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.limit);
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if taken {
            stats::raise(stats::BUFFERED_BYTES, bytes);
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        stats::lower(stats::BUFFERED_BYTES, bytes);
    }
}

/// Bytes that count against a budget until the buffer is dropped or handed out.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    allowance: Allowance,
}

impl Buffer {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self { bytes: Vec::new(), allowance: Allowance { budget: budget.clone(), bytes: 0 } }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes; the whole has at most `limit` bytes. `false` when the budget has no room.
    pub(crate) fn push(&mut self, data: &[u8], limit: usize) -> bool {
        let needed = self.bytes.len() + data.len();
        if needed > self.allowance.bytes {
            // The budget counts allocated memory, not only the used part. Capacity doubles while the budget
            // allows; near its end it grows by the needed bytes alone.
            let roomy = needed.max(self.allowance.bytes.saturating_mul(2)).min(limit.max(needed));
            if !self.allowance.raise(roomy) && !self.allowance.raise(needed) {
                return false;
            }
            self.bytes.reserve_exact(self.allowance.bytes - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        true
    }

    /// The bytes, and the allowance that returns their room when it is dropped.
    pub(crate) fn finish(self) -> (Bytes, Allowance) {
        (self.bytes.into(), self.allowance)
    }
}

/// Room taken from a budget; dropping it gives the room back.
pub(crate) struct Allowance {
    budget: Budget,
    bytes: usize,
}

impl Allowance {
    fn raise(&mut self, to: usize) -> bool {
        let taken = self.budget.take(to - self.bytes);
        if taken {
            self.bytes = to;
        }
        taken
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_counts_and_comes_back() {
        let budget = Budget::new(100);
        let mut one = Buffer::new(&budget);
        for _ in 0..6 {
            assert!(one.push(&[1; 10], 1000));
            assert_eq!(one.bytes.capacity(), budget.held());
        }
        let mut two = Buffer::new(&budget);
        assert!(!two.push(&[2; 21], 1000) && two.push(&[2; 20], 1000));
        // Doubling would exceed the budget; growth by the needed bytes does not.
        assert!(one.push(&[1; 20], 1000) && !one.push(&[1], 1000) && !budget.has(1));
        let (bytes, allowance) = one.finish();
        assert_eq!((bytes.len(), budget.held()), (80, 100));
        drop(allowance);
        drop(two);
        assert_eq!(budget.held(), 0);
        assert!(budget.has(100) && !budget.has(101));
    }
}
