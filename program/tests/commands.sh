#!/usr/bin/env bash
# usage: program/tests/commands.sh [ROW...]   runs the rows of docs/commands.md, b1 to b12; without one,
# all but b9, which fills a store with ten million keys (ONCEKEY_B9_KEYS). Needs a Rust toolchain.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ $# -eq 0 ]; then exec cargo test -p oncekey-program --test commands; fi
for row in "$@"; do
  if [ "$row" = b9 ]; then
    cargo test --release -p oncekey-program --test commands -- --ignored --nocapture b9_
  else
    cargo test -p oncekey-program --test commands -- "${row}_"
  fi
done
