//! The size of a store: memory of this process, and space on disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::Result;

/// Resident memory of this process that is its own (`RssAnon`, proc(5)), in bytes.
///
/// # Errors
/// A system without `/proc/self/status`.
pub fn memory() -> Result<u64> {
    status_bytes("RssAnon:")
}

/// The most memory that this process had resident at any time, shared files included (`VmHWM`), in bytes.
///
/// # Errors
/// A system without `/proc/self/status`.
pub fn peak_memory() -> Result<u64> {
    status_bytes("VmHWM:")
}

fn status_bytes(label: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(label));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or_else(|| format!("/proc/self/status has no {label}"))?.trim().parse::<u64>()?
        * 1024)
}

/// Bytes that the files in `dir` take on disk: holes take none.
///
/// # Errors
/// Those of the filesystem.
pub fn directory(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for file in std::fs::read_dir(dir)? {
        sum += file?.metadata()?.blocks() * 512;
    }
    Ok(sum)
}
