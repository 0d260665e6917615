//! The seam between the meaning of a claim and the place where its record lives.
//!
//! The [API](crate::api) builds [operations](operation::Operation) and hands them to a [`Backend`].
//! The backend decides them with [`transition`](crate::semantics::transition::transition), makes the
//! change durable, and tells the outcome. The API knows nothing else of a store.

pub(crate) mod operation;
pub(crate) mod reports;
pub(crate) mod telemetry;

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::operation::{Operation, Wait};
use self::reports::{Bucket, CloseReport, Stats};
use crate::base::bytes::SharedBytes;
use crate::base::error::Result;
use crate::base::range::{at_least, at_most};
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// A place where records live and commands are decided. All methods may be called from any thread.
pub(crate) trait Backend: Send + Sync + 'static {
    /// The limits and durations that commands are built with.
    fn settings(&self) -> &Settings;

    /// The key and the fingerprint as this store compares them: under its secret.
    fn identify(&self, key: &Key, fingerprint: Fingerprint) -> (KeyHash, KeyedFingerprint);

    /// Takes an operation in. Its outcome is told exactly once, on any thread, with no lock held.
    fn submit(&self, operation: Operation);

    /// Ends the wait of a begin whose caller gave up. Its place is free at once.
    fn withdraw(&self, hash: KeyHash, wait: Wait);

    /// The durable record of a key. Changes nothing; may block for a read of the store.
    fn read(&self, key: &Key) -> Result<Reading<Option<Seen>>>;

    /// The last checkpoint of the attempt that has the token. Changes nothing; may block for a read of the
    /// store.
    ///
    /// # Errors
    /// `Fenced` when another attempt has begun or the key is free, `AlreadyCompleted` when the operation
    /// was ended; `Corrupted`, never "none", when the checkpoint is damaged.
    fn checkpoint(&self, key: &Key, hash: KeyHash, token: Token) -> Result<Option<SharedBytes>>;

    /// Records that may count as orphans, in no order. Changes nothing; may block for a read.
    fn open_records(&self) -> Result<Reading<Vec<Seen>>>;

    /// Records after `after`, in the order of their hashes: about `most`, and fewer when more would
    /// take too long or too much memory. Changes nothing; may block for reads of the store; holds
    /// no lock from one page to the next.
    fn scan(&self, after: Option<KeyHash>, most: usize) -> Result<Reading<ScanPage>>;

    /// How many records expire when; may block for a read of the store.
    fn buckets(&self) -> Result<Vec<Bucket>>;

    /// A snapshot of counters and gauges.
    fn stats(&self) -> Stats;

    /// Moves everything acknowledged into its final place; blocks until that is durable.
    fn fold(&self) -> Result<()>;

    /// Gives the space of expired records back; blocks. Returns how many were removed.
    fn sweep(&self) -> Result<u64>;

    /// Writes a consistent copy into the directory `path`; blocks.
    fn backup_to(&self, path: &Path) -> Result<()>;

    /// Recovers in place, as a restart of the process would; blocks.
    fn reopen(&self) -> Result<()>;

    /// Refuses new operations, makes durable those that were submitted, folds, and ends; blocks.
    fn close(&self) -> Result<CloseReport>;

    /// Like [`close`](Self::close), without a fold or a report: the last handle was dropped. Does
    /// nothing when the backend has ended already.
    fn end(&self);

    /// The place of the store, for people.
    fn location(&self) -> String;

    /// The directory that this process holds; `None` where the store is no directory.
    fn directory(&self) -> Option<&Path> {
        None
    }

    /// Replaces the note that other processes read. An empty note removes it.
    fn set_owner_note(&self, note: &[u8]) -> Result<()>;

    /// The shared store of a fleet, as its own type, so that its crate can add calls to a claim.
    fn shared_store(&self) -> Option<&dyn Any> {
        None
    }
}

/// The shortest time that a record may be kept for.
pub(crate) const MIN_TTL: Duration = Duration::from_millis(1);

/// The longest response or checkpoint that options may allow.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;

/// The longest note of an owner, in bytes.
pub(crate) const MAX_NOTE: usize = 4096;

/// Refuses a note that is too long.
pub(crate) fn check_note(note: &[u8]) -> Result<()> {
    at_most("the bytes of owner_note", note.len(), MAX_NOTE)
}

/// The options of an open store that the API needs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How long a completed response is replayed, and an orphan is kept.
    pub(crate) ttl: Duration,
    /// How long a claim may be held before it counts as an orphan.
    pub(crate) max_execution: Option<Duration>,
    /// The longest response that is kept, in bytes.
    pub(crate) max_response: usize,
    /// The longest checkpoint, in bytes.
    pub(crate) max_checkpoint: usize,
}

impl Settings {
    pub(crate) fn validate(&self) -> Result<()> {
        at_least("ttl", self.ttl, MIN_TTL)?;
        at_least("max_execution", self.max_execution.unwrap_or(MIN_TTL), MIN_TTL)?;
        at_most("max_response", self.max_response, MAX_PAYLOAD)?;
        at_most("max_checkpoint", self.max_checkpoint, MAX_PAYLOAD)
    }
}

/// A record and its place in the store.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) hash: KeyHash,
    pub(crate) record: Arc<Record>,
}

/// Some records in the order of their hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanPage {
    /// Expired records may be among them.
    pub(crate) seen: Vec<Seen>,
    /// All records up to this one were seen; `None` when there are no more.
    pub(crate) through: Option<KeyHash>,
}

/// The record that was read, and the engine time of the read.
#[derive(Clone, Debug)]
pub(crate) struct Reading<T> {
    pub(crate) found: T,
    pub(crate) now: Time,
}
