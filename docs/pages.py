#!/usr/bin/env python3
"""Checks what the pages point at: each link leads somewhere, each file, test and target of cargo that is named is
there, and each snippet is run, or is listed below with the reason why nothing runs it.

    docs/pages.py          checks
    docs/pages.py --list   prints each snippet and what runs it
"""
import json, os, re, subprocess, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
FILES = subprocess.check_output(["git", "ls-files"], text=True).split()
PAGES = [name for name in FILES if name.endswith(".md") and name != "CHANGELOG.md"]
SOURCES = [name for name in FILES if name.endswith((".rs", ".go", ".py", ".c", ".sh", ".mjs")) or name.startswith(".ci/")]
read = lambda name: open(name, encoding="utf-8", errors="replace").read()

# A marker before a snippet, or how the snippet begins, and the file that runs it, which has the words behind the colon.
RUN_BY = {
    "README.md": {
        "the first look": ".ci/first_minutes: the first look",
        "dependencies": ".ci/packages: <!-- dependencies -->",
        "until the release": ".ci/packages: <!-- until the release -->",
        "quick start": ".ci/packages: <!-- quick start -->",
        "quick start curl": ".ci/packages: quick start curl",
        "the proxy": ".ci/proxy_command: the proxy",
        "the demo": ".ci/demo: the demo",
        "program/tests/accept.sh A16": ".ci/run: program/tests/accept.sh A16",
        "engine-ffi/install.sh": "engine-ffi/tests/packages.sh: ## From C",
        "cargo run --release -p oncekey-benches --bin load": ".ci/run: cargo run --release -p oncekey-benches --bin load",
        "cargo run --release -p oncekey-http --example kill_load": 'engine-http/tests/http/examples.rs: example("kill_load")',
        "the test command": ".ci/run: the test command",
    },
    "docs/c-api.md": {
        "quick start: C": "engine-ffi/tests/packages.sh: quick start: C",
        "commands: install": "engine-ffi/tests/packages.sh: commands install",
        "commands: static": "engine-ffi/tests/packages.sh: commands static",
        "quick start: CMake": "engine-ffi/tests/packages.sh: quick start: CMake",
        "commands: CMake": "engine-ffi/tests/packages.sh: commands CMake",
        "commands: Debian": "engine-ffi/tests/packages.sh: commands Debian",
        "quick start: Go": "engine-ffi/go/quickstart_test.go: quick start: Go",
        "commands: Go": "engine-ffi/tests/go_module.sh: commands: Go",
        "commands: Go modules": "engine-ffi/tests/go_module.sh: commands: Go modules",
        "commands: Go from a clone": "engine-ffi/tests/go_module.sh: commands: Go from a clone",
    },
    "docs/clients.md": {
        f"run: {kind}": f'clients/test/snippets.py: "{kind}"' for kind in ("js", "python", "go", "axios", "tenacity")
    },
    "docs/commands.md": {
        "files": 'program/tests/commands/page.rs: documented("files")',
        "files, with jq": 'program/tests/commands/page.rs: documented("files, with jq")',
        "server": 'program/tests/commands/page.rs: documented("server")',
    },
    "docs/proxy.md": {
        "cargo run --release -p oncekey-program -- proxy": ".ci/proxy_command: the proxy",
        "oncekey.toml:31:1:": "program/src/config/file.rs: unknown field `give_up_afer`",
        "# Every value is the default": "program/src/config/file.rs: the_page_names_every_field_and_its_default",
        '{"ts":': "program/tests/accept/telemetry.py: PAGE",
    },
    "docs/operations.md": {"[traces]": "program/tests/otel/main.rs: fn page"},
    "docs/questions.md": {"#[global_allocator]": "program/src/main.rs: static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;"},
    "docs/testing.md": {
        "dependencies of the test": ".ci/packages: dependencies of the test",
        "the test": ".ci/packages: <!-- the test -->",
    },
    "program/README.md": {"oncekey proxy": ".ci/demo: oncekey proxy"},
    "docs/http.md": {'{"type":"about:blank"': "engine-ffi/tests/vectors/refusals.json: idempotency_key_locked"},
    "docs/fleet.md": {"ALTER ROLE": "engine-postgres/tests/common/modes.rs: ALTER ROLE app"},
}
NOT_RUN = {
    "docs/architecture.md": {"lib.rs": "a picture", "caller": "a picture"},
    "docs/concepts.md": {"begin": "a picture"},
    "docs/proxy.md": {"right:": "a picture"},
    "docs/formats.md": {"block 0": "a layout", "record": "a layout", "run": "a layout"},
    "docs/fleet.md": {"cargo test -p oncekey --lib fleet": "campaigns of hours; CI runs a slice of each"},
    "docs/benchmarks.md": {"cd benches/compare": "hours on an idle machine"},
    "benches/compare/README.md": {"apt-get install": "hours on an idle machine"},
}


