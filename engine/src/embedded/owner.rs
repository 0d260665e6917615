//! The note of the process that holds a store.

use std::io;
use std::path::Path;

use crate::backend::MAX_NOTE;
use crate::base::error::{Error, Result};
use crate::embedded::directory::{self, LOCK, StoreDirectory};
use crate::embedded::disk::{Caching, Directory, Disk, Lockable, OsDisk};
use crate::embedded::store;

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
    // A longer content is no note, and may be of any length.
    let len = usize::try_from(file.len().ok()?).ok().filter(|len| (1..=MAX_NOTE).contains(len))?;
    let mut note = vec![0; len];
    file.read_at(0, &mut note).ok()?;
    Some(note)
}

impl StoreDirectory {
    /// Replaces the content of the file `LOCK`, which the caller has locked, by `note`. Writes
    /// nothing when both are empty.
    pub(crate) fn set_note(&self, note: &[u8]) -> Result<()> {
        if note.is_empty() && self.handle.file_len(LOCK).map_err(failed)? == 0 {
            return Ok(());
        }
        // DURABLE: the name may by now belong to another file, or to a link to a file of the store.
        // Only the file that is locked refuses this lock.
        match self.handle.lock(Lockable::File(LOCK)).map(drop) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(failed(error)),
            _ => return Err(failed(io::Error::other("LOCK is not the file that is locked"))),
        }
        self.refuse_shared_lock()?;
        let file = self.handle.open(LOCK, Caching::Buffered).map_err(failed)?;
        file.set_len(0).and_then(|()| file.write_at(0, note)).map_err(failed)
    }

    /// Fails when the locked file `LOCK` is a file of the store by another name, whose bytes a note
    /// would replace.
    fn refuse_shared_lock(&self) -> Result<()> {
        // `store.redb` is another file than `LOCK`: both are locked.
        let is_other = |name: &String| directory::holds_store(name) && name != store::FILE;
        for name in directory::list(&*self.handle, &self.path)?.into_iter().filter(is_other) {
            match self.handle.lock(Lockable::File(&name)).map(drop) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let message = format!("LOCK is another name of {name}");
                    return Err(failed(io::Error::other(message)));
                }
                // The fold worker removes files.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("the note of the owner", error)
}
