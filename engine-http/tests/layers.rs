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

/// Every file with its module: `policy`, and `admin::desk` in a folder.
fn files() -> BTreeMap<String, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            assert_eq!(path.extension().unwrap(), "rs", "{}", path.display());
            let name = path.strip_prefix(&source).unwrap().with_extension("");
            let module = name.to_str().unwrap().trim_end_matches("/mod").replace('/', "::");
            files.insert(module, code(&std::fs::read_to_string(&path).unwrap()));
        }
    }
    files
}

/// The names that follow `prefix` in the code, as far as they are those of modules or folders.
fn named(code: &str, prefix: &str, base: &str) -> BTreeSet<String> {
    let name = |rest: &str| {
        let path = rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c));
        let path: String = path.collect();
        let first = path.split("::").next().unwrap_or_default();
        if base.is_empty() { first.to_owned() } else { format!("{base}::{first}") }
    };
    code.split(prefix).skip(1).map(name).collect()
}

/// Every module with those that its code imports: `crate::policy`, and `super::desk` in a folder.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let files = files();
    let folders: BTreeSet<_> =
        files.keys().filter_map(|module| Some(module.split_once("::")?.0.to_owned())).collect();
    let imports = files.into_iter().map(|(module, code)| {
        let mut all = named(&code, "crate::", "");
        if let Some((folder, _)) = module.split_once("::") {
            all.extend(named(&code, "super::", folder));
        } else if folders.contains(&module) {
            // The `mod.rs` of a folder declares its files.
            all.extend(named(&code, "\nmod ", &module));
        }
        (module, all)
    });
    imports.filter(|(name, _)| name != "lib").collect()
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
