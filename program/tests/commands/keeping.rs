//! Stores are verified, backed up and restored.

use std::path::Path;
use std::process::{Command, Stdio};

use oncekey::Engine;
use serde_json::Value;

use crate::damage::flip;
use crate::support::{Offline, Online, claim, code, err, json, ok, oncekey, out, run, state};

#[test]
fn b6_a_flipped_byte_is_named_and_hides_nothing_else() {
    let offline = Offline::new();
    flip(&offline.path(), "records-", 100);
    let output = run(&["verify", "--store", &offline.store(), "--json"]);
    assert_eq!(code(&output), 4);
    let found: Value = serde_json::from_str(&out(&output)).unwrap();
    let damaged = found["damage"][0]["key"].as_str().unwrap().to_owned();
    assert_eq!(found["damage"].as_array().unwrap().len(), 1);
    for name in (0..5).map(|number| format!("order-{number}")).chain(["sad".to_owned()]) {
        let expected = if name == damaged { 4 } else { 0 };
        assert_eq!(
            code(&run(&["get", &name, "--scope", "t", "--store", &offline.store()])),
            expected
        );
    }
    assert!(out(&run(&["verify", "--store", &offline.store()])).contains(&damaged));
    // A damaged store is no backup: neither copied from nor restored.
    let to = offline.dir.path().join("copy").display().to_string();
    assert_eq!(code(&run(&["backup", &to, "--store", &offline.store()])), 4);
    let to = offline.dir.path().join("restored").display().to_string();
    assert_eq!(code(&run(&["restore", &offline.store(), &to, "--yes"])), 4);
    assert!(!Path::new(&to).exists());
}

#[test]
fn a_store_without_its_index_is_not_one_that_is_to_be_made() {
    let offline = Offline::new();
    std::fs::remove_file(offline.path().join("store.redb")).unwrap();
    let output = run(&["doctor", "--store", &offline.store()]);
    assert!(code(&output) == 1 && out(&output).contains("fail  store"), "{}", out(&output));
    let output =
        run(&["doctor", "--store", &offline.dir.path().join("none").display().to_string()]);
    assert!(out(&output).contains("there is none"), "{}", out(&output));
}

