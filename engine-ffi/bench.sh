#!/usr/bin/env bash
# Begin + complete pairs through Rust, C and Go, in turns on one machine: medians of pairs a second, what C
# and Go reach of Rust, and medians of the processor time of a pair in microseconds, which a busy machine
# disturbs less. Needs Go on the PATH.
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

median() { cut -d ' ' -f "$2" "$1" | sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }

# Runs one side; appends its rate and its processor time for each pair.
TIMEFORMAT='%U %S'
measure() {
  local rate user system
  rate=$({ time "$work/$1" "$work/store" "$2" "$seconds"; } 2> "$work/time")
  read -r user system < "$work/time"
  awk -v p="$rate" -v s="$seconds" -v u="$user" -v y="$system" \
    'BEGIN { printf "%d %.1f\n", p, (u + y) * 1e6 / (p * s) }' >> "$work/$1-$2"
  rm -rf "$work/store"
}

printf '%12s %10s %10s %10s %8s %8s   %s\n' outstanding rust c go c/rust go/rust 'us: rust c go'
for outstanding in 1 64 1024; do
  for ((round = 0; round < rounds; round++)); do
    for side in rust c go; do measure "$side" "$outstanding"; done
  done
  rust=$(median "$work/rust-$outstanding" 1) c=$(median "$work/c-$outstanding" 1)
  go=$(median "$work/go-$outstanding" 1)
  cpu=$(for side in rust c go; do median "$work/$side-$outstanding" 2; done | tr '\n' ' ')
  awk -v n="$outstanding" -v r="$rust" -v c="$c" -v g="$go" -v cpu="$cpu" \
    'BEGIN { printf "%12d %10d %10d %10d %8.2f %8.2f   %s\n", n, r, c, g, c / r, g / r, cpu }'
done
