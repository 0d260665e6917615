//! The layout of a crate of this repository: the folders that each folder may use, no circle of
//! files, and no file or function that is too long.
//!
//! These rules do not hold for a file that only tests compile, by a `mod` under `#[cfg(test)]`, nor
//! for the module of tests at the end of a file.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most lines of a file before its tests.
const FILE: usize = 400;
/// The most lines of a function.
const FUNCTION: usize = 70;

/// The files of a crate without their tests, and the broken rules found so far.
#[derive(Debug)]
pub struct Layout {
    /// The text by module, as `crate::` paths name it: `embedded::store::view`.
    files: BTreeMap<String, String>,
    /// Whether a `mod.rs` imports the files that it declares.
    declared: bool,
    broken: Vec<String>,
}

impl Layout {
    /// Reads the folder `src` of the crate in the folder `manifest`.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn of(manifest: &str) -> Self {
        let source = Path::new(manifest).join("src");
        let mut files = Vec::new();
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
                    files.push((name, std::fs::read_to_string(&path).unwrap()));
                }
            }
        }
        Self::from(files)
    }

    fn from(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let module =
            |name: &str| name.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        let files = files.into_iter().map(|(name, text)| (module(&name), before_tests(&text)));
        let layout = Self { files: files.collect(), declared: false, broken: Vec::new() };
        let tests: Vec<_> =
            layout.files.iter().flat_map(|(module, text)| tests_of(module, text)).collect();
        tests.iter().fold(layout, |layout, tests| layout.suite(tests))
    }

    /// Leaves out this module and the modules inside it, since they are tests.
    pub fn suite(mut self, module: &str) -> Self {
        let inside = format!("{module}::");
        self.files.retain(|name, _| name != module && !name.starts_with(&inside));
        self
    }

    /// Adds the rule that no file uses the `mod.rs` that declares it, directly or through other
    /// files.
    pub fn without_parents(mut self) -> Self {
        self.declared = true;
        self
    }

    /// Every module with its code, without tests and comments.
    pub fn code(&self) -> impl Iterator<Item = (&str, String)> {
        self.files.iter().map(|(module, text)| {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            (module.as_str(), code.collect::<Vec<_>>().join("\n"))
        })
    }

    /// Checks that every folder is in `may_use` and uses only the folders listed there for it.
    pub fn arrows(mut self, may_use: &[(&str, &[&str])]) -> Self {
        let allowed: BTreeMap<_, _> = may_use.iter().copied().collect();
        for (from, to) in self.imports() {
            let Some(allowed) = allowed.get(folder(&from)) else {
                if from != "lib" && from != "main" {
                    self.broken.push(format!("{from} is in no folder that has its place"));
                }
                continue;
            };
            let upward =
                |to: &&String| folder(to) != folder(&from) && !allowed.contains(&folder(to));
            self.broken
                .extend(to.iter().filter(upward).map(|to| format!("{from} must not use {to}")));
        }
        for (folder_listed, _) in may_use {
            if !self.files.keys().any(|module| folder(module) == *folder_listed) {
                self.broken.push(format!("the folder {folder_listed} is not there"));
            }
        }
        self
    }

    /// Checks that each path from the crate names a file, that no files form a circle, and all
    /// lengths.
    ///
    /// # Panics
    /// When a rule is broken: the message says which rule, and where.
    pub fn check(mut self) {
        self.find_strays();
        self.find_circles();
        self.check_lengths();
    }

    /// Checks the lengths of files and functions, and no import.
    ///
    /// # Panics
    /// When a file or a function is too long, or when [`arrows`](Self::arrows) found a wrong
    /// import.
    pub fn check_lengths(mut self) {
        assert!(!self.files.is_empty(), "no files were read");
        for (module, text) in &self.files {
            let lines = text.lines().count();
            if lines > FILE {
                self.broken.push(format!("{module} has {lines} lines before its tests"));
            }
            let long = functions(text).into_iter().filter(|(_, lines)| *lines > FUNCTION);
            self.broken
                .extend(long.map(|(name, lines)| format!("{module}: {name} has {lines} lines")));
        }
        assert!(self.broken.is_empty(), "{:#?}", self.broken);
    }

    /// Checks that a path from the crate names a file: a name that `lib.rs` re-exports hides the
    /// folder used.
    fn find_strays(&mut self) {
        let known: BTreeSet<_> = self.files.keys().map(|module| folder(module)).collect();
        let mut strays = Vec::new();
        for (module, code) in self.code() {
            let named = code.split("crate::").skip(1).flat_map(paths);
            let stray = named.filter(|path| !path.is_empty() && !known.contains(folder(path)));
            strays.extend(stray.map(|path| format!("{module} names {path}, which is no file")));
        }
        self.broken.extend(strays);
    }

    /// Takes away the files that import no other file or that no other file imports, until only
    /// circles are left.
    fn find_circles(&mut self) {
        let mut left = self.imports();
        loop {
            let before = left.len();
            let names: BTreeSet<_> = left.keys().cloned().collect();
            left.retain(|_, to| to.iter().any(|to| names.contains(to)));
            let used: BTreeSet<_> = left.values().flatten().cloned().collect();
            left.retain(|name, _| used.contains(name));
            if left.len() == before {
                break;
            }
        }
        if !left.is_empty() {
            let names: Vec<_> = left.keys().cloned().collect();
            self.broken.push(format!("in a circle of imports: {}", names.join(", ")));
        }
    }

    /// Every module with the modules that its code names, by a path from the crate or from its
    /// folder.
    fn imports(&self) -> BTreeMap<String, BTreeSet<String>> {
        let named = |(module, code): (&str, String)| {
            let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
            let mut all = self.named(&code, "crate::", "");
            all.extend(self.named(&code, "use super::", parent));
            if self.declared {
                all.extend(self.named(&code, "\nmod ", module));
            }
            all.remove(module);
            (module.to_owned(), all)
        };
        self.code().map(named).collect()
    }

    /// The modules that the paths after each `start` name; the paths begin at `base`.
    fn named(&self, code: &str, start: &str, base: &str) -> BTreeSet<String> {
        let paths = code.split(start).skip(1).flat_map(paths);
        let known = paths.filter_map(|path| {
            let path = if base.is_empty() { path } else { format!("{base}::{path}") };
            let parts: Vec<_> = path.split("::").collect();
            let prefixes = (1..=parts.len()).rev().map(|n| parts[..n].join("::"));
            prefixes.into_iter().find(|module| self.files.contains_key(module))
        });
        known.collect()
    }
}

