#!/usr/bin/env bash
# Builds Debian packages of this workspace with dpkg-deb alone.
#
#   deb.sh [--out DIR] NAME...
#
# NAME  oncekey, the program with its units; liboncekey, the shared library; liboncekey-dev, what programs are built with
# --out where the packages go; default target/debian
set -euo pipefail
cd -P "$(dirname "$0")/.."

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
multiarch=lib/$(cc -print-multiarch)
out=$target/debian
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The version of the C library that the programs and libraries of this build need: the newest one of their symbols.
needed_libc() {
  local newest
  newest=$(objdump -T "$@" 2> /dev/null | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
  echo "libc6 (>= $newest), libgcc-s1"
}

# pack NAME SECTION DEPENDS SUMMARY DESCRIPTION [MULTI-ARCH]: the tree $work/NAME becomes a package.
pack() {
  local name=$1 tree=$work/$1
  install -d "$tree/DEBIAN" "$tree/usr/share/doc/$name"
  {
    printf 'oncekey is dual licensed, under the MIT licence or the Apache licence 2.0, as its user chooses.\n\n'
    cat LICENSE-MIT
    printf '\nOn Debian the Apache licence 2.0 is in /usr/share/common-licenses/Apache-2.0.\n'
  } > "$tree/usr/share/doc/$name/copyright"
  gzip -9n < CHANGELOG.md > "$tree/usr/share/doc/$name/changelog.gz"
  {
    printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$name" "$version" "$architecture"
    printf 'Maintainer: the oncekey authors <oncekey@users.noreply.github.com>\n'
    printf 'Section: %s\nPriority: optional\nMulti-Arch: %s\n' "$2" "${6:-same}"
    printf 'Homepage: https://github.com/oncekey/oncekey\n'
    printf 'Installed-Size: %s\nDepends: %s\n' "$(du -k -s --apparent-size "$tree" | cut -f 1)" "$3"
    printf 'Description: %s\n %s\n' "$4" "$5"
  } > "$tree/DEBIAN/control"
  (cd "$tree" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
  find "$tree" -type d -exec chmod 755 {} +
  dpkg-deb --root-owner-group -Zxz --build "$tree" "$out/${name}_${version}_$architecture.deb"
}

# The C library as install.sh lays it out, once for both packages.
stage_library() {
  [ -d "$work/library" ] || engine-ffi/install.sh --prefix /usr --libdir "$multiarch" --destdir "$work/library"
}

liboncekey() {
  stage_library
  install -d "$work/liboncekey/usr/$multiarch" "$work/liboncekey/DEBIAN"
  cp -P "$work/library/usr/$multiarch"/liboncekey.so.* "$work/liboncekey/usr/$multiarch/"
  # A shared library must not be executable.
  chmod 644 "$work/liboncekey/usr/$multiarch"/liboncekey.so.*.*
  echo 'activate-noawait ldconfig' > "$work/liboncekey/DEBIAN/triggers"
  local shared
  shared=$(echo "$work/liboncekey/usr/$multiarch"/liboncekey.so.*.*)
  pack liboncekey libs "$(needed_libc "$shared")" "embedded idempotency engine (shared library)" \
    "An operation that is sent twice with the same key runs once, across retries, duplicates and crashes."
}

liboncekey-dev() {
  stage_library
  cp -a "$work/library" "$work/liboncekey-dev"
  rm "$work/liboncekey-dev/usr/$multiarch"/liboncekey.so.*
  pack liboncekey-dev libdevel "liboncekey (= $version)" "embedded idempotency engine (header and static library)" \
    "What C programs are built with: the header, the static library, files for pkg-config and CMake."
}

# With ONCEKEY_PROFILE=dev a debug build, for tests of the package.
oncekey() {
  local profile=${ONCEKEY_PROFILE:-dist} tree=$work/oncekey
  cargo build --profile "$profile" -p oncekey-program
  install -Dm755 "$target/${profile/#dev/debug}/oncekey" "$tree/usr/bin/oncekey"
  # Symbols help only users who debug a build of their own.
  strip --strip-unneeded "$tree/usr/bin/oncekey"
  install -Dm644 packaging/systemd/oncekey.service "$tree/usr/lib/systemd/system/oncekey.service"
  install -Dm644 packaging/systemd/oncekey.socket "$tree/usr/lib/systemd/system/oncekey.socket"
  install -Dm644 packaging/oncekey.toml "$tree/etc/oncekey/oncekey.toml"
  install -Dm644 docs/proxy.md "$tree/usr/share/doc/oncekey/proxy.md"
  install -d "$tree/DEBIAN"
  echo /etc/oncekey/oncekey.toml > "$tree/DEBIAN/conffiles"
  pack oncekey net "$(needed_libc "$tree/usr/bin/oncekey")" "idempotency keys for any HTTP server" \
    "A proxy before an HTTP server: a request that is sent twice with the same key runs once." foreign
}

names=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2; shift ;;
    oncekey | liboncekey | liboncekey-dev) names+=("$1") ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
[ ${#names[@]} -gt 0 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$out"
for name in "${names[@]}"; do "$name"; done
