//! The commands of docs/commands.md do what the page says.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{Offline, Online, code, err, ok, out};

/// The commands of a marked block of docs/commands.md, each with the exit code that it ends with.
fn documented(mark: &str) -> Vec<Vec<(String, i32)>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let page = std::fs::read_to_string(page).unwrap();
    let begin = format!("<!-- {mark} -->\n```sh\n");
    let blocks = page.split(&begin).skip(1);
    let line = |line: &str| match line.split_once("    # exit ") {
        Some((command, code)) => (command.to_owned(), code.parse().unwrap()),
        None => (line.to_owned(), 0),
    };
    blocks.map(|block| block.split("```").next().unwrap().lines().map(line).collect()).collect()
}

/// Runs a script that finds the program by its name.
fn bash(script: &str, dir: &Path) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_oncekey")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("PATH", path).current_dir(dir).stdin(Stdio::null());
    bash.output().unwrap()
}

/// Runs the lines of a block in one shell, and returns the names of its commands.
fn shell(block: &[(String, i32)], dir: &Path) -> Vec<String> {
    let mut script = String::new();
    for (command, code) in block {
        script.push_str(&format!(
            "{command}\nx=$?; [ $x = {code} ] || {{ echo \"$x, not {code}: {}\" >&2; exit 99; }}\n",
            command.replace(['"', '$', '\'', '`', '\\'], " "),
        ));
    }
    let ran = bash(&script, dir);
    assert_eq!(code(&ran), 0, "{}{}", out(&ran), err(&ran));
    let words = block.iter().filter_map(|(command, _)| command.strip_prefix("oncekey "));
    words.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_of_the_page_does_what_the_page_says() {
    let (offline, online) = (Offline::new(), Online::new());
    let mut run: Vec<String> = Vec::new();
    for block in documented("files") {
        run.extend(shell(&block, offline.dir.path()));
    }
    for block in documented("server") {
        run.extend(shell(&block, online.dir.path()));
    }
    let help = ok(&["--help"]);
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        // These need a server of the proxy, a terminal, or another page.
        let elsewhere = ["proxy", "check", "top", "console", "help"].contains(&name);
        assert!(
            elsewhere || run.iter().any(|command| command == name),
            "{name} is not on the page"
        );
    }
    let page = include_str!("../../../docs/commands.md");
    let codes = help.split("Exit codes:").nth(1).unwrap();
    for line in codes.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let words = |text: &str| text.replace(['`', '(', ')'], "");
        let row = format!("| {code} | {} |", words(meaning.trim()));
        assert!(words(page).contains(&row), "{row}");
    }
}

#[test]
fn many_orphans_are_resolved_as_the_page_says() {
    if Command::new("jq").arg("--version").output().is_err() {
        return println!("LEFT OUT: the lines of JSON that jq makes: there is no jq");
    }
    let offline = Offline::new();
    let block = documented("files, with jq").remove(0);
    let script: String = block.iter().map(|(line, _)| format!("{line}\n")).collect();
    let ran = bash(&script, offline.dir.path());
    assert_eq!(code(&ran), 0, "{}{}", out(&ran), err(&ran));
    assert!(out(&ran).contains("lost"), "{}{}", out(&ran), err(&ran));
}
