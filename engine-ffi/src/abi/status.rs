//! The statuses of calls, and the versions of the library.

use std::ffi::CStr;

use oncekey::ErrorKind;

/// The version of the binary interface, and the number in the SONAME.
pub const ONCEKEY_ABI_VERSION: u32 = 1;
/// The version of this header, first part.
pub const ONCEKEY_VERSION_MAJOR: u32 = 0;
/// The version of this header, second part.
pub const ONCEKEY_VERSION_MINOR: u32 = 1;
/// The version of this header, third part.
pub const ONCEKEY_VERSION_PATCH: u32 = 0;

/// Done.
pub const ONCEKEY_OK: i32 = 0;
/// A key, scope, response, checkpoint, option or pointer is invalid or outside its limits. Nothing happened.
pub const ONCEKEY_INVALID_INPUT: i32 = 1;
/// The token is not the newest for its key: another caller took over, or the record expired or was freed.
pub const ONCEKEY_FENCED: i32 = 2;
/// The key was already completed, with other bytes or under another token.
pub const ONCEKEY_ALREADY_COMPLETED: i32 = 3;
/// A write or sync failed while the operation was in progress: it may or may not have happened.
/// oncekey_engine_reopen decides it.
pub const ONCEKEY_OUTCOME_UNKNOWN: i32 = 4;
/// The engine refuses writes after an earlier failure. oncekey_engine_reopen recovers it in place.
pub const ONCEKEY_UNAVAILABLE: i32 = 5;
/// A bound was reached. Nothing happened; try again later.
pub const ONCEKEY_OVERLOADED: i32 = 6;
/// The disk, or the configured store size, is full. Nothing happened.
pub const ONCEKEY_STORE_FULL: i32 = 7;
/// The engine was closed.
pub const ONCEKEY_CLOSED: i32 = 8;
/// There is no store, and the options forbid to create one.
pub const ONCEKEY_STORE_MISSING: i32 = 9;
/// Another process, or another engine of this process, holds the store.
pub const ONCEKEY_STORE_IN_USE: i32 = 10;
/// The store file has no bytes. It was left untouched.
pub const ONCEKEY_STORE_EMPTY: i32 = 11;
/// The store file is shorter than its durable part once was. It was left untouched.
pub const ONCEKEY_STORE_TRUNCATED: i32 = 12;
/// The directory or file is not a oncekey store. It was left untouched.
pub const ONCEKEY_STORE_FOREIGN: i32 = 13;
/// The store was written by a newer version of oncekey. It was left untouched.
pub const ONCEKEY_STORE_NEWER_FORMAT: i32 = 14;
/// The store cannot be read or written with the rights of this process. It was left untouched.
pub const ONCEKEY_STORE_UNREADABLE: i32 = 15;
/// The store lies on a network filesystem, whose locks and syncs cannot be trusted.
pub const ONCEKEY_NETWORK_FILESYSTEM: i32 = 16;
/// Stored bytes fail their checksum, or something that must exist is missing.
pub const ONCEKEY_CORRUPTED: i32 = 17;
/// The wall clock is further ahead of the store's last time than the limit allows.
pub const ONCEKEY_CLOCK_JUMP: i32 = 18;
/// The operating system reported an error that no other status describes.
pub const ONCEKEY_IO: i32 = 19;
/// The settings of a shared server cannot keep the promises of the engine. Nothing was written.
pub const ONCEKEY_UNSAFE_STORE: i32 = 20;
/// A shared server lacks changes that it had acknowledged. The engine grants nothing until the loss is
/// accepted with ONCEKEY_ACCEPT_LOST_HISTORY.
pub const ONCEKEY_HISTORY_LOST: i32 = 21;
/// This kind of store does not have the requested function.
pub const ONCEKEY_UNSUPPORTED: i32 = 22;
/// The handle was never given out, was freed, or is of another kind. Nothing happened.
pub const ONCEKEY_INVALID_HANDLE: i32 = 100;
/// Another call is using the claim or orphan. Nothing happened.
pub const ONCEKEY_BUSY: i32 = 101;
/// This process was forked from one that had opened an engine. Nothing was touched.
pub const ONCEKEY_FORKED: i32 = 102;
/// A bug in the library was contained. The work of the call may or may not have happened.
pub const ONCEKEY_PANIC: i32 = 103;
/// oncekey_queue_cancel cancelled the begin. Nothing happened: if the begin won a claim, the claim is
/// aborted.
pub const ONCEKEY_CANCELLED: i32 = 104;
/// The engine reported a kind of error that this library does not know.
pub const ONCEKEY_UNKNOWN_ERROR: i32 = 199;

