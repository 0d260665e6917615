//! A store is looked into, open or not, and every command ends with its code.

use oncekey::{Engine, Options};
use serde_json::Value;

use crate::support::{Offline, Online, code, err, json, ok, out, run, state};

/// The names of all members, with their place.
fn fields(value: &Value, at: &str, names: &mut Vec<String>) {
    for (name, member) in value.as_object().into_iter().flatten() {
        names.push(format!("{at}/{name}"));
        if name != "owner" && name != "layer" {
            fields(member, &format!("{at}/{name}"), names);
        }
    }
}

#[test]
fn b1_stats_has_the_same_fields_up_and_down_and_changes_no_file() {
    let (offline, online) = (Offline::new(), Online::new());
    let before = state(&offline.path());
    let (down, up) = (
        json(&["stats", "--store", &offline.store()]),
        json(&["stats", "--store", &online.store()]),
    );
    let (mut of_down, mut of_up) = (Vec::new(), Vec::new());
    fields(&down, "", &mut of_down);
    fields(&up, "", &mut of_up);
    assert_eq!(of_down, of_up);
    assert_eq!((&down["owner"], &down["engine"]["orphans"]), (&Value::Null, &1.into()));
    assert_eq!(up["owner"]["pid"], std::process::id());
    for each in ["stats", "ls", "orphans", "expiry", "export", "doctor"] {
        ok(&[each, "--store", &offline.store()]);
    }
    ok(&["get", "order-1", "--scope", "t", "--store", &offline.store()]);
    ok(&["verify", "--store", &offline.store()]);
    assert_eq!(state(&offline.path()), before);
    assert!(!ok(&["stats", "--store", &offline.store()]).contains("held by pid"));
    let text = ok(&["stats", "--store", &online.store()]);
    assert!(text.contains(&format!("held by pid {}", std::process::id())), "{text}");
}

#[test]
fn b2_an_owner_without_a_socket_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("keys");
    let engine = Engine::open(&store).unwrap();
    let output = run(&["stats", "--store", store.to_str().unwrap()]);
    assert_eq!(code(&output), 5);
    let said = err(&output);
    let pid = format!("is held by process {} (", std::process::id());
    assert!(said.contains(&pid) && said.contains("offers no control socket"), "{said}");
    assert!(said.contains("--url http://127.0.0.1:8080/admin/idempotency --token-file"), "{said}");
    drop(engine);
    // The note of a killed owner, and a socket that nobody serves.
    std::fs::write(store.join("LOCK"), "pid 1\ncontrol unix:/nowhere.sock\n").unwrap();
    ok(&["stats", "--store", store.to_str().unwrap()]);
    let engine =
        Options::new().owner_note("pid 1\ncontrol unix:/nowhere.sock\n").open(&store).unwrap();
    let output = run(&["stats", "--store", store.to_str().unwrap()]);
    assert_eq!(code(&output), 5, "{}", err(&output));
    drop(engine);
}

