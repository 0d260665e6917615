//! Checking a store that nobody has open.

use std::path::Path;

use crate::directory;
use crate::error::Result;
use crate::options::Options;
use crate::store::Store;

/// Reads the whole store file in the directory `path`, which no engine may have open, and checks
/// every checksum: those of the records and of their index, and those of the pages that hold them.
/// Writes nothing. The journal is checked by every open.
///
/// ```
/// # let dir = std::env::temp_dir().join(format!("oncekey-doc-verify-{}", std::process::id()));
/// oncekey::Engine::open(&dir)?.close()?;
/// oncekey::verify(&dir)?;
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok::<(), oncekey::Error>(())
/// ```
///
/// # Errors
/// `Corrupted` with the first damage found; otherwise those of
/// [`open_existing`](crate::Engine::open_existing).
pub fn verify(path: impl AsRef<Path>) -> Result<()> {
    let (options, path) = (Options::new(), path.as_ref());
    let _lock = directory::open(&options, path, false)?;
    Store::verify(&options.disk, path, options.cache_bytes)
}
