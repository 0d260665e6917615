//! How a store is opened.

use crate::abi::plain::plain;
use crate::abi::types::Slice;

plain!(Options);

/// Every answer that a change happened waits until the change is synced to disk.
pub const ONCEKEY_STRICT: u32 = 301;
/// `begin` grants a claim once it is written, before it is synced: survives kill -9, and after a
/// power loss an operation may run twice.
pub const ONCEKEY_RELAXED: u32 = 302;

/// Refuse to create a store.
pub const ONCEKEY_OPEN_EXISTING: u32 = 65_536;
/// Open although the wall clock stands further ahead than `max_clock_gap_ms`, or the clock of a server 30 days.
pub const ONCEKEY_ACCEPT_CLOCK_JUMP: u32 = 131_072;
/// Open a store on a network filesystem, whose locks and syncs are not to be trusted.
pub const ONCEKEY_ALLOW_NETWORK_FILESYSTEM: u32 = 262_144;

/// A shared store: refuse a server without `synchronous_standby_names`.
pub const ONCEKEY_REPLICATION_REQUIRED: u32 = 524_288;
/// A shared store: go on when the server lacks changes that it had acknowledged. Keys whose claim or
/// response was lost are new then, and their operations run again.
pub const ONCEKEY_ACCEPT_LOST_HISTORY: u32 = 1_048_576;
/// A shared store: send no settings when a connection begins, for a pooler that refuses them; the role
/// must have them then.
pub const ONCEKEY_WITHOUT_STARTUP_OPTIONS: u32 = 2_097_152;

/// Options of a store: set `size`, leave everything else 0, and change what is to differ from the
/// defaults. An option that the kind of the store does not have is refused, by its name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// sizeof(oncekey_options) of the caller.
    pub size: u32,
    /// ONCEKEY_OPEN_EXISTING and the others, ored.
    pub flags: u32,
    /// ONCEKEY_STRICT or ONCEKEY_RELAXED. 0: ONCEKEY_STRICT.
    pub durability: u32,
    /// Must be 0.
    pub reserved: u32,
    /// How long a completed response is replayed, and an orphan stands. 0: 24 hours.
    pub ttl_ms: u64,
    /// From which age on a claim counts as an orphan although its owner lives. 0: never.
    pub max_execution_ms: u64,
    /// The longest response that is kept, in bytes. 0: 1 MiB; at most 16 MiB.
    pub max_response: u64,
    /// The longest checkpoint, in bytes. 0: 64 KiB; at most 16 MiB.
    pub max_checkpoint: u64,
    /// How many claims may be in flight. 0: 65,536.
    pub max_in_flight: u64,
    /// How many orphans may stand unresolved. 0: 1,000,000.
    pub max_orphans: u64,
    /// How many begins may wait for the disk. 0: 65,536.
    pub max_queue: u64,
    /// How many begins may wait for an owner. 0: 65,536.
    pub max_waiters: u64,
    /// How large the store may grow, in bytes. 0: no bound.
    pub max_store_bytes: u64,
    /// How long a begin waits for memory before it is refused. 0: 5 seconds.
    pub overload_after_ms: u64,
    /// Memory for records that are not folded yet, in bytes. 0: 32 MiB.
    pub recent_bytes: u64,
    /// Memory for what is read again, in bytes. 0: 64 MiB, of a shared store 16 MiB.
    pub cache_bytes: u64,
    /// The size that journal segments grow to, in bytes, a multiple of 4096. 0: 32 MiB.
    pub segment_bytes: u64,
    /// How often expired records are looked for, and a shared store is kept up. 0: 60 seconds.
    pub sweep_interval_ms: u64,
    /// How far the wall clock may stand ahead of the store's last time. 0: 30 days.
    pub max_clock_gap_ms: u64,
    /// How many files of records may be open. 0: 256; at least 8.
    pub max_open_files: u64,
    /// How many bytes claims in flight and orphans may take, checkpoints included. 0: 8 GiB.
    pub max_open_bytes: u64,
    /// How fast a backup verifies and copies, in bytes per second. 0: 48 MiB; UINT64_MAX: as
    /// fast as the disk allows.
    pub backup_bytes_per_second: u64,
    /// How long an open waits for a store that another process holds. 0: not at all.
    pub lock_wait_ms: u64,
    /// A shared store: how long this engine counts as living after each renewal; as long after its death its
    /// claims may become orphans. 0: 15 seconds; 1 second to 10 minutes.
    pub lease_ms: u64,
    /// A shared store: how long the end of a claim is tried again without an answer. 0: 30 seconds.
    pub settle_for_ms: u64,
    /// A shared store: the schema that holds its tables. Empty: `oncekey`.
    pub schema: Slice,
    /// A shared store: a name that no other living engine has, such as that of a pod: it ends its
    /// predecessor, whose claims are orphans at once. Empty: none.
    pub instance_name: Slice,
    /// A shared store: the certificates (PEM) that are trusted. Empty: those of the system.
    pub root_certificates: Slice,
}
