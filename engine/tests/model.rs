//! The engine against the model: the suite of random histories that every backend passes.
//!
//! `PROPTEST_CASES=5000 cargo test -p oncekey --test model` runs a campaign.
#![allow(missing_docs)]

oncekey_testing::histories!(oncekey_testing::conformance::Embedded);
