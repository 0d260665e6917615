//! A store is the directory that was opened and the files in it, not their names. Names that are
//! removed, moved or replaced while the engine runs give no store two owners, and lose nothing that
//! was acknowledged.
//!
//! Tests that change the process itself (its directory, descriptors, umask, limits) run in a child:
//! the test binary calls itself with the name of an ignored test.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod kinds;
mod locks;
mod modes;
mod names;
mod process;

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{reopened, this_test};
use oncekey::disk::{Disk, Lockable, OsDisk};
use oncekey::{Begin, Durability, Engine, ErrorKind, Fingerprint, Key, Options};
use oncekey_testing::{Fault, OpKind, SimDisk};

fn options() -> Options {
    Options::new().segment_bytes(4 << 20).recent_bytes(1 << 20)
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Begins and completes `key`, or says why not.
fn pair(engine: &Engine, key: &str) -> Result<(), String> {
    let key = Key::new("", key).unwrap();
    match engine.begin(&key, Fingerprint::builder().finish()).wait() {
        Ok(Begin::Claimed(claim)) => match claim.complete(&[7; 1024]).wait() {
            Ok(_) => Ok(()),
            Err(failed) => Err(format!("{:?}: {failed}", failed.kind())),
        },
        other => Err(format!("{other:?}")),
    }
}

fn is_replayed(engine: &Engine, key: &str) -> bool {
    let key = Key::new("", key).unwrap();
    let begun = engine.begin(&key, Fingerprint::builder().finish()).wait();
    matches!(begun, Ok(Begin::Replay(_)))
}

/// Runs the ignored test `name` in a child, with the directory in its environment.
fn in_child(name: &str, directory: &Path) {
    let child = this_test(name)
        .arg("--test-threads=1")
        .env("ONCEKEY_DIRECTORY", directory)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let (out, error) =
        (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && out.contains("1 passed"), "{out}\n{error}");
}

fn given() -> PathBuf {
    std::env::var_os("ONCEKEY_DIRECTORY").unwrap().into()
}
