//! The directory of a run.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use oncekey_benches::Result;

/// Whether a signal ends the program: servers are stopped, then the directory is removed.
static ENDING: AtomicBool = AtomicBool::new(false);

/// A directory that is removed when the program ends, by itself, by an error or by Ctrl-C.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// Creates it in `parent`, or beside the program.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn create(parent: Option<&Path>) -> Result<Self> {
        let built_in = std::env::current_exe()?;
        let parent = parent.or(built_in.parent()).ok_or("the program lies nowhere")?;
        let dir = parent.join(format!("oncekey-compare-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        ctrlc::set_handler({
            let dir = dir.clone();
            move || {
                if !ENDING.swap(true, Ordering::Relaxed) {
                    crate::servers::stop_all();
                    remove(&dir);
                }
                std::process::exit(130);
            }
        })?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("compare: {} could not be removed: {error}", dir.display());
    }
}