#[test]
fn b7_a_backup_that_was_cut_off_is_no_store() {
    let offline = Offline::new();
    let to = offline.dir.path().join("copy");
    let copy = to.display().to_string();
    ok(&["backup", &copy, "--store", &offline.store()]);
    ok(&["verify", &copy]);
    // The state after a kill at any moment: the mark, and some of the files.
    std::fs::write(to.join("backup.unfinished"), "").unwrap();
    for command in [
        &["verify", &copy][..],
        &["stats", "--store", &copy],
        &["restore", &copy, "/nowhere/at/all", "--yes"],
    ] {
        let output = run(command);
        assert_eq!(
            (code(&output), out(&output).contains("damage 0")),
            (1, false),
            "{}",
            err(&output)
        );
    }
    // The next one takes its place.
    ok(&["backup", &copy, "--store", &offline.store()]);
    ok(&["verify", &copy]);
    // The backup is killed at random moments.
    for _ in 0..20 {
        let to = offline.dir.path().join("killed");
        let mut child = oncekey(&["backup", to.to_str().unwrap(), "--store", &offline.store()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !to.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let output = run(&["verify", to.to_str().unwrap()]);
        let whole = !to.join("backup.unfinished").exists() && to.join("store.redb").exists();
        assert_eq!(code(&output) == 0, whole, "{}", err(&output));
        let _old = std::fs::remove_dir_all(&to);
    }
}

#[test]
fn b7_old_backups_go_when_a_new_one_is_verified() {
    let offline = Offline::new();
    let dir = offline.dir.path().join("backups");
    std::fs::create_dir(&dir).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let left = || {
        let names = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let take = |name: &str, more: &[&str]| {
        ok(&[&["backup", &at(name), "--store", &offline.store()], more].concat())
    };
    take("1", &[]);
    take("unverified", &["--no-verify"]);
    take("2", &[]);
    // Beside the backups lie a store, a backup that became a store, and files of others.
    ok(&["restore", &at("1"), &at("store"), "--yes"]);
    take("used", &[]);
    Engine::open(dir.join("used")).unwrap().close().unwrap();
    std::fs::create_dir(dir.join("theirs")).unwrap();
    assert_eq!(take("3", &["--keep", "3"]).lines().count(), 1, "three are three");
    let said = take("4", &["--keep", "2"]);
    assert!(said.contains("removed") && said.contains("/1\n") && said.contains("/2\n"), "{said}");
    assert_eq!(left(), ["3", "4", "store", "theirs", "unverified", "used"]);
    for name in ["3", "4"] {
        ok(&["verify", &at(name)]);
        ok(&["stats", "--store", &at(name)]);
    }

    // A damaged backup removes no older one, and neither does one that cannot be made.
    flip(&offline.path(), "records-", 100);
    let damaged = run(&["backup", &at("5"), "--store", &offline.store(), "--keep", "1"]);
    assert_eq!(code(&damaged), 4, "{}", err(&damaged));
    let full = run(&["backup", &at("theirs/.."), "--store", &offline.store(), "--keep", "1"]);
    assert_eq!(code(&full), 2, "{}", err(&full));
    assert_eq!(left(), ["3", "4", "5", "store", "theirs", "unverified", "used"]);
    for wrong in [&["--keep", "0"][..], &["--keep", "1", "--no-verify"]] {
        let output = run(&[&["backup", &at("6"), "--store", &offline.store()], wrong].concat());
        assert_eq!(code(&output), 2, "{}", err(&output));
    }

    // The same for a running server, on the same machine.
    let online = Online::new();
    for name in ["a", "b", "c"] {
        let document = json(&["backup", name, "--store", &online.store(), "--keep", "2"]);
        let removed = document["removed"].as_array().unwrap();
        assert_eq!(removed.len(), usize::from(name == "c"), "{document}");
    }
    let mut names: Vec<_> = std::fs::read_dir(online.file("backups")).unwrap().collect();
    assert_eq!(names.len(), 2);
    assert!(names.drain(..).all(|entry| entry.unwrap().file_name() != "a"));
}

/// Only the owner can read copies and responses, whatever the umask.
#[test]
fn what_a_command_writes_of_a_store_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let offline = Offline::new();
    for umask in ["000", "777"] {
        let at = |name: &str| offline.dir.path().join(format!("{name}-{umask}"));
        let under = |command: &[&str]| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
            let done = shell.arg(env!("CARGO_BIN_EXE_oncekey")).args(command).output().unwrap();
            assert_eq!(code(&done), 0, "{command:?}: {}", err(&done));
        };
        let [backup, restored, body] = ["backup", "restored", "body"].map(at);
        let [to, of, into] = [&backup, &restored, &body].map(|path| path.to_str().unwrap());
        under(&["backup", to, "--store", &offline.store()]);
        under(&["restore", to, of, "--yes"]);
        under(&["get", "order-2", "--scope", "t", "--body-to", into, "--store", to]);
        for directory in [&backup, &restored] {
            assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let entries = [&backup, &restored].map(|path| std::fs::read_dir(path).unwrap());
        let files = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut some = 0;
        for file in files.chain([body]) {
            some += 1;
            let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "umask {umask}: {}", file.display());
        }
        assert!(some > 8);
    }
}

#[test]
fn b8_a_backup_is_restored_into_nothing_alone() {
    let offline = Offline::new();
    let backup = offline.dir.path().join("backup").display().to_string();
    ok(&["backup", &backup, "--store", &offline.store()]);
    let full = offline.dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("theirs"), "theirs").unwrap();
    let before = state(&full);
    assert_eq!(code(&run(&["restore", &backup, full.to_str().unwrap(), "--yes"])), 2);
    assert_eq!(state(&full), before);
    let to = offline.dir.path().join("restored").display().to_string();
    assert_eq!(code(&run(&["restore", &backup, &to])), 2, "nobody can be asked");
    let output = run(&["restore", &backup, &to, "--yes", "--refuse-uuid7", "--time", "utc"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(
        err(&output).contains("RUNS AGAIN") && out(&output).contains("refuse_uuid7_before = \"20")
    );
    assert_eq!(ok(&["get", "order-2", "--scope", "t", "--body", "--store", &to]), "body 2");
    let (one, other) = (Engine::open(&to).unwrap(), Engine::open(offline.path()).unwrap());
    assert_ne!(
        claim(&one, "new").token(),
        claim(&other, "new").token(),
        "two stores, two incarnations"
    );
}

#[test]
fn b8_a_shared_store_is_copied_with_its_own_tools() {
    let url = "postgres://me:secret@127.0.0.1:1/keys";
    for command in [&["backup", "/nowhere"][..], &["verify"]] {
        let output = run(&[command, &["--store", url]].concat());
        assert_eq!((code(&output), err(&output).contains("pg_")), (2, true), "{}", err(&output));
    }
    let offline = Offline::new();
    let here = offline.dir.path().join("here").display().to_string();
    for command in [
        &["verify", url][..],
        &["backup", url, "--store", &offline.store()],
        &["restore", url, &here, "--yes"],
        &["restore", &offline.store(), url, "--yes"],
    ] {
        let output = run(command);
        assert_eq!((code(&output), err(&output).contains("pg_")), (2, true), "{command:?}");
    }
    let output = run(&["stats", "--store", url, "-v"]);
    assert_eq!((code(&output), err(&output).contains("secret")), (1, false), "{}", err(&output));
    assert!(err(&output).contains("cannot be reached: Connection refused"), "{}", err(&output));
    assert!(!Path::new("postgres:").exists());
    // A server that is named by its URL is not asked for its files.
    let output = run(&["verify", "--url", "http://127.0.0.1:1"]);
    assert_eq!((code(&output), err(&output).contains("--via-backup")), (5, true));
}
