//! The ways to open a store directory.

use std::path::Path;

use crate::api::engine::Engine;
use crate::backend::reports::Verification;
use crate::base::error::Result;
use crate::embedded::lifecycle::Embedded;
use crate::embedded::options::Options;
use crate::embedded::verify::verify_with;

impl Engine {
    /// Opens the store in the directory `path` with default [`Options`], creating it when there is
    /// none.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// Opens the store in the directory `path` with default [`Options`]; refuses to create one.
    ///
    /// # Errors
    /// Those of [`Options::open`], and `StoreMissing`.
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_existing(path)
    }
}

impl Options {
    /// Opens the store in the directory `path`, creating it when there is none.
    ///
    /// When this returns, every record that was ever acknowledged is known again, the new epoch is
    /// durable, and every claim of an earlier epoch is an orphan.
    ///
    /// # Errors
    /// `InvalidInput` for options outside their limits; `StoreInUse`, `StoreEmpty`,
    /// `StoreTruncated`, `StoreForeign`, `StoreNewerFormat`, `StoreUnreadable`, `NetworkFilesystem`:
    /// the store was left untouched; `Corrupted`, `ClockJump`, `StoreFull`, `Io`; `Overloaded` when no more files may be open.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Engine> {
        Embedded::open(path.as_ref(), self, true)
    }

    /// Like [`open`](Self::open), but refuses to create a store.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and `StoreMissing`.
    pub fn open_existing(self, path: impl AsRef<Path>) -> Result<Engine> {
        Embedded::open(path.as_ref(), self, false)
    }

    /// Like [`verify`](crate::verify), with the disk of these options.
    ///
    /// # Errors
    /// Those of [`verify`](crate::verify).
    pub fn verify(&self, path: impl AsRef<Path>) -> Result<Verification> {
        verify_with(self, path.as_ref())
    }
}

/// Reads the whole store in the directory `path`, which no engine may have open, and checks every
/// checksum: those of the records and of their index, of the pages that hold them, and of the
/// journal. Writes nothing. Continues after damage, and names the keys of damaged records.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-verify-{}", std::process::id()));
/// oncekey::Engine::open(&dir)?.close()?;
/// assert!(oncekey::verify(&dir)?.is_sound());
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), oncekey::Error>(())
/// ```
///
/// # Errors
/// Those of [`open_existing`](crate::Engine::open_existing) that are not about damage.
pub fn verify(path: impl AsRef<Path>) -> Result<Verification> {
    verify_with(&Options::new(), path.as_ref())
}
