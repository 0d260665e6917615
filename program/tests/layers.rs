//! The arrows between the folders of `program/src` point downward, and no two files import each other.
//!
//! docs/architecture.md tells what each is for. The tests of a file may look anywhere.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each folder with those that it may use.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("base", &[]),
    ("report", &["base"]),
    ("config", &["base"]),
    ("wire", &["report", "base"]),
    ("upstream", &["wire", "report", "config", "base"]),
    ("front", &["upstream", "wire", "report", "config", "base"]),
    ("life", &["front", "upstream", "wire", "report", "config", "base"]),
    ("operate", &["upstream", "config", "base"]),
    ("command", &["operate", "config", "base"]),
];

/// The module of a file, as `crate::` paths name it: `upstream::send`.
fn module(path: &str) -> String {
    let name = path.trim_end_matches(".rs").trim_end_matches("/mod");
    name.replace('/', "::")
}

/// The file without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every module with the modules that its code names by a `crate::` path.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            if name.ends_with(".rs") {
                files.insert(module(&name), code(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let modules: BTreeSet<_> = files.keys().cloned().collect();
    let named = |module: &str, text: &str| {
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        // A folder's `mod.rs` is the parent of its files.
        let of = |start: &str, base: &str| -> BTreeSet<String> {
            text.split(start)
                .skip(1)
                .flat_map(paths)
                .filter_map(|path| {
                    let path = if base.is_empty() { path } else { format!("{base}::{path}") };
                    let parts: Vec<_> = path.split("::").collect();
                    let known = |n| parts[..n].join("::");
                    (1..=parts.len()).rev().map(known).find(|m| modules.contains(m))
                })
                .filter(|named| named != module)
                .collect()
        };
        let mut all = of("crate::", "");
        all.extend(of("use super::", parent));
        all
    };
    files.iter().map(|(module, text)| (module.clone(), named(module, text))).collect()
}

/// The paths that a `use` line names behind its prefix, those of one level of braces told apart.
fn paths(rest: &str) -> Vec<String> {
    let is_path = |c: &char| c.is_alphanumeric() || "_:".contains(*c);
    let head: String = rest.chars().take_while(is_path).collect();
    let Some(list) = rest[head.len()..].strip_prefix('{') else { return vec![head] };
    let list = list.split('}').next().unwrap();
    list.split(',').map(|name| format!("{head}{}", name.trim())).collect()
}

fn folder(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn arrows_point_downward() {
    let mut upward = Vec::new();
    for (from, to) in imports() {
        let allowed = MAY_USE.iter().find(|(name, _)| *name == folder(&from));
        let Some((_, allowed)) = allowed else { continue };
        for to in to {
            if folder(&to) != folder(&from) && !allowed.contains(&folder(&to)) {
                upward.push(format!("{from} uses {to}"));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn every_folder_has_its_place() {
    let folders: BTreeSet<_> = imports().keys().map(|module| folder(module).to_owned()).collect();
    let known = MAY_USE.iter().map(|(name, _)| (*name).to_owned()).chain(["main".to_owned()]);
    assert_eq!(folders, known.collect());
}

#[test]
fn no_two_files_import_each_other() {
    let imports = imports();
    let mut reach: BTreeMap<_, BTreeSet<String>> = imports.clone();
    loop {
        let before: usize = reach.values().map(BTreeSet::len).sum();
        for module in imports.keys() {
            let next: Vec<_> = reach[module].iter().flat_map(|to| reach[to].clone()).collect();
            reach.get_mut(module).unwrap().extend(next);
        }
        if before == reach.values().map(BTreeSet::len).sum::<usize>() {
            break;
        }
    }
    let cycles: Vec<_> = reach.iter().filter(|(m, to)| to.contains(*m)).map(|(m, _)| m).collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}
