//! How far backups have come, for [`Stats`](crate::Stats).

use std::sync::atomic::AtomicU64;

/// How far the backups have come that are being written.
#[derive(Debug, Default)]
pub(crate) struct BackupProgress {
    pub(crate) running: AtomicU64,
    pub(crate) copied: AtomicU64,
    pub(crate) bytes: AtomicU64,
}