/// The text of a file up to its module of tests.
fn before_tests(text: &str) -> String {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned()
}

/// The modules that a file declares only for tests.
fn tests_of(module: &str, text: &str) -> Vec<String> {
    let for_tests = |line: &str| line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test,");
    let lines: Vec<_> = text.lines().collect();
    let declared = lines.windows(2).filter(|pair| for_tests(pair[0])).filter_map(|pair| {
        let name = pair[1].strip_suffix(';')?.rsplit_once("mod ")?.1;
        match module {
            "lib" | "main" => Some(name.to_owned()),
            module => Some(format!("{module}::{name}")),
        }
    });
    declared.collect()
}

/// The functions of a file formatted by rustfmt, each with its number of lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some((before, name)) = code.split_once("fn ") else { continue };
        let words = ["pub", "const", "async", "unsafe", "extern", "\"C\"", "default"];
        let is_word = |word: &str| words.contains(&word) || word.starts_with("pub(");
        if !before.split_whitespace().all(is_word) {
            continue;
        }
        let end = |line: &&&str| {
            line.strip_prefix(indent).is_some_and(|rest| {
                !rest.starts_with(' ') && (rest.ends_with(';') || rest.ends_with('}'))
            })
        };
        let length = lines[at..].iter().position(|line| end(&line)).map_or(1, |end| end + 1);
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
        found.push((name.to_owned(), length));
    }
    found
}

