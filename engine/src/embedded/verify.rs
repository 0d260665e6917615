//! Checking a store that no process has open.

use std::path::Path;
use std::sync::Arc;

use crate::backend::reports::Verification;
use crate::base::error::{ErrorKind, Result};
use crate::embedded::directory::{self, StoreDirectory};
use crate::embedded::disk::Directory;
use crate::embedded::journal;
use crate::embedded::options::Options;
use crate::embedded::store::{Listing, Store, StoreState};

pub(crate) fn verify_with(options: &Options, path: &Path) -> Result<Verification> {
    let (home, _lock) = directory::open_to_read(options, path)?;
    verify_held(options, &home)
}

/// Verifies a directory that the caller has locked.
pub(crate) fn verify_held(options: &Options, home: &StoreDirectory) -> Result<Verification> {
    let mut found = Verification::default();
    let read =
        Store::verify(&home.handle, options.store_cache_bytes(), options.open_files(), &mut found)?;
    if let Some((state, listing)) = read {
        match verify_rest(options, &home.handle, &state, listing.as_ref()) {
            Err(error)
                if matches!(error.kind(), ErrorKind::Corrupted | ErrorKind::StoreTruncated) =>
            {
                found.damaged(None, &error);
            }
            result => result?,
        }
    }
    Ok(found)
}

/// Inspects the journal and the files that are not listed, as an open does.
fn verify_rest(
    options: &Options,
    dir: &Arc<dyn Directory>,
    state: &StoreState,
    listing: Option<&Listing>,
) -> Result<()> {
    let (id, start) = (state.journal_id(), state.journal_start());
    let journal = journal::inspect(dir, id, options.segment_sizes(), start, &mut |_, _, _| Ok(()))?;
    match listing {
        Some(of) => of.leftovers(&**dir, journal.last_sequence()).map(drop),
        None => Ok(()),
    }
}
