//! Counts the handles that a process leaves behind. A leak checker cannot see them: a handle is a number, and
//! its value is reachable from a table.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Ordered by the kind of the table; kinds count from 1.
const NAMES: [&str; 7] = ["engine", "claim", "orphan", "fingerprint", "buffer", "error", "queue"];

static LIVE: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];

/// The exit status of a process that left handles behind.
const LEAKED: i32 = 8;

pub(super) fn given(kind: u8) {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        if std::env::var_os("ONCEKEY_LEAK_CHECK").is_some() {
            // SAFETY: `check` takes no arguments and does not unwind, as `atexit` requires. If the
            // registration fails, no check runs.
            unsafe { libc::atexit(check) };
        }
    });
    live(kind).fetch_add(1, Ordering::Relaxed);
}

pub(super) fn freed(kind: u8) {
    live(kind).fetch_sub(1, Ordering::Relaxed);
}

fn live(kind: u8) -> &'static AtomicUsize {
    &LIVE[usize::from(kind) - 1]
}

extern "C" fn check() {
    let mut leaked = false;
    for (name, live) in NAMES.iter().zip(&LIVE) {
        let count = live.load(Ordering::Relaxed);
        if count > 0 {
            leaked = true;
            eprintln!("oncekey: handles that were not freed: {count} of {name}");
        }
    }
    if leaked {
        // SAFETY: ends the process without running the remaining exit handlers.
        unsafe { libc::_exit(LEAKED) };
    }
}
