//! The commands of operators ask a program in C that holds a store, and its files once it has ended.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

// Cargo builds the C library beside this test.
use oncekey_ffi as _;
use serde_json::{Value, json};

/// The program of `embedder.c`, compiled.
fn compiled(into: &Path) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let program = into.join("embedder");
    let output = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args(["-Wall", "-Wextra", "-Werror", "-std=c11", "-pthread", "-I"])
        .arg(here.join("../engine-ffi/include"))
        .arg(here.join("tests/embedder.c"))
        .arg(libraries.join("liboncekey_ffi.a"))
        .args(["-lm", "-ldl", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Starts it, and waits until it has a completed key, an orphan and a claim.
fn started(program: &Path, store: &Path) -> Child {
    let mut child = Command::new(program)
        .arg(store)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");
    child
}

fn oncekey(store: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncekey"));
    command.args(arguments).arg("--store").arg(store).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ONCEKEY_")) {
        command.env_remove(name);
    }
    command.output().unwrap()
}

/// The JSON that a command prints, which must succeed.
fn json(store: &Path, arguments: &[&str]) -> Value {
    let output = oncekey(store, &[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn keys(orphans: &Value) -> Vec<&str> {
    let orphans = orphans["orphans"].as_array().unwrap().iter();
    let mut keys: Vec<_> = orphans.map(|orphan| orphan["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_program_in_c_is_asked_while_it_runs_and_its_files_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let (program, store) = (compiled(directory.path()), directory.path().join("keys"));
    let mut child = started(&program, &store);

    let stats = json(&store, &["stats"]);
    assert_eq!(stats["owner"]["pid"], child.id());
    assert_eq!(stats["store"], json!(store.canonicalize().unwrap()));
    assert_eq!((&stats["engine"]["inFlight"], &stats["layer"]), (&json!(1), &Value::Null));
    for health in [&["health"][..], &["health", "--ready"]] {
        assert_eq!(oncekey(&store, health).status.code(), Some(0), "{health:?}");
    }
    let orphans = json(&store, &["orphans"]);
    assert_eq!(keys(&orphans), ["lost"]);
    let held = json(&store, &["get", "held", "--scope", "c"]);
    assert_eq!((&held["state"], &held["ownerGone"]), (&json!("inFlight"), &Value::Null));
    for each in ["ls", "expiry", "export", "doctor"] {
        let output = oncekey(&store, &[each]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{each}: {said}");
    }
    assert_eq!(json(&store, &["ctl", "fold"])["folded"], true);
    let token = orphans["orphans"][0]["token"].as_str().unwrap();
    let release = ["resolve", "release", "lost", "--scope", "c", "--token", token];
    let reason = ["--reason", "never happened"];
    assert!(oncekey(&store, &[&release[..], &reason].concat()).status.success());
    assert_eq!(keys(&json(&store, &["orphans"])).len(), 0);
    // Files that another process writes are not read.
    assert_eq!(oncekey(&store, &["verify"]).status.code(), Some(5));

    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(json(&store, &["stats"])["owner"], Value::Null);
    assert_eq!(keys(&json(&store, &["orphans"])), ["held"]);
    assert!(oncekey(&store, &["verify"]).status.success());
}

#[test]
fn a_program_in_c_that_was_killed_hides_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (program, store) = (compiled(directory.path()), directory.path().join("keys"));
    let mut child = started(&program, &store);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(json(&store, &["stats"])["owner"], Value::Null);
    assert_eq!(keys(&json(&store, &["orphans"])), ["held", "lost"]);
    // Another store of the same name finds the socket of the killed process where its own would be.
    std::fs::rename(&store, directory.path().join("moved")).unwrap();
    let child = started(&program, &store);
    assert_eq!(json(&store, &["stats"])["owner"]["pid"], child.id());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
}
