//! No files of `testing/src` form a circle, and none is too long; the suites of `conformance` are tests. The files of
//! the benches and examples are not too long either.
#![allow(missing_docs)]

use oncekey_testing::layers::Layout;

#[test]
fn the_layout_holds() {
    let folder = |name| format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    Layout::of(&folder("testing")).suite("conformance").check();
    for name in ["benches", "benches/compare", "examples"] {
        Layout::of(&folder(name)).check_lengths();
    }
}
