//! The values that the engine derives from its options.

use crate::admission::limits::Bounds;
use crate::backend::Settings;
use crate::embedded::disk::BLOCK;
use crate::embedded::journal::SegmentSizes;
use crate::embedded::options::{LEAST_OPEN_FILES, Options};

impl Options {
    /// The options that the API needs.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            ttl: self.ttl,
            max_execution: self.max_execution,
            max_response: self.max_response,
            max_checkpoint: self.max_checkpoint,
        }
    }

    /// The bounds of the operations of this process.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            in_flight: self.max_in_flight,
            queued: self.max_queue,
            waiting: self.max_waiters,
            orphans: self.max_orphans as u64,
            open_bytes: self.max_open_bytes,
        }
    }

    /// How large the segments of the journal are made.
    pub(crate) fn segment_sizes(&self) -> SegmentSizes {
        const SMALL: u64 = 1 << 20;
        let most = self.segment_bytes;
        let first = self.least_segment().max(SMALL).next_multiple_of(BLOCK as u64);
        SegmentSizes { first: first.min(most), most }
    }

    pub(crate) fn replay_bytes(&self) -> usize {
        self.cache_bytes / 4
    }

    /// One in this many replays from the store is kept in memory; under a stepper, every one.
    pub(crate) fn keep_one_of(&self) -> usize {
        #[cfg(feature = "stepping")]
        if self.stepper.is_some() {
            return 1;
        }
        8
    }

    pub(crate) fn store_cache_bytes(&self) -> usize {
        self.cache_bytes - self.replay_bytes()
    }

    /// [`max_open_files`](Self::max_open_files) within the limit of the process.
    pub(crate) fn open_files(&self) -> usize {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter =
            limit.map_or(usize::MAX, |limit| usize::try_from(limit / 4).unwrap_or(usize::MAX));
        self.max_open_files.min(quarter.max(LEAST_OPEN_FILES))
    }

    /// Whether a fold rests between its writes. Not under a stepper, whose tests do not sleep.
    pub(crate) fn paces_folds(&self) -> bool {
        #[cfg(feature = "stepping")]
        if self.stepper.is_some() {
            return false;
        }
        true
    }

    /// The rate of backups. None under a stepper, whose tests do not sleep.
    pub(crate) fn backup_rate(&self) -> Option<u64> {
        #[cfg(feature = "stepping")]
        if self.stepper.is_some() {
            return None;
        }
        self.backup_bytes_per_second
    }
}
