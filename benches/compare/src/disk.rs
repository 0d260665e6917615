//! The disk that the stores lie on, and the bytes that reached it.
//!
//! Bytes written are those of the whole disk. A process's own `write_bytes` will not do: newer
//! kernels count a whole large folio for each small change in it, which charges engines that write
//! scattered pages through the page cache many times what reaches the disk. The price: writes of
//! other programs count, too, so the machine has to be quiet.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oncekey_benches::Result;

/// A disk, found by a directory on it.
#[derive(Debug)]
pub struct Disk {
    dir: File,
    counters: PathBuf,
}

impl Disk {
    /// The one that `dir` lies on.
    ///
    /// # Errors
    /// A filesystem that is not on a block device.
    pub fn of(dir: &Path) -> Result<Self> {
        let dir = File::open(dir)?;
        let device = dir.metadata()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let counters = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
        if !counters.exists() {
            return Err("the stores are not on a block device: choose another --store".into());
        }
        Ok(Self { dir, counters })
    }

    /// Lets everything reach the disk that is still in the page cache.
    ///
    /// # Errors
    /// Those of syncfs(2).
    pub fn sync(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(&self.dir)?)
    }

    /// Bytes that ever reached it.
    ///
    /// # Errors
    /// Counters that are not understood.
    pub fn written(&self) -> Result<u64> {
        let counters = std::fs::read_to_string(&self.counters)?;
        // Reads, merged, sectors, milliseconds; writes, merged, sectors of 512 bytes.
        let sectors = counters.split_ascii_whitespace().nth(6).ok_or("no count of writes")?;
        Ok(sectors.parse::<u64>()? * 512)
    }
}
