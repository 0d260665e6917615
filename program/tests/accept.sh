#!/usr/bin/env bash
# usage: program/tests/accept.sh [ROW...]   builds the program and runs the acceptance table of
# docs/proxy.md, or some rows of it. Needs a Rust toolchain and python3.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build -p oncekey-program
exec python3 program/tests/accept.py target/debug/oncekey "$@"