def doctests():
    """The pages whose Rust snippets are tests of a crate."""
    found = {}
    for source in SOURCES:
        if source.endswith(".rs"):
            for page in re.findall(r'#!?\[doc = include_str!\("([^"]+\.md)"\)\]', read(source)):
                found[os.path.normpath(os.path.join(os.path.dirname(source), page))] = source
    return found


def snippets(text):
    """(line, language, marker, code) of each block of a page."""
    lines, inside = text.split("\n"), None
    for at, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if inside is None:
            inside = at
            marker = re.fullmatch(r"<!-- (.*) -->", lines[at - 1].strip())
        else:
            language = lines[inside].strip().lstrip("`")
            yield inside + 1, language, marker and marker.group(1), "\n".join(lines[inside + 1:at]).strip()
            inside = None


def runners(page, text, tested):
    """What runs each snippet of a page, or the mistakes."""
    for line, language, marker, code in snippets(text):
        where = f"{page}:{line}"
        if language.split(",")[0] == "rust" and "ignore" not in language and page in tested:
            yield where, "a doctest of " + tested[page].split("/src")[0]
            continue
        fits = lambda table: next((by for key, by in table.get(page, {}).items() if marker == key or code.startswith(key)), None)
        by = fits(RUN_BY)
        if by is None:
            reason = fits(NOT_RUN)
            yield where, f"nothing: {reason}" if reason else None
            continue
        runner, needle = by.split(": ", 1)
        yield where, runner if os.path.exists(runner) and needle in read(runner) else None


def anchors(page):
    text = re.sub(r"```.*?```", "", read(page), flags=re.S)
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def broken_links(page, text):
    for link in re.findall(r'(?:\]\(|href="|src="|srcset=")([^)"\s]+)[)"]', text):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        name = os.path.normpath(os.path.join(os.path.dirname(page), name)) if name else page
        if not os.path.exists(name):
            yield f"{page}: {link} is not there"
        elif anchor and name.endswith(".md") and anchor not in anchors(name):
            yield f"{page}: {link}: no such heading"


# Files of the reader, and of stores.
ELSEWHERE = {"order.c", "main.go", "oncekey.toml"}


def missing_names(page, text, sources):
    for word in re.findall(r"`([^`\n]+)`", text):
        if re.fullmatch(r"[a-z]\w*_\w*…", word) and not re.search(r"\b(fn|def) " + word[:-1], sources):
            yield f"{page}: no test {word}"
        file = re.fullmatch(r"(?:\./)?([\w.-]+(?:/[\w.-]+)*\.(?:rs|go|py|sh|c|md|yml))", word)
        if file and word not in ELSEWHERE and not any(f"/{name}".endswith("/" + file.group(1)) for name in FILES):
            yield f"{page}: no file {word}"


def missing_targets(page, text, packages):
    for command in re.findall(r"cargo (?:test|run|bench|build)\b[^`\n|]*", text):
        for name in re.findall(r"-p (oncekey[\w-]*)", command):
            if name not in packages:
                yield f"{page}: no package {name}: {command}"
                continue
            for kind, target in re.findall(r"--(test|bin|example|bench) ([\w-]+)", command):
                if (kind, target) not in packages[name]:
                    yield f"{page}: no {kind} {target} of {name}: {command}"


def main():
    tested = doctests()
    metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--no-deps"]))
    packages = {of["name"]: {(kind, target["name"]) for target in of["targets"] for kind in target["kind"]} for of in metadata["packages"]}
    sources = "\n".join(map(read, SOURCES))
    mistakes, count = [], 0
    for page in PAGES:
        text = read(page)
        for where, by in runners(page, text, tested):
            count += 1
            if by is None:
                mistakes.append(f"{where}: nothing runs this snippet; see docs/pages.py")
            elif "--list" in sys.argv:
                print(f"{where}: {by}")
        prose = re.sub(r"^\s*```.*?^\s*```$", "", text, flags=re.S | re.M)
        mistakes += broken_links(page, prose)
        mistakes += missing_names(page, prose, sources)
        mistakes += missing_targets(page, text, packages)
    print("\n".join(mistakes), file=sys.stderr)
    if mistakes:
        sys.exit(1)
    print(f"docs: {len(PAGES)} pages lead where they say, {count} snippets are run or say why not")


main()
