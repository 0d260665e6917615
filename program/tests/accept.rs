//! The acceptance table of docs/proxy.md, against the program as it is built.

use std::path::Path;
use std::process::Command;

#[test]
fn the_acceptance_table() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accept.py");
    let run = Command::new("python3").arg(script).arg(env!("CARGO_BIN_EXE_oncekey")).output();
    let output = run.expect("python3 is there");
    let lines = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}{said}");
    lines.lines().filter(|line| line.starts_with("LEFT OUT")).for_each(|line| println!("{line}"));
}
