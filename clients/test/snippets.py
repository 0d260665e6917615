#!/usr/bin/env python3
"""Runs the snippets of docs/clients.md that are marked `<!-- run: … -->`; the Rust one is a doctest.
usage: snippets.py SHOP SCRATCH. SCRATCH is a directory whose node_modules and Python have the imported packages."""
import os, re, shutil, subprocess, sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent
GO = CLIENTS.parent / "engine-ffi" / "go"
sys.argv, (shop_command, scratch) = sys.argv[:1], sys.argv[1:]
scratch = Path(scratch).resolve()
GO_MAIN = """package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/oncekey/oncekey/engine-ffi/go/oncekeyclient"
)

func order() error {
%s	return nil
}

func main() {
	if err := order(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


def go(code):
    # Inside the module, where Go finds the package. `./...` ignores a name that begins with _.
    directory = GO / "oncekeyclient" / "internal" / "_snippet"
    directory.mkdir(exist_ok=True)
    try:
        (directory / "main.go").write_text(GO_MAIN % code)
        return subprocess.run(["go", "run", "main.go"], cwd=directory, text=True, stdout=subprocess.PIPE,
                              env={**os.environ, "CGO_ENABLED": "0"})
    finally:
        shutil.rmtree(directory)


def script(name, command):
    def run(code):
        (scratch / name).write_text(code)
        return subprocess.run([command, name], cwd=scratch, text=True, stdout=subprocess.PIPE)
    return run


RUN = {"js": script("snippet.mjs", "node"), "axios": script("axios.mjs", "node"), "go": go,
       "python": script("snippet.py", sys.executable), "tenacity": script("with_tenacity.py", sys.executable)}

sys.path.insert(0, str(HERE))
from shop import Shop

page = (CLIENTS.parent / "docs" / "clients.md").read_text()
snippets = re.findall(r"<!-- run: (\w+) -->\n```\w+\n(.*?)```", page, re.S)
blocks = len(re.findall(r"^```\w+$", page, re.M))
assert blocks == len(snippets) + len(re.findall("^```rust$", page, re.M)), "a snippet that nothing runs"
assert {kind for kind, _ in snippets} == set(RUN), "a kind that the page does not have"
for helper in ("js/oncekey.mjs", "python/oncekey.py"):
    shutil.copy(CLIENTS / helper, scratch)
shop = Shop(shop_command)
try:
    for runs, (kind, code) in enumerate(snippets):
        done = RUN[kind](code.replace("http://localhost:8080", shop.url))
        ordered = done.returncode == 0 and "ordered" in done.stdout and len(shop.executed()) == runs + 1
        if not ordered:
            raise SystemExit(f"clients: the {kind} snippet of docs/clients.md fails: {done}")
        print(f"clients: the {kind} snippet of docs/clients.md")
finally:
    shop.process.kill()
