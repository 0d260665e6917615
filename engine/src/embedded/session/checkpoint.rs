//! Reading the checkpoint of a record, from memory or from the store file.

use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::semantics::record::{Checkpoint, Record, StoredCheckpoint};
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// The checkpoint of the attempt with the token, according to the newest record of its key.
pub(crate) fn of(record: Option<&Record>, token: Token, now: Time) -> Result<Option<Checkpoint>> {
    let record = record.filter(|record| !record.is_expired(now));
    match record.map(|record| record.attempt()) {
        Some(Some(attempt)) if attempt.token == token => Ok(attempt.checkpoint.clone()),
        Some(None) => Err(Error::new(ErrorKind::AlreadyCompleted, "")),
        _ => Err(Error::new(ErrorKind::Fenced, "")),
    }
}

/// Reads the bytes of a checkpoint. `look` returns the checkpoint of the newest record. `read`
/// returns the stored bytes, from a view that is not older than the look before it, or `None` when
/// the row is missing or holds another checkpoint.
///
/// A fold may replace the checkpoint between a look and its read. So a miss is damage only when the
/// next look still finds the same checkpoint.
pub(crate) fn read(
    mut look: impl FnMut() -> Result<Option<Checkpoint>>,
    mut read: impl FnMut(StoredCheckpoint) -> Result<Option<SharedBytes>>,
) -> Result<Option<SharedBytes>> {
    let mut missed = None;
    loop {
        let stored = match look()? {
            None => return Ok(None),
            Some(Checkpoint::Here(data)) => return Ok(Some(data)),
            Some(Checkpoint::Stored(stored)) => stored,
        };
        match read(stored)? {
            Some(data) => return Ok(Some(data)),
            None if missed == Some(stored) => {
                return Err(Error::corrupted("a checkpoint is not the one that was stored last"));
            }
            None => missed = Some(stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(checksum: u64) -> Checkpoint {
        Checkpoint::Stored(StoredCheckpoint { len: 3, checksum })
    }

    /// The looks in order, and the one checkpoint that the store holds.
    fn read_of(looks: &[Option<Checkpoint>], held: u64) -> Result<Option<Vec<u8>>> {
        let mut looks = looks.iter();
        let found = read(
            || Ok(looks.next().expect("it does not look so often").clone()),
            |asked| Ok((asked.checksum == held).then(|| SharedBytes::copy_of(b"two"))),
        );
        found.map(|found| found.map(|data| data.to_vec()))
    }

    #[test]
    fn a_checkpoint_that_was_replaced_meanwhile_is_looked_for_again() {
        let two = Some(b"two".to_vec());
        assert_eq!(read_of(&[Some(stored(2))], 2).unwrap(), two);
        assert_eq!(read_of(&[Some(stored(1)), Some(stored(2))], 2).unwrap(), two);
        let here = Checkpoint::Here(SharedBytes::copy_of(b"two"));
        assert_eq!(read_of(&[Some(stored(1)), Some(here)], 9).unwrap(), two);
        assert_eq!(read_of(&[Some(stored(1)), None], 9).unwrap(), None);
        let damaged = read_of(&[Some(stored(1)), Some(stored(1))], 9);
        assert_eq!(damaged.unwrap_err().kind(), ErrorKind::Corrupted);
    }
}
