//! The directory of a run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use oncekey_benches::Result;
use oncekey_benches::workdir::{WorkDir, remove};

/// Whether a signal ends the program: servers are stopped, then the directory is removed.
static ENDING: AtomicBool = AtomicBool::new(false);

/// A directory that is removed when the program ends, by itself, by an error or by Ctrl-C.
///
/// # Errors
/// Those of the filesystem.
pub fn create(parent: Option<&Path>) -> Result<WorkDir> {
    let dir = WorkDir::create("compare", parent)?;
    let path = dir.path().to_owned();
    ctrlc::set_handler(move || {
        if !ENDING.swap(true, Ordering::Relaxed) {
            crate::servers::stop_all();
            remove(&path);
        }
        std::process::exit(130);
    })?;
    Ok(dir)
}
