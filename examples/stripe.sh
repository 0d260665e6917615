#!/usr/bin/env bash
# Runs the client library of Stripe against the charges service. Needs Python with venv; installs the library
# from PyPI into a directory that is removed again.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build -p oncekey-examples --bin charges
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'stripe==16.1.0'
"$work/venv/bin/python" examples/stripe_client.py "${CARGO_TARGET_DIR:-target}/debug/charges"
