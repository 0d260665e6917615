#!/usr/bin/env bash
# Does what docs/c-api.md says to users of the Go package, with the modules of a release in a proxy of files: in a
# directory of its own, with a Go and a C compiler on the PATH, and neither Rust nor pkg-config. Needs Go on the PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."

repository=$PWD
page=$repository/docs/c-api.md
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

. engine-ffi/tests/page.sh

block "commands: Go modules" > "$work/release.sh"
"$BASH" -e "$work/release.sh"
modules=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/go-modules

mkdir -p "$work/bin" "$work/home" "$work/order"
for tool in gcc as ld; do ln -s "$(command -v "$tool")" "$work/bin/$tool"; done
ln -s "$(readlink -f "$(command -v go)")" "$work/bin/go"
bash=$(command -v bash)
# A machine on which nothing was installed or built before.
stranger() {
  (cd "$work/order" && env -i "PATH=$work/bin" "HOME=$work/home" "GOROOT=$(go env GOROOT)" GOTOOLCHAIN=local GOSUMDB=off \
    "GOPROXY=file://$modules/proxy" "$@")
}
for tool in cargo rustc pkg-config; do
  ! stranger "$bash" -c "command -v $tool" || fail "$tool is on the PATH"
done

{
  printf 'package main\n\nimport (\n\t"context"\n\t"fmt"\n\t"log"\n\t"net/http"\n\n'
  printf '\toncekey "github.com/oncekey/oncekey/engine-ffi/go"\n\t"github.com/oncekey/oncekey/engine-ffi/go/oncekeyhttp"\n)\n\n'
  printf 'var _ http.Handler = oncekeyhttp.New(nil, oncekeyhttp.Options{}).Wrap(http.NotFoundHandler())\n\n'
  printf 'func run(ctx context.Context) error {\n'
  block "quick start: Go"
  printf '}\n\nfunc main() {\n\tif err := run(context.Background()); err != nil {\n\t\tlog.Fatal(err)\n\t}\n}\n'
} > "$work/order/main.go"
block "commands: Go" > "$work/commands.sh"
stranger "$bash" -e "$work/commands.sh"
again=$(stranger ./order)
[ "$again" = "give this again: 201 created" ] || fail "the second run says: $again"

stranger CGO_ENABLED=0 go build -o without . 2> "$work/said" && fail "it was built without cgo"
grep -q 'the package oncekey needs cgo: build with CGO_ENABLED=1' "$work/said" || { cat "$work/said"; fail "no word about cgo"; }

# A vendored copy of the modules needs nothing else.
stranger go mod vendor
stranger go build -o vendored .
[ "$(stranger ./vendored)" = "$again" ] || fail "vendored it says otherwise"
# From a clone, with the library that pkg-config finds.
installed=$(pkg-config --variable=prefix oncekey)
mkdir "$work/cloned" "$work/cloner"
ln -s "$installed" "$work/cloner/.local"
ln -s "$repository" "$work/oncekey"
cp "$work/order/main.go" "$work/cloned/"
block "commands: Go from a clone" > "$work/clone.sh"
(cd "$work/cloned" && env "HOME=$work/cloner" "GOPATH=$work/home/go" GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local "$bash" -e "$work/clone.sh")
again=$(cd "$work/cloned" && ./order)
[ "$again" = "give this again: 201 created" ] || fail "from a clone the second run says: $again"
echo "the Go modules: passed"
