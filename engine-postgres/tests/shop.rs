//! The example `shop`, an orders API whose orders live beside its keys, under a slice of its campaign. The example says
//! how to run the whole.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::cluster;

#[test]
fn killed_at_random_behind_http_there_are_as_many_orders_as_keys() {
    let Some(cluster) = cluster() else { return };
    // Cargo builds the examples of a package before its tests run, unless it is told to build only some targets.
    let test = std::env::current_exe().unwrap();
    let shop = test.parent().and_then(Path::parent).unwrap().join("examples/shop");
    assert!(shop.exists(), "build it: cargo build -p oncekey-postgres --example shop");
    let url = cluster.url(&cluster.database());
    let output = Command::new(shop).args(["kill", "6", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    assert!(said.contains("\norders = keys = "));
}
