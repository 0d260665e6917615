#!/usr/bin/env bash
# Builds and installs the C library: header, shared and static library, pkg-config files.
#
#   install.sh [--prefix DIR] [--libdir NAME] [--destdir DIR] [--profile NAME] [--features LIST]
#
# --prefix   where it will be used from; default /usr/local
# --libdir   the directory of libraries below the prefix; default lib
# --destdir  put in front of the prefix while copying, for packagers
# --profile  the cargo profile to build with; default release
set -euo pipefail
cd "$(dirname "$0")"

prefix=/usr/local libdir=lib destdir='' profile=release features=''
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=$2 ;;
    --libdir) libdir=$2 ;;
    --destdir) destdir=$2 ;;
    --profile) profile=$2 ;;
    --features) features=$2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done

cargo build --quiet -p oncekey-ffi --profile "$profile" --features "$features"
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../Cargo.toml | head -n 1)
abi=$(sed -n 's/^#define ONCEKEY_ABI_VERSION //p' include/oncekey.h)
lib=$destdir$prefix/$libdir

install -d "$destdir$prefix/include" "$lib/pkgconfig"
install -m 644 include/oncekey.h "$destdir$prefix/include/oncekey.h"
install -m 644 "$built/liboncekey_ffi.a" "$lib/liboncekey.a"
case $(uname -s) in
  Darwin)
    install -m 755 "$built/liboncekey_ffi.dylib" "$lib/liboncekey.$abi.dylib"
    ln -sf "liboncekey.$abi.dylib" "$lib/liboncekey.dylib"
    private='-framework CoreFoundation -lSystem -lm'
    ;;
  *)
    install -m 755 "$built/liboncekey_ffi.so" "$lib/liboncekey.so.$abi.0.0"
    ln -sf "liboncekey.so.$abi.0.0" "$lib/liboncekey.so.$abi"
    ln -sf "liboncekey.so.$abi" "$lib/liboncekey.so"
    # What `rustc --print native-static-libs` says the standard library needs.
    private='-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc'
    ;;
esac
for name in oncekey oncekey-static; do
  sed -e "s|@prefix@|$prefix|" -e "s|@libdir@|$libdir|" -e "s|@version@|$version|" \
    -e "s|@private@|$private|" "$name.pc.in" > "$lib/pkgconfig/$name.pc"
done
