//! Handles: numbers that C holds instead of pointers, and the tables that map them to values.
//!
//! A handle is `kind (4 bits) | generation (32) | index (28)`. A slot raises its generation each time it is
//! given out, and is retired when the generations are exhausted. So no handle is ever issued twice, and a
//! stale handle is always recognized. 0 is no handle, since generations start at 1.
//!
//! Values are dropped and used outside of the table's lock: dropping a claim goes through the engine.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::abi::status::{ONCEKEY_BUSY, ONCEKEY_INVALID_HANDLE};
use crate::boundary::failure::Failure;

const INDEX_BITS: u32 = 28;
const GENERATION_BITS: u32 = 32;
/// A slot is reused only after this many others were freed, so that its generations last.
const RESTING: usize = 64;

/// All live values of one kind.
pub(crate) struct Table<T> {
    kind: u8,
    slots: Mutex<Slots<T>>,
}

struct Slots<T> {
    slots: Vec<Slot<T>>,
    vacant: VecDeque<u32>,
}

struct Slot<T> {
    generation: u32,
    state: State<T>,
}

enum State<T> {
    Vacant,
    Held(T),
    /// A call took the value out and may give it back. If the handle is freed meanwhile, the value is
    /// dropped.
    Taken {
        freed: bool,
    },
}

fn invalid() -> Failure {
    Failure::new(ONCEKEY_INVALID_HANDLE, "the handle is not valid")
}

impl<T> Table<T> {
    pub(crate) const fn new(kind: u8) -> Self {
        let slots = Slots { slots: Vec::new(), vacant: VecDeque::new() };
        Self { kind, slots: Mutex::new(slots) }
    }

    /// Gives `value` a handle, or returns it when there are too many handles.
    pub(crate) fn insert(&self, value: T) -> Result<u64, T> {
        let mut slots = self.slots.lock();
        let index = if slots.vacant.len() > RESTING || slots.slots.len() >> INDEX_BITS != 0 {
            slots.vacant.pop_front()
        } else {
            slots.slots.push(Slot { generation: 0, state: State::Vacant });
            u32::try_from(slots.slots.len() - 1).ok()
        };
        let Some(index) = index else { return Err(value) };
        let slot = &mut slots.slots[index as usize];
        slot.generation += 1;
        slot.state = State::Held(value);
        #[cfg(feature = "leak-check")]
        super::leaks::given(self.kind);
        Ok(self.handle(index, slot.generation))
    }

    fn handle(&self, index: u32, generation: u32) -> u64 {
        let kind = u64::from(self.kind) << (INDEX_BITS + GENERATION_BITS);
        kind | u64::from(generation) << INDEX_BITS | u64::from(index)
    }

    /// The index of the slot, whatever the slot holds now.
    fn index(&self, handle: u64) -> u32 {
        (handle & ((1 << INDEX_BITS) - 1)) as u32
    }

    fn find<'a>(&self, slots: &'a mut Slots<T>, handle: u64) -> Option<&'a mut State<T>> {
        let index = self.index(handle);
        let slot = slots.slots.get_mut(index as usize)?;
        (handle == self.handle(index, slot.generation)).then_some(&mut slot.state)
    }

    /// Looks at a value with the table locked. `look` must neither block nor use this table.
    pub(crate) fn with<R>(&self, handle: u64, look: impl FnOnce(&T) -> R) -> Result<R, Failure> {
        let mut slots = self.slots.lock();
        match self.find(&mut slots, handle) {
            Some(State::Held(value)) => Ok(look(value)),
            Some(State::Taken { freed: false }) => Err(busy()),
            _ => Err(invalid()),
        }
    }

    pub(crate) fn get(&self, handle: u64) -> Result<T, Failure>
    where
        T: Clone,
    {
        self.with(handle, T::clone)
    }

    /// Takes a value out. Its handle is busy until the returned `Taken` is dropped or gets the value back.
    pub(crate) fn take(&'static self, handle: u64) -> Result<(T, Taken<T>), Failure> {
        let mut slots = self.slots.lock();
        let state = self.find(&mut slots, handle).ok_or_else(invalid)?;
        match std::mem::replace(state, State::Taken { freed: false }) {
            State::Held(value) => Ok((value, Taken { table: self, handle })),
            other => {
                let failure =
                    if matches!(other, State::Taken { freed: false }) { busy() } else { invalid() };
                *state = other;
                Err(failure)
            }
        }
    }

    /// Frees a handle. The value is returned unless a call is using it; that call then drops it. Freeing 0
    /// has no effect.
    pub(crate) fn remove(&self, handle: u64) -> Result<Option<T>, Failure> {
        if handle == 0 {
            return Ok(None);
        }
        let mut slots = self.slots.lock();
        let state = self.find(&mut slots, handle).ok_or_else(invalid)?;
        match state {
            State::Held(_) => Ok(self.vacate(&mut slots, handle)),
            State::Taken { freed } if !*freed => {
                *freed = true;
                Ok(None)
            }
            State::Taken { .. } | State::Vacant => Err(invalid()),
        }
    }

    fn vacate(&self, slots: &mut Slots<T>, handle: u64) -> Option<T> {
        let index = self.index(handle);
        let slot = &mut slots.slots[index as usize];
        let state = std::mem::replace(&mut slot.state, State::Vacant);
        #[cfg(feature = "leak-check")]
        super::leaks::freed(self.kind);
        if slot.generation < u32::MAX {
            slots.vacant.push_back(index);
        }
        match state {
            State::Held(value) => Some(value),
            State::Vacant | State::Taken { .. } => None,
        }
    }
}

