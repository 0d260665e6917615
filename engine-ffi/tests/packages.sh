#!/usr/bin/env bash
# Does what docs/c-api.md says to users of the C library, command by command, in directories of its own:
# install, link both libraries, CMake, the Debian packages in a clean root. Needs valgrind, CMake and
# pkg-config; as root dpkg installs the packages, else they are unpacked.
set -euo pipefail
cd "$(dirname "$0")/../.."

repository=$PWD
page=docs/c-api.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Rust stays where it is while HOME moves.
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
export HOME=$work/home
mkdir "$HOME"

. engine-ffi/tests/page.sh

# A command of the page is found from the root of the clone, and works in a directory of its own.
for name in engine-ffi packaging; do ln -s "$repository/$name" "$work/$name"; done
commands() {
  printf '+ %s\n' "$1"
  block "commands: $1" > "$work/commands.sh"
  # shellcheck source=/dev/null
  . "$work/commands.sh"
}

# linked PROGRAM SHARED: whether the loader is asked for the shared library.
linked() {
  local asked=no
  ! objdump -p "$1" | grep -q 'NEEDED *liboncekey' || asked=yes
  [ "$asked" = "$2" ] || fail "$1: asks for the shared library: $asked"
}

# runs PROGRAM: the first run executes, the second replays, neither leaks.
runs() {
  local expected directory program
  program=$(realpath "$1")
  directory=$(mktemp -d "$work/run.XXXXXX")
  for expected in 'executed' 'give this again: 201 created'; do
    [ "$(cd "$directory" && "$program")" = "$expected" ] || fail "$1 says otherwise than: $expected"
  done
  # A program that is static altogether has no malloc that valgrind could replace.
  if [ "${2:-}" != alone ]; then
    rm -r "$directory/idempotency"
    for _ in executed replayed; do
      (cd "$directory" && valgrind --quiet --error-exitcode=9 --leak-check=full --fair-sched=yes \
        --errors-for-leak-kinds=definite,indirect --show-leak-kinds=definite,indirect "$program" > /dev/null)
    done
  fi
  rm -r "$directory"
}

# The commands of the page as they are. They share one store, so that the later ones replay.
cd "$work"
page=$repository/$page
block "quick start: C" > order.c
commands install | tee out
grep -q 'link programs with -Wl,-rpath' out || fail "install.sh does not say how the library is found"
engine-ffi/install.sh --prefix relative > /dev/null
grep -qx "prefix=$work/relative" relative/lib/pkgconfig/oncekey.pc || fail "a relative prefix is not the caller's"
export PKG_CONFIG_PATH="$HOME/.local/lib/pkgconfig"
linked order yes && runs order
# The two lines of the README, with another prefix.
(
  sed -n '/^## From C$/,/^## /p' "$repository/README.md" | sed -n '/^```sh$/,/^```$/p' | sed "1d;\$d;s|/usr/local|$work/short|" > readme.sh
  grep -q install.sh readme.sh || fail "the README says nothing of C"
  export PKG_CONFIG_PATH=$work/short/lib/pkgconfig
  . ./readme.sh > /dev/null
  linked a.out yes
)
commands static
linked order-static no && runs order-static
linked order-alone no && runs order-alone alone

mkdir cmake && cp order.c cmake/ && cd cmake
block "quick start: CMake" > CMakeLists.txt
commands CMake
linked build/order yes && runs build/order
linked build/order-static no && runs build/order-static
sed 's/oncekey 0.1/oncekey 0.2/' -i CMakeLists.txt
! cmake -S . -B other -DCMAKE_PREFIX_PATH="$HOME/.local" > /dev/null 2>&1 || fail "CMake took 0.1 for 0.2"
cd ..

size=$(stat -L -c %s "$HOME/.local/lib/liboncekey.so")
[ "$size" -lt 6000000 ] || fail "the shared library has $size bytes"

# A root with nothing in it but the records of dpkg. The dependencies of the packages are taken for granted.
root=$work/root
mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/etc"
touch "$root/var/lib/dpkg/status"
sudo() { "$@"; }
apt-get() {
  [ "$1" = install ] && shift
  if [ "$(id -u)" = 0 ]; then
    dpkg --root="$root" --log="$work/dpkg.log" --force-depends -i "$@" 2> "$work/dpkg.err" \
      || { cat "$work/dpkg.err" >&2; return 1; }
  else
    for package in "$@"; do dpkg-deb -x "$package" "$root"; done
  fi
}
mkdir target
ln -s "$(cd "$repository" && cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/debian" target/debian
rm -rf target/debian/*.deb
commands Debian
libraries=$root/usr/lib/$(cc -print-multiarch)
echo "/usr/lib/$(cc -print-multiarch)" > "$root/etc/ld.so.conf"
ldconfig -r "$root"
ldconfig -r "$root" -p | grep -q 'liboncekey\.so\.1 ' || fail "the loader does not find the installed library"
unset PKG_CONFIG_PATH
export PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_LIBDIR=$libraries/pkgconfig
cc -o packaged order.c $(pkg-config --cflags --libs oncekey)
linked packaged yes
LD_LIBRARY_PATH=$libraries runs packaged
cc -o packaged-static order.c $(pkg-config --static --cflags --libs oncekey)
linked packaged-static no && runs packaged-static
if [ "$(id -u)" = 0 ]; then
  dpkg --root="$root" --log="$work/dpkg.log" -r liboncekey-dev liboncekey > /dev/null
  [ -z "$(find "$root/usr" -name '*oncekey*')" ] || fail "removed packages leave files behind"
fi
echo "packages: passed"
