#!/usr/bin/env bash
# Runs every fuzz target for some seconds: `fuzz/ci.sh` for 10 each, `fuzz/ci.sh 3600` for an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10}
# libFuzzer's instrumentation is unstable; this lets the stable compiler take it.
export RUSTC_BOOTSTRAP=1
command -v cargo-fuzz > /dev/null || cargo install cargo-fuzz --locked
for target in decoders journal directory model config headers; do
    printf '\n== %s\n' "$target"
    # redb leaks a database when it panics over damage, so each run is a process of its own.
    fork=$([ "$target" = directory ] && echo -fork=1 || true)
    # The fuzzer writes its finds to the first directory, which is not committed.
    mkdir -p "fuzz/target/corpus/$target"
    cargo fuzz run --sanitizer none "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 $fork 2>&1 \
        | grep -Ev '^(thread|note:|injected|$)' | tail -n 25
done
