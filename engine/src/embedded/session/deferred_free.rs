//! Evicted records, until begins free them.
//!
//! A thread that frees thousands of records in a row, in pieces that callers allocated, blocks
//! callers and committer in the allocator. Each begin frees a few instead.

use crate::base::sync::Mutex;
use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::record::Versioned;

/// Records that a begin frees: more than it makes, so that none are left at the next eviction.
const FEW: usize = 2;

type Records = std::collections::hash_map::IntoIter<KeyHash, Versioned>;

#[derive(Default)]
pub(crate) struct DeferredFree {
    maps: Mutex<Vec<Records>>,
}

impl DeferredFree {
    /// Stores the evicted records of a fold, and frees those that are left of the fold before. So
    /// the records of at most one fold are here.
    pub(crate) fn replace(&self, evicted: impl IntoIterator<Item = HashMap<Versioned>>) {
        let evicted = evicted.into_iter().map(IntoIterator::into_iter).collect();
        let rest = std::mem::replace(&mut *self.maps.lock(), evicted);
        drop(rest);
    }

    /// Frees a few records, unless another caller does so at the moment.
    pub(crate) fn free_few(&self) {
        let mut few: [Option<Versioned>; FEW] = std::array::from_fn(|_| None);
        if let Some(mut maps) = self.maps.try_lock() {
            for slot in &mut few {
                *slot = next(&mut maps);
            }
        }
        // The records are freed after the lock.
        drop(few);
    }
}

fn next(maps: &mut Vec<Records>) -> Option<Versioned> {
    loop {
        match maps.last_mut()?.next() {
            Some((_, versioned)) => return Some(versioned),
            None => drop(maps.pop()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use super::*;
    use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
    use crate::semantics::key::Key;
    use crate::semantics::record::{Completed, Record, State};
    use crate::semantics::secret::Secret;
    use crate::semantics::time::Time;
    use crate::semantics::token::Token;

    fn records(count: u64) -> (HashMap<Versioned>, Vec<Weak<Record>>) {
        let fingerprint = Fingerprint::builder().finish();
        let record = Arc::new(Record {
            key: Key::new("", "k").unwrap(),
            fingerprint: KeyedFingerprint::new(fingerprint, &Secret([1; Secret::LEN])).to_stored(),
            state: State::Completed(Completed {
                token: Token { incarnation: 1, epoch: 1, sequence: 1 },
                completed_at: Time(1),
                expires_at: Time(2),
                response: None,
            }),
        });
        let copies: Vec<_> = (0..count).map(|_| Arc::new(Record::clone(&record))).collect();
        let seen = copies.iter().map(Arc::downgrade).collect();
        let versioned = |record| Versioned { sequence: 1, record: Some(record) };
        let hashes = (0..).map(KeyHash);
        (hashes.zip(copies.into_iter().map(versioned)).collect(), seen)
    }

    fn alive(seen: &[Weak<Record>]) -> usize {
        seen.iter().filter(|record| record.strong_count() > 0).count()
    }

    #[test]
    fn each_begin_frees_a_few_until_none_are_left() {
        let retired = DeferredFree::default();
        retired.free_few();
        let ((first, mut seen), (second, others)) = (records(3), records(2));
        seen.extend(others);
        retired.replace([first, HashMap::default(), second]);
        for left in [3, 1, 0, 0] {
            retired.free_few();
            assert_eq!(alive(&seen), left);
        }
    }

    #[test]
    fn what_nobody_freed_is_freed_when_the_next_come() {
        let retired = DeferredFree::default();
        let ((old, old_seen), (new, new_seen)) = (records(10), records(10));
        retired.replace([old]);
        assert_eq!(alive(&old_seen), 10);
        retired.replace([new]);
        assert_eq!((alive(&old_seen), alive(&new_seen)), (0, 10));
    }

    #[test]
    fn nobody_waits_for_another_that_frees() {
        let retired = DeferredFree::default();
        let (map, seen) = records(10);
        retired.replace([map]);
        let other = retired.maps.lock();
        retired.free_few();
        assert_eq!(alive(&seen), 10);
        drop(other);
    }
}
