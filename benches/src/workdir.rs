//! A directory for the stores of one run.

use std::path::{Path, PathBuf};

use crate::Result;

/// A directory that is removed when it is dropped.
#[derive(Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// Creates it in `parent`, or beside the program: a temporary directory may lie in memory.
    ///
    /// # Errors
    /// Those of the filesystem.
    pub fn create(name: &str, parent: Option<&Path>) -> Result<Self> {
        let built_in = std::env::current_exe()?;
        let parent = parent.or(built_in.parent()).ok_or("the program lies nowhere")?;
        let dir = parent.join(format!("oncekey-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir.canonicalize()?))
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

/// Removes the directory of a program that ends without destructors.
pub fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        eprintln!("{} could not be removed: {error}", dir.display());
    }
}
