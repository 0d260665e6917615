#!/usr/bin/env bash
# Checks the pages (links, names, what runs each snippet), and what they hand to other programs: the OpenAPI document
# and the schema of refusals, against a running service; the alert rules and the dashboard, against the list of
# metrics. Needs Python with venv; takes the checkers from PyPI and promtool from Debian's package when it is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 docs/pages.py
python3 docs/monitoring/generate.py --check
promtool=$(command -v promtool || true)
if [ -z "$promtool" ] && command -v apt-get > /dev/null; then
  (cd "$work" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
    && dpkg -x prometheus_*.deb prometheus)
  promtool="$work/prometheus/usr/bin/promtool"
fi
if [ -n "$promtool" ]; then
  "$promtool" check rules docs/monitoring/oncekey-alerts.yml
  "$promtool" test rules docs/monitoring/oncekey-alerts.test.yml
else
  echo "left out: promtool is neither installed nor a package of this system"
fi

cargo build -p oncekey-examples --bin orders
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'openapi-spec-validator>=0.7,<0.9' 'jsonschema>=4.20,<5' pyyaml
"$work/venv/bin/python" docs/openapi/check.py "${CARGO_TARGET_DIR:-target}/debug/orders"
echo "docs: the OpenAPI document, the schema, the alert rules and the dashboard hold"
