//! The console in a real browser, against the program as it is built. docs/operations.md has the table.

use std::path::Path;
use std::process::Command;

#[test]
fn the_console_in_a_browser() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console.py");
    let run = Command::new("python3").arg(script).arg(env!("CARGO_BIN_EXE_oncekey")).output();
    let output = run.expect("python3 is there");
    let lines = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}{said}");
    if let Some(left_out) = lines.lines().find(|line| line.starts_with("LEFT OUT")) {
        eprintln!("{left_out}");
    }
}
