#!/usr/bin/env bash
# Builds and installs the C library: header, shared and static library, pkg-config and CMake files.
#
#   install.sh [--prefix DIR] [--libdir NAME] [--destdir DIR] [--profile NAME] [--features LIST] [--symbols keep|strip]
#     [--control-socket yes|no]
#
# --prefix   the directory that it will be used from; default /usr/local
# --libdir   the directory of libraries below the prefix; default lib
# --destdir  put in front of the prefix while copying, for packagers
# --profile  the cargo profile to build with; default release
# --symbols  keep: with debug symbols, about 6 times as large; default strip
# --control-socket  no: the library refuses oncekey_engine_control_socket, and is 1.9 MB smaller; default yes
set -euo pipefail

prefix=/usr/local libdir=lib destdir='' profile=release features='' symbols=strip control=yes
while [ $# -gt 0 ]; do
  case $1 in
    --prefix) prefix=$2 ;;
    --libdir) libdir=$2 ;;
    --destdir) destdir=$2 ;;
    --profile) profile=$2 ;;
    --features) features=$2 ;;
    --symbols) symbols=$2 ;;
    --control-socket) control=$2 ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
# The files that are installed name these places, and a relative one is the caller's.
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
case $destdir in '' | /*) ;; *) destdir=$PWD/$destdir ;; esac
cd "$(dirname "$0")"

[ "$control" = yes ] && leave_out='' || leave_out=--no-default-features
cargo build --quiet -p oncekey-ffi --profile "$profile" --features "$features" ${leave_out:+"$leave_out"}
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../Cargo.toml | head -n 1)
abi=$(sed -n 's/^#define ONCEKEY_ABI_VERSION //p' include/oncekey.h)
lib=$destdir$prefix/$libdir


# Debug symbols go; the names that programs link against stay.
lean() {
  [ "$symbols" = keep ] || case $(uname -s).$1 in
    Darwin.*) strip -S "$1" ;;
    *.a) strip --strip-debug "$1" ;;
    *) strip --strip-unneeded "$1" ;;
  esac
}

install -d "$destdir$prefix/include" "$lib/pkgconfig" "$lib/cmake/oncekey"
install -m 644 include/oncekey.h "$destdir$prefix/include/oncekey.h"
install -m 644 "$built/liboncekey_ffi.a" "$lib/liboncekey.a"
lean "$lib/liboncekey.a"
# A directory with the archive alone, which pkg-config --static names first: where both libraries lie side by side,
# the linker would take the shared one.
install -d "$lib/oncekey"
ln -sf ../liboncekey.a "$lib/oncekey/liboncekey.a"
case $(uname -s) in
  Darwin)
    shared=liboncekey.$abi.dylib
    install -m 755 "$built/liboncekey_ffi.dylib" "$lib/$shared"
    ln -sf "$shared" "$lib/liboncekey.dylib"
    private='-framework CoreFoundation -lSystem -lm'
    ;;
  *)
    shared=liboncekey.so.$abi
    install -m 755 "$built/liboncekey_ffi.so" "$lib/$shared.0.0"
    ln -sf "$shared.0.0" "$lib/$shared"
    ln -sf "$shared" "$lib/liboncekey.so"
    # `rustc --print native-static-libs` names these, and libgcc_s, which every C compiler links by itself,
    # as libgcc_eh when it links a program that is static.
    private='-lutil -lrt -lpthread -lm -ldl -lc'
    ;;
esac
lean "$lib/$shared"
up=$(sed 's|[^/][^/]*|..|g' <<< "$libdir")/../..
fill() {
  sed -e "s|@prefix@|$prefix|" -e "s|@libdir@|$libdir|" -e "s|@version@|$version|" -e "s|@up@|$up|" \
    -e "s|@shared@|$shared|" -e "s|@private@|$private|" "$1.in" > "$2/$1"
}
for name in oncekey oncekey-static; do fill "$name.pc" "$lib/pkgconfig"; done
for name in oncekey-config oncekey-config-version; do fill "$name.cmake" "$lib/cmake/oncekey"; done

# A program finds the installed library only if the loader looks in this directory.
[ -z "$destdir" ] && [ "$(uname -s)" = Linux ] || exit 0
if ldconfig -v -N 2> /dev/null | grep -q "^$prefix/$libdir:"; then
  echo "installed in $prefix; run 'ldconfig' as root once, so that programs find $shared"
else
  echo "installed in $prefix, where the loader does not look: link programs with -Wl,-rpath,$prefix/$libdir," \
    "or add $prefix/$libdir to /etc/ld.so.conf.d and run 'ldconfig' as root"
  echo "pkg-config finds it with PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig, CMake with CMAKE_PREFIX_PATH=$prefix"
fi
