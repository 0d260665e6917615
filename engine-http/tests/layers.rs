//! No two files of `engine-http/src` import each other, not even by way of others. What its tests
//! use does not count.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The file without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every module with the names that follow `crate::` in its code.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path());
    let modules = files.map(|path| {
        assert_eq!(path.extension().unwrap(), "rs", "{}", path.display());
        let code = code(&std::fs::read_to_string(&path).unwrap());
        let named = code.split("crate::").skip(1).map(|rest| {
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        });
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), named.collect())
    });
    modules.filter(|(name, _)| name != "lib").collect()
}

/// What is imported is a file: else this test would miss arrows by way of `lib.rs`.
#[test]
fn imports_name_the_file() {
    let imports = imports();
    assert!(imports.len() > 15, "{imports:?}");
    for (from, named) in &imports {
        for name in named {
            assert!(imports.contains_key(name), "{from} imports crate::{name}");
        }
    }
}

#[test]
fn imports_form_no_cycle() {
    let mut left = imports();
    loop {
        let remaining: BTreeSet<_> = left.keys().cloned().collect();
        left.retain(|_, named| named.iter().any(|name| remaining.contains(name)));
        if left.len() == remaining.len() {
            break;
        }
    }
    assert!(left.is_empty(), "in a cycle, or above one: {left:#?}");
}
