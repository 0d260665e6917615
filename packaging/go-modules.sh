#!/usr/bin/env bash
# Makes the Go modules of a release: the package, and for each platform a module with the static library, so that
# users of the package need neither Rust nor pkg-config.
#
#   go-modules.sh [--version vN.N.N] [--out DIR] [--library OS-ARCH=FILE]...
#
# --version  default that of the workspace
# --out      default target/go-modules: the trees of the modules below tree/, and the same as a module proxy below
#            proxy/, for GOPROXY=file://DIR/proxy or any web server
# --library  a liboncekey.a that was built for another platform, as OS and ARCH are called by Go; that of this machine
#            is built here. There, with a clone of the same commit:
#            engine-ffi/install.sh --prefix "$PWD/stage", which leaves it in stage/lib
set -euo pipefail
cd -P "$(dirname "$0")/.."

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
version=v$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
out=$target/go-modules
declare -A libraries
while [ $# -gt 0 ]; do
  case $1 in
    --version) version=$2 ;;
    --out) out=$2 ;;
    --library) libraries[${2%%=*}]=${2#*=} ;;
    *) usage ;;
  esac
  shift 2
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
if [ -z "${libraries[$here]:-}" ]; then
  engine-ffi/install.sh --prefix /usr --destdir "$work/stage"
  libraries[$here]=$work/stage/usr/lib/liboncekey.a
fi

module=$(sed -n 's/^module //p' engine-ffi/go/go.mod)
go=$(sed -n 's/^go //p' engine-ffi/go/go.mod)
rm -rf "$out"
package=$out/tree/$module
mkdir -p "$package"
# Tests and their internal packages read files outside of the module, so they stay out. Examples are documentation.
(cd engine-ffi/go && find . \( -name '*.go' -o -name '*.h' \) \( -name 'example*_test.go' -o ! -name '*_test.go' \) \
  ! -path '*/internal/pairs/*' ! -path '*/internal/drive/*' ! -path '*/internal/teststore/*' -print0 | xargs -0 cp --parents -t "$package")
cp engine-ffi/include/oncekey.h LICENSE-MIT LICENSE-APACHE "$package/"

prebuilt=''
{
  printf 'module %s\n\ngo %s\n' "$module" "$go"
  printf '\nrequire (\n'
  for platform in $(printf '%s\n' "${!libraries[@]}" | sort); do
    printf '\t%s/lib/%s %s\n' "$module" "$platform" "$version"
  done
  printf ')\n'
} > "$package/go.mod"

for platform in "${!libraries[@]}"; do
  os=${platform%-*} arch=${platform#*-}
  prebuilt+="${prebuilt:+ || }$os && $arch"
  case $os in
    linux) system='-lutil -lrt -lpthread -lm -ldl' ;;
    darwin) system='-framework CoreFoundation -lm' ;;
    *) echo "no static library is known for $os" >&2; exit 2 ;;
  esac
  library=$package/lib/$platform
  mkdir -p "$library"
  cp "${libraries[$platform]}" "$library/liboncekey.a"
  cp LICENSE-MIT LICENSE-APACHE "$library/"
  printf 'module %s/lib/%s\n\ngo %s\n' "$module" "$platform" "$go" > "$library/go.mod"
  cat > "$library/lib.go" << END
// Package lib is the C library liboncekey for $os on $arch, linked statically.
package lib

// #cgo LDFLAGS: \${SRCDIR}/liboncekey.a $system
import "C"
END
  cat > "$package/link_prebuilt_${os}_$arch.go" << END
//go:build !oncekey_shared && !oncekey_static

package oncekey

// #cgo CFLAGS: -I\${SRCDIR}
import "C"

import _ "$module/lib/$platform"
END
done
# On other platforms, and on demand, the library that pkg-config finds.
{
  echo "//go:build oncekey_shared || !oncekey_static && !($prebuilt)"
  tail -n +2 engine-ffi/go/link_shared.go
} > "$package/link_shared.go"

python3 - "$out" "$module" "$version" "${!libraries[@]}" << 'END'
import json, pathlib, sys, zipfile

out, module, version, *platforms = sys.argv[1:]
modules = [module] + [f"{module}/lib/{platform}" for platform in platforms]
for path in modules:
    tree = pathlib.Path(out, "tree", path)
    proxy = pathlib.Path(out, "proxy", path, "@v")
    proxy.mkdir(parents=True)
    # Directories with a go.mod of their own are other modules.
    inner = [other.parent for other in tree.glob("**/go.mod") if other.parent != tree]
    with zipfile.ZipFile(proxy / f"{version}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(tree.rglob("*")):
            if file.is_file() and not any(directory in file.parents for directory in inner):
                # One time for all files: the same release has the same checksum.
                entry = zipfile.ZipInfo(f"{path}@{version}/{file.relative_to(tree)}")
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    (proxy / f"{version}.mod").write_bytes((tree / "go.mod").read_bytes())
    (proxy / f"{version}.info").write_text(json.dumps({"Version": version}))
    (proxy / "list").write_text(version + "\n")
    print(f"{path} {version}: {(proxy / f'{version}.zip').stat().st_size / 1e6:.1f} MB")
END
