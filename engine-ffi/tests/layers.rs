//! The arrows between the folders of `engine-ffi/src` point downward, no files form a circle, and none is too long.
//!
//! The crate's documentation says what each folder is for.
#![allow(missing_docs)]

use oncekey_testing::layers::Layout;

#[test]
fn the_layout_holds() {
    let layout = Layout::of(env!("CARGO_MANIFEST_DIR"));
    layout
        .arrows(&[
            ("abi", &[]),
            ("boundary", &["abi"]),
            ("objects", &["boundary", "abi"]),
            ("completion", &["objects", "boundary", "abi"]),
            ("exports", &["completion", "objects", "boundary", "abi"]),
        ])
        .check();
}

#[test]
fn functions_are_exported_by_the_exports_alone_and_pointers_are_read_by_the_boundary_alone() {
    for (module, code) in Layout::of(env!("CARGO_MANIFEST_DIR")).code() {
        let exported = code.contains("#[unsafe(no_mangle)]");
        assert!(!exported || module.starts_with("exports::"), "{module} exports a function");
        let pointers = ["from_raw_parts", ".as_ref() }", "read_unaligned", "write_bytes"];
        let read = pointers.iter().any(|way| code.contains(way));
        assert!(!read || module == "boundary::convert", "{module} reads through a pointer");
    }
}
