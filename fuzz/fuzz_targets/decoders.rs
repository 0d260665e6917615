//! Records, chunks, runs, filters, catalog rows and journal entries: no bytes make a decoder panic or allocate more
//! than they hold, not even with a right checksum.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| oncekey::fuzzing::decode(bytes));
