//! The options of a store.

use crate::abi::plain::plain;
use crate::abi::types::Slice;

plain!(Options);

/// Every answer that confirms a change waits until the change is synced to disk.
pub const ONCEKEY_STRICT: u32 = 301;
/// `begin` grants a claim once it is written, before it is synced. The claim survives kill -9; after a power
/// loss an operation may run twice.
pub const ONCEKEY_RELAXED: u32 = 302;

/// Refuse to create a store.
pub const ONCEKEY_OPEN_EXISTING: u32 = 65_536;
/// Open although the wall clock is ahead by more than `max_clock_gap_ms`, or the clock of a shared server by
/// more than 30 days.
pub const ONCEKEY_ACCEPT_CLOCK_JUMP: u32 = 131_072;
/// Open a store on a network filesystem, whose locks and syncs cannot be trusted.
pub const ONCEKEY_ALLOW_NETWORK_FILESYSTEM: u32 = 262_144;

/// A shared store: refuse a server without `synchronous_standby_names`.
pub const ONCEKEY_REPLICATION_REQUIRED: u32 = 524_288;
/// A shared store: continue when the server lacks changes that it had acknowledged. Keys whose claim or
/// response was lost are then new, and their operations run again.
pub const ONCEKEY_ACCEPT_LOST_HISTORY: u32 = 1_048_576;
/// A shared store: send no settings when a connection begins, for a pooler that refuses them. The role must
/// then have these settings.
pub const ONCEKEY_WITHOUT_STARTUP_OPTIONS: u32 = 2_097_152;

/// Options of a store: set `size`, leave everything else 0, and change the fields that must differ from the
/// defaults. An option that this kind of store does not have is refused, and the error names it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// sizeof(oncekey_options) of the caller.
    pub size: u32,
    /// The flags from ONCEKEY_OPEN_EXISTING to ONCEKEY_WITHOUT_STARTUP_OPTIONS, combined with `|`.
    pub flags: u32,
    /// ONCEKEY_STRICT or ONCEKEY_RELAXED. 0: ONCEKEY_STRICT.
    pub durability: u32,
    /// Must be 0.
    pub reserved: u32,
    /// How long a completed response is replayed and an orphan is kept, in milliseconds. 0: 24 hours.
    pub ttl_ms: u64,
    /// The age at which a claim counts as an orphan although its owner lives, in milliseconds. 0: never.
    pub max_execution_ms: u64,
    /// The longest response that is kept, in bytes. 0: 1 MiB; at most 16 MiB.
    pub max_response: u64,
    /// The longest checkpoint, in bytes. 0: 64 KiB; at most 16 MiB.
    pub max_checkpoint: u64,
    /// The largest number of claims in flight. 0: 65,536.
    pub max_in_flight: u64,
    /// The largest number of unresolved orphans. 0: 1,000,000.
    pub max_orphans: u64,
    /// The largest number of begins that wait for the disk. 0: 65,536.
    pub max_queue: u64,
    /// The largest number of begins that wait for an owner. 0: 65,536.
    pub max_waiters: u64,
    /// The largest size of the store, in bytes. 0: no bound.
    pub max_store_bytes: u64,
    /// How long a begin waits for memory before it is refused, in milliseconds. 0: 5 seconds.
    pub overload_after_ms: u64,
    /// Memory for records that are not folded yet, in bytes. 0: 32 MiB.
    pub recent_bytes: u64,
    /// Memory for cached records and blocks, in bytes. 0: 64 MiB; for a shared store 16 MiB.
    pub cache_bytes: u64,
    /// The size of a full journal segment, in bytes, a multiple of 4096. 0: 32 MiB.
    pub segment_bytes: u64,
    /// The time between two sweeps of expired records, and between two upkeeps of a shared store, in
    /// milliseconds. 0: 60 seconds.
    pub sweep_interval_ms: u64,
    /// How far the wall clock may be ahead of the store's last time, in milliseconds. 0: 30 days.
    pub max_clock_gap_ms: u64,
    /// The largest number of open record files. 0: 256; at least 8.
    pub max_open_files: u64,
    /// The largest size of claims in flight and orphans together, checkpoints included, in bytes. 0: 8 GiB.
    pub max_open_bytes: u64,
    /// The speed at which a backup verifies and copies, in bytes per second. 0: 48 MiB; UINT64_MAX: as fast
    /// as the disk allows.
    pub backup_bytes_per_second: u64,
    /// How long an open waits for a store that another process holds, in milliseconds. 0: not at all.
    pub lock_wait_ms: u64,
    /// A shared store: how long a renewal keeps this engine counted as living, in milliseconds. After its
    /// death, its claims may become orphans when this time has passed. 0: 15 seconds; 1 second to 10 minutes.
    pub lease_ms: u64,
    /// A shared store: how long the end of a claim is retried while the server does not answer, in
    /// milliseconds. 0: 30 seconds.
    pub settle_for_ms: u64,
    /// A shared store: the schema that holds its tables. Empty: `oncekey`.
    pub schema: Slice,
    /// A shared store: a name that no other living engine has, such as the name of a pod. An engine that
    /// opens under the name of its predecessor ends that engine, and its claims are orphans at once. Empty:
    /// no name.
    pub instance_name: Slice,
    /// A shared store: the trusted certificates (PEM). Empty: those of the system.
    pub root_certificates: Slice,
}
