#!/usr/bin/env bash
# Builds the servers of other frameworks and asks each for the whole contract, over a socket. A workspace of its own
# with its own Cargo.lock, which asks for Rust 1.95 (salvo); the crates of the repository ask for less.
set -euo pipefail
cd "$(dirname "$0")"
CARGO_TARGET_DIR=$(cd ../.. && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/servers
export CARGO_TARGET_DIR
cargo fmt --all --check
cargo clippy --locked --quiet --all-targets -- -D warnings
cargo test --locked --quiet --no-fail-fast
echo "servers: warp, salvo, poem and Rocket keep the contract"
