//! Sequences of calls that a fuzzer chooses.
#![no_main]

#[path = "../../tests/support/calls.rs"]
mod calls;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;

thread_local! {
    static WORLD: RefCell<(calls::World, tempfile::TempDir)> = RefCell::new({
        let directory = tempfile::tempdir().expect("a directory");
        (calls::World::open(directory.path()), directory)
    });
}

fuzz_target!(|bytes: &[u8]| {
    WORLD.with_borrow_mut(|(world, _)| world.run(bytes));
});
