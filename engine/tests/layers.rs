//! The arrows between the folders of `engine/src` point downward, no files form a circle, and none is too long.
//!
//! docs/architecture.md has the picture.
#![allow(missing_docs)]

use oncekey_testing::layers::Layout;

#[test]
fn the_layout_holds() {
    let layout = Layout::of(env!("CARGO_MANIFEST_DIR"));
    layout
        .arrows(&[
            ("base", &[]),
            ("semantics", &["base"]),
            ("backend", &["semantics", "base"]),
            ("api", &["backend", "semantics", "base"]),
            ("admission", &["backend", "semantics", "base"]),
            ("embedded", &["api", "admission", "backend", "semantics", "base"]),
            ("fleet", &["api", "admission", "backend", "semantics", "base"]),
        ])
        .check();
}
