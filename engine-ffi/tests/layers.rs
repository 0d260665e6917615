//! The arrows between the folders of `engine-ffi/src` point downward, and files form no circle.
//!
//! The crate's documentation says what each folder is for. The tests of a file may look anywhere.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each folder may use those before it.
const FOLDERS: [&str; 5] = ["abi", "boundary", "objects", "completion", "exports"];

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The file without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The code of every file in a folder, by its module: `abi::types`.
fn files() -> BTreeMap<String, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    for folder in std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path()) {
        if !folder.is_dir() {
            continue;
        }
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(&source).unwrap().with_extension("");
            let module = name.to_str().unwrap().trim_end_matches("/mod").replace('/', "::");
            files.insert(module, code(&std::fs::read_to_string(&path).unwrap()));
        }
    }
    files
}

/// Every module with the modules that its code names by a `crate::` path.
fn imports() -> Imports {
    let files = files();
    files.iter().map(|(module, text)| (module.clone(), named(text, &files))).collect()
}

fn named(text: &str, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let module = |rest: &str| {
        let path: String =
            rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
        let parts: Vec<_> = path.split("::").collect();
        (1..=parts.len()).rev().map(|n| parts[..n].join("::")).find(|m| files.contains_key(m))
    };
    text.split("crate::").skip(1).filter_map(module).collect()
}

fn level(module: &str) -> usize {
    let folder = module.split("::").next().unwrap();
    FOLDERS.iter().position(|known| *known == folder).expect("a folder has its place in the list")
}

#[test]
fn arrows_point_downward() {
    let mut upward = Vec::new();
    for (from, to) in imports() {
        upward.extend(
            to.iter().filter(|to| level(to) > level(&from)).map(|to| (from.clone(), to.clone())),
        );
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn no_files_import_each_other_directly_or_in_a_circle() {
    let mut left = imports();
    for (module, to) in &mut left {
        to.remove(module);
    }
    // Files that import nothing that is left are in no circle.
    while let Some(leaf) = left.iter().find(|(_, to)| to.is_empty()).map(|(leaf, _)| leaf.clone()) {
        left.remove(&leaf);
        for to in left.values_mut() {
            to.remove(&leaf);
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn functions_are_exported_by_the_exports_alone_and_pointers_are_read_by_the_boundary_alone() {
    for (module, code) in files() {
        let exported = code.contains("#[unsafe(no_mangle)]");
        assert!(!exported || module.starts_with("exports::"), "{module} exports a function");
        let pointers = ["from_raw_parts", ".as_ref() }", "read_unaligned", "write_bytes"];
        let read = pointers.iter().any(|way| code.contains(way));
        assert!(!read || module == "boundary::convert", "{module} reads through a pointer");
    }
}
