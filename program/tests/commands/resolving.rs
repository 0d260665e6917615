//! Orphans are resolved, one or many.

use std::process::Stdio;

use oncekey::Lookup;
use serde_json::Value;

use crate::support::{Offline, Online, code, err, json, key, ok, oncekey, out, run};

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
    // Other bytes each: the same bytes at the same moment are one decision, and both may be told so.
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

#[test]
fn b5_many_are_resolved_from_a_file_and_again_without_harm() {
    for served in [false, true] {
        let (offline, online) = (Offline::new(), Online::new());
        let (store, token) = if served {
            (online.store(), &online.token)
        } else {
            (offline.store(), &offline.token)
        };
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
        let (dry, results) = many(&["--dry-run"]);
        assert_eq!((dry, &results[0]["would"]), (6, &"resolve".into()), "{results:?}");
        let (first, results) = many(&[]);
        assert_eq!(
            (first, &results[0]["released"], &results[1]["code"]),
            (6, &true.into(), &"conflict".into()),
            "{results:?}"
        );
        let (again, results) = many(&[]);
        assert_eq!((again, &results[0]["code"]), (6, &"conflict".into()), "{results:?}");
        std::fs::write(&lines, "{\"action\":\"release\"}").unwrap();
        assert_eq!(many(&[]).0, 2);
    }
}
