//! The Go package. `cargo test` does not need Go; without it the test says that it is left out.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs Go 1.24: engine-ffi/test.sh brings one where there is none, and runs this"]
fn the_go_package_and_its_middleware() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("test.sh");
    assert!(Command::new(script).arg("go").status().unwrap().success());
}
