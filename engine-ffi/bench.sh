#!/usr/bin/env bash
# Begin + complete pairs through Rust, C and Go, in turns on one machine: medians of pairs a second, what C
# and Go reach of Rust, and medians of the processor time of a pair in microseconds, which a busy machine
# disturbs less. Needs Go on the PATH.
#
#   bench.sh [--write] [ROUNDS] [SECONDS]
#
# --write puts the table into docs/c-api.md.
set -euo pipefail
cd "$(dirname "$0")"

write=
if [ "${1:-}" = --write ]; then write=1; shift; fi
rounds=${1:-5} seconds=${2:-3}
work=$(realpath "$(mktemp -d -p "${ONCEKEY_BENCH_DIR:-../target}")")
trap 'rm -rf "$work"' EXIT

./install.sh --prefix "$work/stage"
cargo build --quiet --release -p oncekey-ffi --example pairs
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export PKG_CONFIG_PATH=$work/stage/lib/pkgconfig LD_LIBRARY_PATH=$work/stage/lib
# shellcheck disable=SC2046
cc -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -o "$work/c" examples/pairs.c $(pkg-config --cflags --libs oncekey)
# A cache of its own, since Go's would link the library that pkg-config named in an earlier run.
(cd go && GOCACHE=$work/go-cache go build -o "$work/go" ./internal/pairs)
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

{
  echo '| outstanding | Rust pairs/s | C | Go | C / Rust | Go / Rust | µs of CPU: Rust | C | Go |'
  echo '|---|---|---|---|---|---|---|---|---|'
} > "$work/table"
for outstanding in 1 64 1024; do
  for ((round = 0; round < rounds; round++)); do
    for side in rust c go; do measure "$side" "$outstanding"; done
  done
  row="| $outstanding"
  for side in rust c go; do row+=" | $(median "$work/$side-$outstanding" 1)"; done
  row+=$(awk -F '[| ]+' '{ printf " | %.2f | %.2f", $4 / $3, $5 / $3 }' <<< "$row")
  for side in rust c go; do row+=" | $(median "$work/$side-$outstanding" 2)"; done
  echo "$row |" >> "$work/table"
done
cat "$work/table"
if [ -n "$write" ]; then
  sed -i -e "/<!-- figures -->/,/<!-- end of figures -->/{//!d}" \
    -e "/<!-- figures -->/r $work/table" ../docs/c-api.md
fi
