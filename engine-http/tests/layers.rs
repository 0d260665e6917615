//! No files of `engine-http/src` form a circle, and none is too long.
#![allow(missing_docs)]

use oncekey_testing::layers::Layout;

#[test]
fn the_layout_holds() {
    Layout::of(env!("CARGO_MANIFEST_DIR")).without_parents().check();
}
