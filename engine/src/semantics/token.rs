//! Fencing tokens.

use std::fmt;

use crate::semantics::time::Time;

/// The fencing token of a claim. No two claims ever get the same token.
///
/// Tokens of one store order by age: a later claim of any key has the greater token. A system
/// downstream that remembers the greatest token it saw can refuse a slow owner by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Identifies one opening of one copy of the store; see [`Self::incarnation_after`].
    pub(crate) incarnation: u64,
    /// Counts the opens of the store.
    pub(crate) epoch: u64,
    /// The journal sequence of the change that granted the claim.
    pub(crate) sequence: u64,
}

impl Token {
    /// The incarnation of an opening: the time in ms, then random bits, and always greater than
    /// `before`. Two copies of a store have the same `before`. The random bits keep their
    /// incarnations apart, and the copy that is opened later gets the greater one while the clock
    /// goes forward. Where the clock is behind, the incarnation exceeds `before` by a random
    /// number.
    pub(crate) fn incarnation_after(before: u64, time: Time, random: u64) -> u64 {
        const RANDOM_BITS: u32 = 20;
        let time = time.0.min(u64::MAX >> RANDOM_BITS);
        let random = random & ((1 << RANDOM_BITS) - 1);
        before.saturating_add(1 + random).max(time << RANDOM_BITS | random)
    }

    /// The token as 24 bytes, big-endian, which order like the tokens.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.incarnation.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}", self.incarnation, self.epoch, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_incarnation_epoch_and_sequence() {
        let token = Token { incarnation: 0xab, epoch: 12, sequence: 345 };
        assert_eq!(token.to_string(), "00000000000000ab-12-345");
    }

    #[test]
    fn an_incarnation_is_greater_than_the_one_before_and_orders_by_time() {
        let first = Token::incarnation_after(0, Time(1_000), u64::MAX);
        let later = Token::incarnation_after(first, Time(1_001), 0);
        assert!(later > first);
        let clock_went_back = Token::incarnation_after(later, Time(5), 7);
        assert_eq!(clock_went_back, later + 8);
        // Two copies of one snapshot, both opened where the clock is behind.
        assert_ne!(Token::incarnation_after(later, Time(5), 8), clock_went_back);
        assert_eq!(Token::incarnation_after(later, Time(5), 1 << 20), later + 1);
        let copy = Token::incarnation_after(first, Time(1_001), 1);
        assert_ne!(copy, later);
        assert_eq!(Token::incarnation_after(0, Time(u64::MAX), u64::MAX), u64::MAX);
    }

    #[test]
    fn tokens_order_by_age_as_values_and_as_bytes() {
        let older = Token { incarnation: 7, epoch: 1, sequence: 900 };
        let newer = Token { incarnation: 7, epoch: 2, sequence: 3 };
        assert!(older < newer && older.to_bytes() < newer.to_bytes());
    }
}
