#!/usr/bin/env bash
# Begin + complete pairs a second through Rust, C and Go, in turns on one machine: the medians, and what C
# and Go reach of Rust. Needs Go on the PATH.
#
#   bench.sh [ROUNDS] [SECONDS]
set -euo pipefail
cd "$(dirname "$0")"

rounds=${1:-5} seconds=${2:-3}
work=$(realpath "$(mktemp -d -p "${ONCEKEY_BENCH_DIR:-../target}")")
trap 'rm -rf "$work"' EXIT

./install.sh --prefix "$work/stage"
cargo build --quiet --release -p oncekey-ffi --example pairs
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export PKG_CONFIG_PATH=$work/stage/lib/pkgconfig LD_LIBRARY_PATH=$work/stage/lib
# shellcheck disable=SC2046
cc -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -o "$work/c" examples/pairs.c $(pkg-config --cflags --libs oncekey)
(cd go && go build -o "$work/go" ./internal/pairs)
cp "$target/release/examples/pairs" "$work/rust"

median() { sort -n "$1" | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

printf '%12s %10s %10s %10s %8s %8s\n' outstanding rust c go c/rust go/rust
for outstanding in 1 64 1024; do
  for ((round = 0; round < rounds; round++)); do
    for side in rust c go; do
      "$work/$side" "$work/store" "$outstanding" "$seconds" >> "$work/$side-$outstanding"
      rm -rf "$work/store"
    done
  done
  rust=$(median "$work/rust-$outstanding") c=$(median "$work/c-$outstanding") go=$(median "$work/go-$outstanding")
  awk -v n="$outstanding" -v r="$rust" -v c="$c" -v g="$go" \
    'BEGIN { printf "%12d %10d %10d %10d %8.2f %8.2f\n", n, r, c, g, c / r, g / r }'
done
