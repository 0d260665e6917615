//! Values of options that do not depend on the kind of the store.

use oncekey::Durability;

use crate::abi::options::{ONCEKEY_RELAXED, ONCEKEY_STRICT};
use crate::boundary::failure::Failure;

/// Refuses the first set option that a store in `place` does not have.
pub(super) fn refuse<const N: usize>(
    place: &str,
    options: [(&str, bool); N],
) -> Result<(), Failure> {
    match options.into_iter().find(|(_, set)| *set) {
        Some((name, _)) => {
            Err(Failure::invalid(format!("{name} is not an option of a store in {place}")))
        }
        None => Ok(()),
    }
}

/// The durability of a number from C.
pub(super) fn durability_of(durability: u32) -> Result<Durability, Failure> {
    match durability {
        0 | ONCEKEY_STRICT => Ok(Durability::Strict),
        ONCEKEY_RELAXED => Ok(Durability::Relaxed),
        other => Err(Failure::invalid(format!("there is no durability {other}"))),
    }
}

/// Limits a bound to a number that this machine can count and the engine can add up. It is then as good as
/// none.
pub(super) fn countable(value: u64) -> usize {
    const MOST: usize = isize::MAX as usize / 2;
    usize::try_from(value).map_or(MOST, |value| value.min(MOST))
}
