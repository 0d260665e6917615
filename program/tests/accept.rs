//! The acceptance table of docs/proxy.md, against the program as it is built.

mod script;

#[test]
fn the_acceptance_table() {
    script::run("accept.py");
}