/// Every status with its name.
const NAMES: [(i32, &CStr); 29] = [
    (ONCEKEY_OK, c"OK"),
    (ONCEKEY_INVALID_INPUT, c"INVALID_INPUT"),
    (ONCEKEY_FENCED, c"FENCED"),
    (ONCEKEY_ALREADY_COMPLETED, c"ALREADY_COMPLETED"),
    (ONCEKEY_OUTCOME_UNKNOWN, c"OUTCOME_UNKNOWN"),
    (ONCEKEY_UNAVAILABLE, c"UNAVAILABLE"),
    (ONCEKEY_OVERLOADED, c"OVERLOADED"),
    (ONCEKEY_STORE_FULL, c"STORE_FULL"),
    (ONCEKEY_CLOSED, c"CLOSED"),
    (ONCEKEY_STORE_MISSING, c"STORE_MISSING"),
    (ONCEKEY_STORE_IN_USE, c"STORE_IN_USE"),
    (ONCEKEY_STORE_EMPTY, c"STORE_EMPTY"),
    (ONCEKEY_STORE_TRUNCATED, c"STORE_TRUNCATED"),
    (ONCEKEY_STORE_FOREIGN, c"STORE_FOREIGN"),
    (ONCEKEY_STORE_NEWER_FORMAT, c"STORE_NEWER_FORMAT"),
    (ONCEKEY_STORE_UNREADABLE, c"STORE_UNREADABLE"),
    (ONCEKEY_NETWORK_FILESYSTEM, c"NETWORK_FILESYSTEM"),
    (ONCEKEY_CORRUPTED, c"CORRUPTED"),
    (ONCEKEY_CLOCK_JUMP, c"CLOCK_JUMP"),
    (ONCEKEY_IO, c"IO"),
    (ONCEKEY_UNSAFE_STORE, c"UNSAFE_STORE"),
    (ONCEKEY_HISTORY_LOST, c"HISTORY_LOST"),
    (ONCEKEY_UNSUPPORTED, c"UNSUPPORTED"),
    (ONCEKEY_INVALID_HANDLE, c"INVALID_HANDLE"),
    (ONCEKEY_BUSY, c"BUSY"),
    (ONCEKEY_FORKED, c"FORKED"),
    (ONCEKEY_PANIC, c"PANIC"),
    (ONCEKEY_CANCELLED, c"CANCELLED"),
    (ONCEKEY_UNKNOWN_ERROR, c"UNKNOWN_ERROR"),
];

/// The status of a kind of error. The enum of kinds is non-exhaustive; a test compares this with the engine.
pub(crate) fn of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::InvalidInput => ONCEKEY_INVALID_INPUT,
        ErrorKind::Fenced => ONCEKEY_FENCED,
        ErrorKind::AlreadyCompleted => ONCEKEY_ALREADY_COMPLETED,
        ErrorKind::OutcomeUnknown => ONCEKEY_OUTCOME_UNKNOWN,
        ErrorKind::Unavailable => ONCEKEY_UNAVAILABLE,
        ErrorKind::Overloaded => ONCEKEY_OVERLOADED,
        ErrorKind::StoreFull => ONCEKEY_STORE_FULL,
        ErrorKind::Closed => ONCEKEY_CLOSED,
        ErrorKind::StoreMissing => ONCEKEY_STORE_MISSING,
        ErrorKind::StoreInUse => ONCEKEY_STORE_IN_USE,
        ErrorKind::StoreEmpty => ONCEKEY_STORE_EMPTY,
        ErrorKind::StoreTruncated => ONCEKEY_STORE_TRUNCATED,
        ErrorKind::StoreForeign => ONCEKEY_STORE_FOREIGN,
        ErrorKind::StoreNewerFormat => ONCEKEY_STORE_NEWER_FORMAT,
        ErrorKind::StoreUnreadable => ONCEKEY_STORE_UNREADABLE,
        ErrorKind::NetworkFilesystem => ONCEKEY_NETWORK_FILESYSTEM,
        ErrorKind::Corrupted => ONCEKEY_CORRUPTED,
        ErrorKind::ClockJump => ONCEKEY_CLOCK_JUMP,
        ErrorKind::Io => ONCEKEY_IO,
        ErrorKind::UnsafeStore => ONCEKEY_UNSAFE_STORE,
        ErrorKind::HistoryLost => ONCEKEY_HISTORY_LOST,
        ErrorKind::Unsupported => ONCEKEY_UNSUPPORTED,
        _ => ONCEKEY_UNKNOWN_ERROR,
    }
}

pub(crate) fn name(status: i32) -> &'static CStr {
    NAMES.iter().find(|(code, _)| *code == status).map_or(c"(no status)", |(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The enum of kinds is non-exhaustive, so the compiler does not report a new kind.
    #[test]
    fn every_kind_of_error_has_a_status_of_its_own_and_its_name() {
        let statuses: Vec<_> =
            NAMES.iter().filter(|(status, _)| (1..100).contains(status)).collect();
        assert_eq!(ErrorKind::ALL.len(), statuses.len());
        for (kind, (status, name)) in ErrorKind::ALL.iter().zip(statuses) {
            let screaming: String = format!("{kind:?}")
                .chars()
                .enumerate()
                .flat_map(|(at, c)| {
                    let gap = (at > 0 && c.is_uppercase()).then_some('_');
                    gap.into_iter().chain([c.to_ascii_uppercase()])
                })
                .collect();
            assert_eq!((of(*kind), name.to_str().unwrap()), (*status, screaming.as_str()));
        }
    }

    #[test]
    fn the_version_of_the_header_is_that_of_the_package() {
        let version =
            format!("{ONCEKEY_VERSION_MAJOR}.{ONCEKEY_VERSION_MINOR}.{ONCEKEY_VERSION_PATCH}");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
    }
}
