//! How far backups have come, for [`Stats`](crate::Stats).

use std::sync::atomic::AtomicU64;

/// The progress of the backups under way.
#[derive(Debug, Default)]
pub(crate) struct BackupProgress {
    pub(crate) running: AtomicU64,
    pub(crate) copied: AtomicU64,
    pub(crate) bytes: AtomicU64,
}
