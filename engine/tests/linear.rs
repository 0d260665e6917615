//! Linearizability: the suite that every backend passes, while the disk fails, the process is killed and
//! the power goes.
//!
//! `ONCEKEY_SEEDS=0..5000 cargo test --release -p oncekey --test linear` runs a campaign.
#![allow(missing_docs)]

oncekey_testing::linearizability!(oncekey_testing::conformance::Embedded);
