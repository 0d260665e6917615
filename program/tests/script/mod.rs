//! Tests that are scripts.

use std::path::Path;
use std::process::Command;

/// Runs a script of this folder on the program as it is built, and prints what the script left out.
pub(crate) fn run(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let run = Command::new("python3").arg(script).arg(env!("CARGO_BIN_EXE_oncekey")).output();
    let output = run.expect("python3 is there");
    let lines = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}{said}");
    lines.lines().filter(|line| line.starts_with("LEFT OUT")).for_each(|line| println!("{line}"));
}