/// Every command that asks a store, with its exit code where the store is well, where there is none,
/// where its owner cannot be asked, and where the token is wrong.
#[test]
fn b3_every_command_ends_with_its_code_and_speaks_json() {
    let (offline, online) = (Offline::new(), Online::new());
    let held = tempfile::tempdir().unwrap();
    let _engine = Engine::open(held.path().join("keys")).unwrap();
    let held = held.path().join("keys").display().to_string();
    let nowhere = offline.dir.path().join("nowhere").display().to_string();
    let wrong = offline.dir.path().join("wrong");
    std::fs::write(&wrong, "not the token").unwrap();
    let wrong = wrong.display().to_string();
    let copy = |name: &str| offline.dir.path().join(name).display().to_string();
    let (one, two) = (copy("copy-1"), copy("copy-2"));
    let (token, reason) = (offline.token.as_str(), "--reason=never charged");
    // Arguments, then the codes for: a store that is well, no store, a held one, a wrong token.
    let table: &[(&[&str], [i32; 4])] = &[
        (&["stats"], [0, 1, 5, 7]),
        (&["ls"], [0, 1, 5, 7]),
        (&["get", "order-1", "--scope", "t"], [0, 1, 5, 7]),
        (&["get", "absent", "--scope", "t"], [3, 1, 5, 7]),
        (&["get", "order-1", "--scope", "t", "--headers"], [0, 1, 5, 7]),
        (&["orphans"], [0, 1, 5, 7]),
        (&["orphans", "--fail-if-any"], [3, 1, 5, 7]),
        (&["orphans", "--older", "1h", "--fail-if-any"], [0, 1, 5, 7]),
        (&["expiry"], [0, 1, 5, 7]),
        (&["export"], [0, 1, 5, 7]),
        (&["export", "--bodies"], [0, 1, 5, 7]),
        (&["doctor"], [0, 0, 0, 1]),
        (&["ctl", "fold"], [1, 1, 5, 7]),
        (&["console"], [1, 1, 5, 7]),
        (&["health"], [1, 1, 1, 0]),
        (&["top"], [2, 2, 2, 2]),
        (&["backup", &one], [0, 1, 5, 7]),
        (&["backup", &two], [0, 1, 5, 7]),
        (&["backup", &one], [2, 1, 5, 7]),
        (&["resolve", "release", "lost", "--scope", "t"], [2, 2, 2, 2]),
        (&["resolve", "release", "lost", "--scope", "t", "--token", token], [2, 2, 2, 2]),
        (
            &["resolve", "release", "lost", "--scope", "t", "--token", "ab-1-1", reason],
            [6, 1, 5, 7],
        ),
        (
            &[
                "resolve", "complete", "lost", "--scope", "t", "--token", token, reason,
                "--status", "99",
            ],
            [2, 2, 2, 2],
        ),
        (
            &[
                "resolve", "complete", "lost", "--scope", "t", "--token", token, reason,
                "--status", "101",
            ],
            [2, 2, 2, 2],
        ),
        (&["resolve", "release", "lost", "--scope", "t", "--token", token, reason], [0, 1, 5, 7]),
        (&["resolve", "release", "lost", "--scope", "t", "--token", token, reason], [6, 1, 5, 7]),
        (&["ls", "--state", "lost"], [2, 2, 2, 2]),
        (&["get", "50%"], [2, 2, 2, 2]),
        (&["get"], [2, 2, 2, 2]),
    ];
    let well = offline.store();
    let places: [Vec<&str>; 4] = [
        vec!["--store", &well],
        vec!["--store", &nowhere],
        vec!["--store", &held],
        vec!["--url", &online.url, "--token-file", &wrong],
    ];
    for (arguments, codes) in table {
        for (place, expected) in places.iter().zip(codes) {
            let output = run(&[arguments, &place[..], &["--json"]].concat());
            let (said, printed) = (err(&output), out(&output));
            assert_eq!(code(&output), *expected, "{arguments:?} {place:?}: {said}");
            for line in printed.lines() {
                serde_json::from_str::<Value>(line)
                    .unwrap_or_else(|_| panic!("{arguments:?}: {line}"));
            }
            let error =
                said.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
            match error {
                Some(error) => {
                    assert_eq!(error["error"]["exit"], code(&output), "{arguments:?}: {said}")
                }
                // Answers by the exit code alone, or by the output.
                None => assert!(
                    code(&output) == 0 || ["health", "doctor", "orphans"].contains(&arguments[0]),
                    "{arguments:?} {place:?}: {said}"
                ),
            }
        }
    }
    for (arguments, expected) in
        [(&["completions", "bash"][..], 0), (&["man"], 0), (&["--version"], 0), (&["nonsense"], 2)]
    {
        assert_eq!(code(&run(arguments)), expected, "{arguments:?}");
    }
}

#[test]
fn b3_what_a_running_server_answers_is_what_the_files_tell() {
    let (offline, online) = (Offline::new(), Online::new());
    let (operator, viewer) = (online.file("operator"), online.file("viewer"));
    let served = ["--url", &online.url, "--token-file", &operator];
    let files = ["--store".to_owned(), offline.store()];
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    // The stores have different secrets, and so different orders.
    let sorted = |text: String| {
        let mut lines: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| (line["key"].clone(), line["state"].clone(), line["response"].clone()))
            .map(|line| format!("{line:?}"))
            .collect();
        lines.sort();
        lines
    };
    for command in [
        &["export", "--bodies"][..],
        &["ls", "--ndjson"],
        &["ls", "--ndjson", "--status", "5xx"],
        &[
            "ls",
            "--ndjson",
            "--prefix",
            "order-",
            "--limit",
            "3",
            "--state",
            "completed",
            "--expires-within",
            "48h",
        ],
    ] {
        let one = sorted(ok(&[command, &files[..]].concat()));
        let other = sorted(ok(&[command, &served[..]].concat()));
        assert!(!one.is_empty() && one.len() == other.len(), "{command:?}");
        if !command.contains(&"--limit") {
            assert_eq!(one, other);
        }
    }
    for place in [&files[..], &served[..]] {
        let get = |more: &[&str]| ok(&[&["get", "order-3", "--scope", "t"], place, more].concat());
        assert_eq!(get(&["--body"]), "body 3");
        assert!(get(&["--headers"]).contains("content-type: text/plain"));
        let file = online.file("body");
        get(&["--body-to", &file]);
        assert_eq!(std::fs::read(&file).unwrap(), b"body 3");
        ok(&[&["orphans", "--key", "lost", "--scope", "t", "--checkpoint-to", &file], place]
            .concat());
        assert_eq!(std::fs::read(&file).unwrap(), b"half way");
        let hex =
            ok(&[&["get", "--key-hex", "6f726465722d33", "--scope-hex", "74", "--body"], place]
                .concat());
        assert_eq!(hex, "body 3");
    }
    let output = run(&["ctl", "fold", "--url", &online.url, "--token-file", &viewer]);
    assert_eq!(code(&output), 7, "{}", err(&output));
    assert_eq!(json(&[&["ctl", "fold"], &served[..]].concat())["folded"], true);
    let output = run(&["ctl", "reload", "--store", &online.store()]);
    assert_eq!((code(&output), err(&output).contains("line 1: no")), (1, true));
    let output = run(&["verify", "--store", &online.store()]);
    assert_eq!((code(&output), err(&output).contains("--via-backup")), (5, true));
    assert!(ok(&["verify", "--via-backup", "b1", "--store", &online.store()]).contains("damage 0"));
    assert!(ok(&["backup", "b2", "--store", &online.store()]).contains("7 records verified"));
}
