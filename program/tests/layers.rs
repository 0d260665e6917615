//! The arrows between the folders of `program/src` point downward, no files form a circle, and none is too long.
//!
//! docs/architecture.md tells what each is for.
#![allow(missing_docs)]

use oncekey_testing::layers::Layout;

#[test]
fn the_layout_holds() {
    let layout = Layout::of(env!("CARGO_MANIFEST_DIR"));
    layout
        .arrows(&[
            ("base", &[]),
            ("report", &["base"]),
            ("config", &["base"]),
            ("wire", &["report", "base"]),
            ("upstream", &["wire", "report", "config", "base"]),
            ("front", &["upstream", "wire", "report", "config", "base"]),
            ("life", &["front", "upstream", "wire", "report", "config", "base"]),
            ("operate", &["upstream", "config", "base"]),
            ("command", &["operate", "config", "base"]),
        ])
        .check();
}
