//! Orphans are resolved, one or many.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use oncekey::Lookup;
use serde_json::Value;

use crate::support::{Offline, Online, code, err, json, key, ok, oncekey, out, run, state};

#[test]
fn b4_nothing_is_resolved_where_nobody_can_be_asked() {
    let offline = Offline::new();
    for more in [&[][..], &["--reason", "never charged"]] {
        let arguments = ["resolve", "release", "lost", "--scope", "t", "--store", &offline.store()];
        let output = run(&[&arguments, more].concat());
        assert_eq!(code(&output), 2, "{}", err(&output));
    }
    assert_eq!(
        json(&["orphans", "--store", &offline.store()])["orphans"][0]["token"],
        offline.token.as_str()
    );
}

#[test]
fn b5_of_two_who_resolve_one_orphan_one_is_told_that_it_was_second() {
    let online = Online::new();
    let arguments = [
        "resolve",
        "complete",
        "lost",
        "--scope",
        "t",
        "--store",
        &online.store(),
        "--token",
        &online.token,
        "--reason",
        "it went through",
        "--status",
        "201",
        "--header",
        "x-id: 7",
        "--body",
    ];
    // The two responses differ: the same bytes at the same moment are one decision, and both callers may be told OK.
    let bodies = ["by one", "by another"];
    let both = bodies.map(|body| {
        let mut command = oncekey(&arguments);
        command.arg(body).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let codes = both.map(|mut child| child.wait().unwrap().code().unwrap());
    let first = usize::from(codes[0] != 0);
    assert_eq!([codes[first], codes[1 - first]], [0, 6]);
    assert_eq!(
        ok(&["get", "lost", "--scope", "t", "--body", "--store", &online.store()]),
        bodies[first]
    );
    assert!(matches!(online.engine.get(&key("lost")).unwrap(), Lookup::Completed(_)));
    online.runtime.block_on(async {});
}

/// The store that is asked at its owner, or read from its files, and the token of its orphan.
fn place<'a>(served: bool, offline: &'a Offline, online: &'a Online) -> (String, &'a String) {
    match served {
        true => (online.store(), &online.token),
        false => (offline.store(), &offline.token),
    }
}

#[test]
fn b5_many_are_resolved_from_a_file_and_again_without_harm() {
    for served in [false, true] {
        let (offline, online) = (Offline::new(), Online::new());
        let (store, token) = place(served, &offline, &online);
        let lines = offline.dir.path().join("lines");
        std::fs::write(&lines, format!(
            "{{\"action\":\"release\",\"scope\":\"t\",\"key\":\"lost\",\"token\":\"{token}\",\"reason\":\"never charged\"}}\n\n\
             {{\"action\":\"complete\",\"scope\":\"t\",\"key\":\"none\",\"token\":\"a-1-1\",\"reason\":\"did happen\",\"status\":200,\"body\":\"x\"}}\n",
        )).unwrap();
        let many = |more: &[&str]| {
            let output =
                run(&[&["resolve", "--from", lines.to_str().unwrap(), "--store", &store], more]
                    .concat());
            let results: Vec<Value> =
                out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            (code(&output), results)
        };
        let before = state(Path::new(&store));
        let (dry, results) = many(&["--dry-run"]);
        assert_eq!((dry, &results[0]["would"]), (6, &"resolve".into()), "{results:?}");
        assert_eq!(
            (&results[1]["code"], &results[1]["error"]),
            (&"conflict".into(), &"no such key".into())
        );
        assert!(state(Path::new(&store)) == before, "a rehearsal changes nothing");
        let (first, results) = many(&[]);
        assert_eq!(
            (first, &results[0]["released"], &results[1]["code"]),
            (6, &true.into(), &"conflict".into()),
            "{results:?}"
        );
        let (again, results) = many(&[]);
        assert_eq!((again, &results[0]["code"]), (6, &"conflict".into()), "{results:?}");
        std::fs::write(&lines, "\n").unwrap();
        let before = state(Path::new(&store));
        assert_eq!(many(&[]).0, 0);
        assert!(state(Path::new(&store)) == before, "there was nothing to do");
    }
}

#[test]
fn b5_one_wrong_line_and_none_is_carried_out() {
    for served in [false, true] {
        let (offline, online) = (Offline::new(), Online::new());
        let (store, token) = place(served, &offline, &online);
        let sound = format!(
            "{{\"action\":\"complete\",\"scope\":\"t\",\"key\":\"lost\",\"token\":\"{token}\",\"reason\":\"INC-1\",\"status\":201,\"body\":\"yes\"}}"
        );
        let many = |text: &str| {
            let mut command = oncekey(&["resolve", "--from", "-", "--store", &store]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        for (part, wrong, said) in [
            ("{", "nonsense", "-:2: a line is an object"),
            ("\"t\"", "5", "-:2:"),
            ("\"yes\"", "5", "-:2:"),
            ("201", "600", "-:2: status"),
            ("INC-1", "no", "-:2: a reason"),
            ("lost", "100%", "-:2: key"),
        ] {
            let output = many(&format!("{sound}\r\n{}\n", sound.replacen(part, wrong, 1)));
            assert_eq!(
                (code(&output), out(&output).as_str()),
                (2, ""),
                "{wrong}: {}",
                err(&output)
            );
            assert!(err(&output).contains(said), "{wrong}: {}", err(&output));
        }
        assert_eq!(json(&["orphans", "--store", &store])["total"], 1);
        assert_eq!(code(&many(&format!("{sound}\r\n"))), 0);
        let body = ok(&["get", "lost", "--scope", "t", "--body", "--store", &store]);
        assert_eq!(body, "yes");
    }
}

#[test]
fn an_argument_before_the_decision_is_refused_and_a_lost_response_is_told() {
    let offline = Offline::new();
    let token = ["--token", &offline.token, "--reason", "INC-1"];
    // It would be for `--from` alone: the default store would be resolved, or a rehearsal would be none.
    for before in [&["--store", &offline.store()][..], &["--dry-run"]] {
        let arguments =
            [&["resolve"], before, &["release", "lost", "--scope", "t"], &token].concat();
        assert_eq!(code(&run(&arguments)), 2, "{before:?}");
    }
    let body = offline.dir.path().join("body");
    std::fs::write(&body, vec![b'x'; 2 << 20]).unwrap();
    let body = format!("@{}", body.display());
    let complete =
        ["resolve", "complete", "lost", "--scope", "t", "--status", "200", "--body", &body];
    let said = ok(&[&complete[..], &token, &["--store", &offline.store()]].concat());
    assert!(said.contains("too long to be kept"), "{said}");
}
