#!/usr/bin/env bash
# usage: program/tests/console.sh [ROW...]              builds the program and drives its console in a browser
#        program/tests/console.sh pictures docs/console  takes the pictures of docs/operations.md
# Needs a Rust toolchain, Python 3.9 with venv, and npm. Takes playwright from PyPI and, as root, Chromium
# from Debian where there is none. Fails where it cannot run.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
export ONCEKEY_CONSOLE=required CHROMIUM=${CHROMIUM:-/usr/bin/chromium}
if [ ! -x "$CHROMIUM" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; } > /dev/null
fi
python3 -m venv "$target/console-tests/venv"
python="$target/console-tests/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check 'playwright>=1.50'
# A palette makes the pictures a third as large.
[ "${1:-}" != pictures ] || "$python" -m pip install --quiet --disable-pip-version-check pillow
cargo build --quiet -p oncekey-program
"$python" program/tests/console.py "$target/debug/oncekey" "$@"