fn busy() -> Failure {
    Failure::new(ONCEKEY_BUSY, "another call is using the handle")
}

/// The place of a value that a call took out. Dropping it frees the handle.
pub(crate) struct Taken<T: 'static> {
    table: &'static Table<T>,
    handle: u64,
}

impl<T> Taken<T> {
    /// Puts the value back under the same handle, unless the handle was freed meanwhile.
    pub(crate) fn give_back(self, value: T) {
        let mut slots = self.table.slots.lock();
        if let Some(state @ State::Taken { freed: false }) =
            self.table.find(&mut slots, self.handle)
        {
            *state = State::Held(value);
            drop(slots);
            std::mem::forget(self);
            return;
        }
        drop(slots);
        drop(value);
    }
}

impl<T> Drop for Taken<T> {
    fn drop(&mut self) {
        let mut slots = self.table.slots.lock();
        self.table.vacate(&mut slots, self.handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status<T>(result: Result<T, Failure>) -> i32 {
        result.err().map_or(0, |failure| failure.status())
    }

    #[test]
    fn a_handle_is_valid_until_it_is_freed_and_never_again() {
        static TABLE: Table<u32> = Table::new(3);
        let mut stale = Vec::new();
        for n in 0..1000 {
            let handle = TABLE.insert(n).unwrap();
            assert_eq!(TABLE.get(handle).map_err(drop), Ok(n));
            assert_eq!(TABLE.remove(handle).map_err(drop), Ok(Some(n)));
            stale.push(handle);
        }
        let live = TABLE.insert(7).unwrap();
        for handle in stale {
            assert_eq!(status(TABLE.get(handle)), ONCEKEY_INVALID_HANDLE);
            assert_eq!(status(TABLE.remove(handle)), ONCEKEY_INVALID_HANDLE);
            assert_eq!(status(TABLE.take(handle)), ONCEKEY_INVALID_HANDLE);
        }
        for other in [1, live ^ 1 << 63, live ^ 1 << INDEX_BITS, live + 100_000, u64::MAX] {
            assert_eq!(status(TABLE.get(other)), ONCEKEY_INVALID_HANDLE);
        }
        assert_eq!(status(TABLE.remove(0)), 0);
        assert!(TABLE.slots.lock().slots.len() <= RESTING + 2, "slots are reused");
    }

    #[test]
    fn a_taken_value_is_busy_and_comes_back_or_is_gone() {
        static TABLE: Table<u32> = Table::new(4);
        let handle = TABLE.insert(1).unwrap();
        let (value, taken) = TABLE.take(handle).unwrap();
        assert_eq!(status(TABLE.take(handle)), ONCEKEY_BUSY);
        assert_eq!(status(TABLE.get(handle)), ONCEKEY_BUSY);
        taken.give_back(value + 1);
        assert_eq!(TABLE.get(handle).map_err(drop), Ok(2));
        drop(TABLE.take(handle).unwrap());
        assert_eq!(status(TABLE.get(handle)), ONCEKEY_INVALID_HANDLE);
    }

    #[test]
    fn freed_while_taken_is_freed_when_the_call_ends() {
        static TABLE: Table<std::sync::Arc<u32>> = Table::new(5);
        let value = std::sync::Arc::new(1);
        let handle = TABLE.insert(value.clone()).unwrap();
        let (held, taken) = TABLE.take(handle).unwrap();
        assert!(TABLE.remove(handle).unwrap().is_none());
        assert_eq!(status(TABLE.remove(handle)), ONCEKEY_INVALID_HANDLE);
        taken.give_back(held);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
        assert_eq!(status(TABLE.get(handle)), ONCEKEY_INVALID_HANDLE);
    }

    #[test]
    fn an_exhausted_slot_is_given_up() {
        static TABLE: Table<u32> = Table::new(6);
        let first = TABLE.insert(0).unwrap();
        TABLE.slots.lock().slots[0].generation = u32::MAX;
        let last = TABLE.handle(TABLE.index(first), u32::MAX);
        TABLE.remove(last).unwrap();
        assert!(TABLE.slots.lock().vacant.is_empty());
        assert_eq!(status(TABLE.get(last)), ONCEKEY_INVALID_HANDLE);
    }
}
