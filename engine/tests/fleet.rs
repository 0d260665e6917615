//! Fleets: the suites that every backend passes, on the shared store in memory.
#![cfg(not(any(oncekey_loom, oncekey_shuttle)))]
#![allow(missing_docs)]

use oncekey_testing::conformance::{Fleet, InMemory};

oncekey_testing::semantics!(Fleet<InMemory>);
oncekey_testing::waiting!(Fleet<InMemory>);
oncekey_testing::histories!(Fleet<InMemory>);
oncekey_testing::linearizability!(Fleet<InMemory>);
