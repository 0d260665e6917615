#!/usr/bin/env bash
# Writes include/oncekey.h; with --check says whether it is up to date. Installs the pinned cbindgen
# under target/tools when it is not there.
set -euo pipefail
cd "$(dirname "$0")"

version=0.29.4
tools=../target/tools
if ! "$tools/bin/cbindgen" --version 2> /dev/null | grep -qx "cbindgen $version"; then
  cargo install cbindgen --locked --version "$version" --root "$tools"
fi
generate() { "$tools/bin/cbindgen" --quiet --config cbindgen.toml --output "$1" .; }

if [ "${1:-}" = --check ]; then
  fresh=$(mktemp)
  trap 'rm -f "$fresh"' EXIT
  generate "$fresh"
  diff -u include/oncekey.h "$fresh"
else
  generate include/oncekey.h
fi
