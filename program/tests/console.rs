//! The console in a real browser, against the program as it is built. docs/operations.md has the table.

mod script;

#[test]
fn the_console_in_a_browser() {
    script::run("console.py");
}
