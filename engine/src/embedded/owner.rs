//! The note of the process that holds a store.

use std::io;
use std::path::Path;

use crate::embedded::directory::LOCK;
use crate::embedded::disk::{Caching, Directory, Disk, Lockable, OsDisk};

/// The note of the engine that has the store in the directory `path` open, as it was given to
/// [`Options::owner_note`](crate::Options::owner_note). `None` when no engine has the store open,
/// when it has no note, or when the note cannot be read. Changes nothing.
///
/// A note counts only while its engine holds the store. The note of a killed process does not
/// count.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-owner-{}", std::process::id()));
/// let engine = oncekey::Options::new().owner_note("ask at /run/orders.sock").open(&dir)?;
/// assert_eq!(oncekey::owner(&dir).as_deref(), Some(&b"ask at /run/orders.sock"[..]));
/// engine.close()?;
/// assert_eq!(oncekey::owner(&dir), None);
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), oncekey::Error>(())
/// ```
pub fn owner(path: impl AsRef<Path>) -> Option<Vec<u8>> {
    let directory = OsDisk.open_dir(path.as_ref()).ok()?;
    // The lock is tried only if there is a note: an open at the same moment would find it taken.
    note(&*directory)?;
    match directory.lock(Lockable::File(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => note(&*directory),
        _ => None,
    }
}

fn note(directory: &dyn Directory) -> Option<Vec<u8>> {
    let file = directory.open(LOCK, Caching::Buffered).ok()?;
    let len = usize::try_from(file.len().ok()?).ok().filter(|len| *len > 0)?;
    let mut note = vec![0; len];
    file.read_at(0, &mut note).ok()?;
    Some(note)
}
