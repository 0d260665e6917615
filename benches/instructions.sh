#!/usr/bin/env bash
# Counts the instructions of the hot paths under callgrind and compares them with
# benches/instructions.txt.
#   instructions.sh                 fails when a path is more than 5 % above its baseline
#   instructions.sh --bless         writes the baseline anew; commit it with the change that explains it
#   instructions.sh --only replay --keep DIR    one path, and what callgrind_annotate needs
#   instructions.sh --help          the rest
# Installs valgrind with apt-get where it can (as root).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "instruction counts: left out, the baseline is for Linux on x86-64"
  exit 0
fi
if ! command -v valgrind > /dev/null && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  { apt-get update -qq && apt-get install -qq -y valgrind; } > /dev/null 2>&1 || true
fi
if ! command -v valgrind > /dev/null; then
  echo "instruction counts need valgrind: there is none, and it could not be installed" >&2
  exit 1
fi
# With flags of a developer the compiler would make other code than the baseline's.
unset RUSTFLAGS
cargo run --quiet --release -p oncekey-benches --bin instructions -- "$@"
