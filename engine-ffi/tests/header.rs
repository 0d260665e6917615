//! The header, the reference page and the build script say the same as the code. That the header is
//! what cbindgen makes of the code is checked by `generate-header.sh --check`.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Names of functions that are followed by an opening parenthesis.
fn called(text: &str) -> BTreeSet<String> {
    text.match_indices("oncekey_")
        .filter_map(|(at, _)| {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            text[at + name.len()..].starts_with('(').then_some(name)
        })
        .collect()
}

fn exported() -> BTreeSet<String> {
    let sources = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/exports")).unwrap();
    sources
        .flat_map(|source| {
            let text = fs::read_to_string(source.unwrap().path()).unwrap();
            let names: Vec<_> = text
                .split("extern \"C\" fn ")
                .skip(1)
                .map(|rest| rest.split('(').next().unwrap().to_owned())
                .filter(|name| name.starts_with("oncekey_") && name != "oncekey_test_panic_next")
                .collect();
            names
        })
        .collect()
}

#[test]
fn every_function_is_in_the_header_and_has_one_line_in_the_reference() {
    let exported = exported();
    assert!(exported.len() > 35, "{exported:?}");
    let declarations: String = read("include/oncekey.h")
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut declared = called(&declarations);
    // Inline, so not exported.
    assert!(declared.remove("oncekey_str"));
    assert_eq!(declared, exported);

    let page = read("../docs/c-api.md");
    let table = page.split_once("## Functions").unwrap().1;
    let mut documented = called(table);
    assert!(documented.remove("oncekey_str"));
    assert_eq!(documented, exported);
    assert_eq!(table.matches("| `oncekey_").count(), exported.len() + 1);
}

#[test]
fn the_soname_has_the_version_of_the_binary_interface() {
    let version = oncekey_ffi::ONCEKEY_ABI_VERSION;
    assert!(read("build.rs").contains(&format!("liboncekey.so.{version}\"")));
    assert!(read("build.rs").contains(&format!("liboncekey.{version}.dylib\"")));
    assert!(read("Cargo.toml").contains(&format!("version = \"{version}.0.0\"")));
}

/// A status in the place of an outcome compiles; it must not pass for one by its value.
#[test]
fn no_two_constants_share_a_value() {
    let header = include_str!("../include/oncekey.h");
    let mut named = std::collections::BTreeMap::new();
    let defined = header.lines().filter_map(|line| line.strip_prefix("#define ONCEKEY_"));
    for (name, value) in defined.filter_map(|line| line.split_once(' ')) {
        if name.contains("VERSION") {
            continue;
        }
        let other = named.insert(value.parse::<u32>().unwrap(), name);
        assert_eq!(other, None, "{name} is {value}, too");
    }
    assert!(named.len() > 40, "{} constants", named.len());
}
