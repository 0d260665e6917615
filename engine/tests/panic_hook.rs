//! redb panics on damaged pages. The engine turns such a panic into an error, and the panic hook of the host is not
//! called; for the host's own panics it is called as before. A process has one hook, so each case runs in a child of
//! its own.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::panic;

use common::*;
use oncekey_testing::{Fault, OpKind, Ops};

const CHILD: &str = "ONCEKEY_PANIC_HOOK_CHILD";

/// The standard error of this test, run again as `case`.
fn stderr_of(test: &str, case: &str) -> String {
    let output = this_test(test).env(CHILD, case).env("RUST_BACKTRACE", "1").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{case}: {stderr}");
    stderr
}

/// Makes redb panic in opens, lookups and folds, until each has met an error.
fn panics_under_redb() {
    let mut errors = 0;
    for nth in 0..6 {
        let sim = Sim::new();
        let engine = sim.options().cache_bytes(0).open("/store").unwrap();
        complete(&engine, "k", b"answer");
        sim.disk.inject(Fault::new(Ops::Changes, nth).on_path("store.redb").panic());
        errors += u32::from(engine.fold().is_err());
        sim.disk.clear_faults();
        engine.reopen().unwrap();
        // The first read is the engine's own look at the header.
        sim.disk.inject(Fault::at_kind(OpKind::Read, nth + 1).on_path("store.redb").panic());
        errors += u32::from(engine.reopen().is_err());
        sim.disk.clear_faults();
        engine.reopen().unwrap();
        assert_eq!(replay(&engine, "k").response(), Some(&b"answer"[..]));
    }
    assert!(errors >= 6, "{errors} errors");
}

fn host_panics(message: &'static str) {
    let panicked = panic::catch_unwind(|| panic!("{message}"));
    assert!(panicked.is_err());
    let thread = std::thread::spawn(move || panic!("{message} in a thread"));
    assert!(thread.join().is_err());
}

#[test]
fn panics_of_redb_print_nothing_and_those_of_the_host_do() {
    let test = "panics_of_redb_print_nothing_and_those_of_the_host_do";
    let Ok(case) = std::env::var(CHILD) else {
        assert_eq!(stderr_of(test, "redb alone"), "");
        let both = stderr_of(test, "the host too");
        for message in ["before", "before in a thread", "after", "after in a thread"] {
            assert!(both.contains(&format!("\n{message}\n")), "{both}");
        }
        assert_eq!(both.matches("panicked at").count(), 4, "{both}");
        let own = stderr_of(test, "a hook of the host");
        assert_eq!(
            own,
            "host: before\nhost: before in a thread\nhost: after\nhost: after in a thread\n"
        );
        return;
    };
    if case == "a hook of the host" {
        panic::set_hook(Box::new(|panic| {
            eprintln!("host: {}", panic.payload_as_str().unwrap_or("no message"));
        }));
    }
    if case != "redb alone" {
        host_panics("before");
    }
    panics_under_redb();
    if case != "redb alone" {
        host_panics("after");
    }
}