/// The paths that a `use` line names after its prefix; one level of braces is taken apart.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(files: &[(&str, &str)]) -> Layout {
        Layout::from(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
    }

    /// The message with the rules that are broken.
    fn broken(layout: Layout) -> String {
        let check = std::panic::AssertUnwindSafe(|| layout.check());
        *std::panic::catch_unwind(check).unwrap_err().downcast().unwrap()
    }

    fn function(lines: usize) -> String {
        format!(
            "    pub(crate) async fn long<T>(\n    ) {{\n{}    }}\n",
            "        {}\n".repeat(lines - 3)
        )
    }

    #[test]
    fn an_arrow_that_points_upward_and_a_folder_without_a_place_are_found() {
        let files =
            [("low/a.rs", "use crate::high::b::B;\n"), ("high/b.rs", "use crate::low::{a, c};\n")];
        let may_use: [(&str, &[&str]); 2] = [("low", &[]), ("high", &["low"])];
        assert!(broken(layout(&files).arrows(&may_use)).contains("low::a must not use high::b"));
        layout(&[("low/a.rs", ""), files[1]]).arrows(&may_use).check();
        assert!(broken(layout(&files[1..]).arrows(&[])).contains("high::b is in no folder"));
        assert!(
            broken(layout(&files[1..]).arrows(&may_use)).contains("the folder low is not there")
        );
    }

    #[test]
    fn a_path_that_names_no_file_is_found() {
        let files = [("a.rs", "use crate::{b::B, C};\n// crate::D\n"), ("b.rs", "")];
        assert!(broken(layout(&files)).contains("[\n    \"a names C, which is no file\",\n]"));
    }

    #[test]
    fn files_that_import_each_other_by_way_of_others_are_found() {
        let files = [
            ("a.rs", "use crate::x::b::B;\n"),
            ("x/b.rs", "use super::c;\n"),
            ("x/c.rs", "fn f() { crate::a::f() }\n"),
            ("d.rs", "use crate::a::A;\n"),
            ("e.rs", "// crate::d\n"),
        ];
        let message = broken(layout(&files));
        assert!(message.contains("in a circle of imports: a, x::b, x::c\""), "{message}");
        layout(&[files[0], files[1], files[3], files[4]]).check();
        let parent = [("x/mod.rs", "\nmod b;\n"), ("x/b.rs", "use super::c;\nuse crate::x::X;\n")];
        layout(&parent).check();
        assert!(broken(layout(&parent).without_parents()).contains("circle"));
    }

    #[test]
    fn long_files_and_long_functions_are_found_and_those_of_tests_are_not() {
        let long = |lines| "//\n".repeat(lines);
        layout(&[("a.rs", &long(FILE)), ("b.rs", &function(FUNCTION))]).check();
        assert!(broken(layout(&[("a.rs", &long(FILE + 1))])).contains("a has 401 lines"));
        assert!(
            broken(layout(&[("a.rs", &function(FUNCTION + 1))])).contains("a: long has 71 lines")
        );
        let declarations = "    fn one() -> u8;\n".to_owned() + &"\n".repeat(80) + "    }\n";
        layout(&[("a.rs", &declarations)]).check();
        let tests =
            format!("\n#[cfg(test)]\nmod tests {{\n{}", long(FILE) + &function(FUNCTION + 1));
        layout(&[("a.rs", &tests)]).check();
        let declared = [
            (
                "lib.rs",
                "#[cfg(test)]\npub(crate) mod samples;\n#[cfg(all(test, loom))]\nmod loom;\n",
            ),
            ("samples.rs", &long(FILE + 1)),
            ("loom/mod.rs", &long(FILE + 1)),
            ("loom/deep.rs", &long(FILE + 1)),
        ];
        layout(&declared).check();
        let built = [("lib.rs", "#[cfg(any(test, loom))]\nmod samples;\n"), declared[1]];
        assert!(broken(layout(&built)).contains("samples has 401 lines"));
        assert!(broken(layout(&declared[1..])).contains("loom::deep has 401 lines"));
        assert!(!broken(layout(&declared[1..]).suite("loom")).contains("loom"));
    }
}
