//! The commands of operators, as a shell runs them: rows B1 to B12 of docs/commands.md.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use http::{HeaderMap, StatusCode};
use oncekey::{Begin, Engine, Fingerprint, Key, Lookup, Options};
use oncekey_http::{Access, Admin, ControlSocket, IdempotencyLayer, StoredResponse};
use serde_json::Value;

fn oncekey(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncekey"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ONCEKEY_")) {
        command.env_remove(name);
    }
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    oncekey(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a command that must succeed printed.
fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
    out(&output)
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&ok(&[arguments, &["--json"]].concat())).unwrap()
}

fn key(name: &str) -> Key {
    Key::new("t", name).unwrap()
}

fn claim(engine: &Engine, name: &str) -> oncekey::Claim {
    match engine.begin(&key(name), Fingerprint::builder().finish()).wait().unwrap() {
        Begin::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn complete(engine: &Engine, name: &str, status: u16, body: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "text/plain".parse().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    let response = StoredResponse::new(status, &headers, body.to_owned()).encode().unwrap();
    claim(engine, name).complete(&response).wait().unwrap();
}

/// Waits: the end of a claim that is dropped is on its way when the drop returns.
fn orphan(engine: &Engine, name: &str) -> String {
    let held = claim(engine, name);
    held.checkpoint(b"half way").wait().unwrap();
    drop(held);
    loop {
        if let Lookup::Orphaned(orphan) = engine.get(&key(name)).unwrap() {
            return orphan.token().to_string();
        }
        std::thread::yield_now();
    }
}

/// A store with five completed keys and an orphan.
fn filled(options: Options, store: &Path) -> (Engine, String) {
    let engine = options.open(store).unwrap();
    for number in 0..5 {
        complete(&engine, &format!("order-{number}"), 201, &format!("body {number}"));
    }
    complete(&engine, "sad", 503, "no");
    let token = orphan(&engine, "lost");
    engine.fold().unwrap();
    (engine, token)
}

/// A store that nobody has open.
struct Offline {
    dir: tempfile::TempDir,
    token: String,
}

impl Offline {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (engine, token) = filled(Options::new(), &dir.path().join("keys"));
        engine.close().unwrap();
        Self { dir, token }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn store(&self) -> String {
        self.path().display().to_string()
    }
}

/// A store whose owner answers at a control socket and, with tokens, at a port.
struct Online {
    engine: Engine,
    token: String,
    url: String,
    _socket: ControlSocket,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Online {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let (engine, token) = filled(Options::new(), &dir.path().join("keys"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let admin = Admin::new(IdempotencyLayer::new(engine.clone()))
            .backups(dir.path().join("backups"))
            .show_responses(true)
            .on_reload(|| async { Err(vec!["line 1: no".to_owned()]) });
        let _socket = admin.clone().control_socket(&socket).unwrap();
        let access = Access::new()
            .operator_token_file(dir.path().join("operator"))
            .and_then(|access| access.viewer_token_file(dir.path().join("viewer")))
            .unwrap();
        let router = admin.guarded(access);
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        drop(_inside);
        Self { engine, token, url, _socket, runtime, dir }
    }

    fn store(&self) -> String {
        self.dir.path().join("keys").display().to_string()
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// The bytes and the times of every file of a store.
fn state(store: &Path) -> BTreeMap<PathBuf, (Vec<u8>, [i64; 4])> {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let stat = |path: PathBuf| {
        let meta = std::fs::metadata(&path).unwrap();
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        let bytes = if path.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        (path, (bytes, times))
    };
    entries.chain([store.to_owned()]).map(stat).collect()
}

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
    // Arguments, then the codes of: well, nothing there, held, a wrong token.
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
        (&["health"], [1, 1, 1, 1]),
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
            [2, 1, 5, 7],
        ),
        (
            &[
                "resolve", "complete", "lost", "--scope", "t", "--token", token, reason,
                "--status", "101",
            ],
            [2, 1, 5, 7],
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
                // What is told by the code alone, or by what was printed.
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
    // The stores have other secrets, and so another order.
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

fn flip(store: &Path, prefix: &str, at: usize) {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let path = entries.into_iter().find(named).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

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
fn b7_a_backup_that_was_cut_off_is_no_store() {
    let offline = Offline::new();
    let to = offline.dir.path().join("copy");
    let copy = to.display().to_string();
    ok(&["backup", &copy, "--store", &offline.store()]);
    ok(&["verify", &copy]);
    // As a kill leaves it at any moment: the mark, and some of the files.
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
    // And killed, at moments that nobody chose.
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
    // A store beside them, one that a backup became, and what others keep there.
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

    // A backup that is damaged removes nothing, and neither does one that cannot be made.
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

    // Of a running server as well, on the same machine.
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
    let output = run(&["stats", "--store", url, "-v"]);
    assert_eq!((code(&output), err(&output).contains("secret")), (1, false), "{}", err(&output));
}

#[test]
fn b10_a_reader_that_goes_away_is_no_failure() {
    let offline = Offline::new();
    for command in ["ls", "export", "stats", "orphans"] {
        let mut child = oncekey(&[command, "--store", &offline.store(), "--color", "always"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(
            (child.wait().unwrap().code(), said.contains("panic")),
            (Some(0), false),
            "{command}: {said}"
        );
    }
    assert!(!ok(&["ls", "--store", &offline.store()]).contains('\x1b'));
}

#[test]
fn b11_colours_and_columns_are_those_that_were_asked_for() {
    let offline = Offline::new();
    let with = |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = oncekey(&[&["ls", "--store", &offline.store()], more].concat());
        out(&command.envs(variables.iter().copied()).output().unwrap())
    };
    assert!(with(&[], &["--color", "always"]).contains("\x1b[1m"));
    assert!(with(&[("NO_COLOR", "1")], &["--color", "always"]).contains("\x1b[1m"));
    assert!(with(&[("CLICOLOR_FORCE", "1")], &[]).contains("\x1b[1m"));
    for plain in [
        with(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], &[]),
        with(&[("CLICOLOR_FORCE", "1")], &["--color", "never"]),
        with(&[], &[]),
    ] {
        assert!(!plain.contains('\x1b'));
    }
    let narrow = with(&[("COLUMNS", "40")], &[]);
    assert!(
        narrow.lines().all(|line| line.chars().count() <= 40) && narrow.contains('…'),
        "{narrow}"
    );
    assert_eq!(narrow.lines().count(), with(&[], &[]).lines().count());
    assert!(with(&[], &["--time", "ago"]).contains(" ago"));
    assert!(with(&[], &["--time", "utc"]).contains('Z'));
}

#[test]
fn b12_completions_and_the_manual_know_every_flag() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(ok(&["completions", shell]).contains("give-up-after"), "{shell}");
    }
    let mut bash =
        Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let script = format!(
        "source <({} completions bash) && complete -p oncekey\n",
        env!("CARGO_BIN_EXE_oncekey")
    );
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(out(&bash.wait_with_output().unwrap()).contains("complete"));
    let dir = tempfile::tempdir().unwrap();
    ok(&["man", dir.path().to_str().unwrap()]);
    let page = std::fs::read_to_string(dir.path().join("oncekey-proxy.1")).unwrap();
    let help = ok(&["proxy", "--help"]);
    let flags = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 3);
    let page = page.replace("\\-", "-");
    for flag in flags {
        let flag = flag.split(['[', '=']).next().unwrap();
        let flag = flag.trim_matches(|end: char| !end.is_ascii_alphanumeric() && end != '-');
        assert!(page.contains(flag), "{flag} is not in the manual");
    }
    for command in ["stats", "resolve-release", "resolve-complete", "doctor"] {
        assert!(dir.path().join(format!("oncekey-{command}.1")).exists(), "{command}");
    }
    let root = std::fs::read_to_string(dir.path().join("oncekey.1")).unwrap();
    assert!(root.contains("130") && ok(&["--help"]).contains("130"));
}

/// The commands of a marked block of docs/commands.md, each with the exit code that it ends with.
fn documented(mark: &str) -> Vec<Vec<(String, i32)>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    let page = std::fs::read_to_string(page).unwrap();
    let begin = format!("<!-- {mark} -->\n```sh\n");
    let blocks = page.split(&begin).skip(1);
    let line = |line: &str| match line.split_once("    # exit ") {
        Some((command, code)) => (command.to_owned(), code.parse().unwrap()),
        None => (line.to_owned(), 0),
    };
    blocks.map(|block| block.split("```").next().unwrap().lines().map(line).collect()).collect()
}

/// Runs a script that finds the program by its name.
fn bash(script: &str, dir: &Path) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_oncekey")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).env("PATH", path).current_dir(dir).stdin(Stdio::null());
    bash.output().unwrap()
}

/// Runs the lines of a block in one shell, and gives the names of the commands in it.
fn shell(block: &[(String, i32)], dir: &Path) -> Vec<String> {
    let mut script = String::new();
    for (command, code) in block {
        script.push_str(&format!(
            "{command}\nx=$?; [ $x = {code} ] || {{ echo \"$x, not {code}: {}\" >&2; exit 99; }}\n",
            command.replace(['"', '$', '\'', '`', '\\'], " "),
        ));
    }
    let ran = bash(&script, dir);
    assert_eq!(code(&ran), 0, "{}{}", out(&ran), err(&ran));
    let words = block.iter().filter_map(|(command, _)| command.strip_prefix("oncekey "));
    words.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_of_the_page_does_what_the_page_says() {
    let (offline, online) = (Offline::new(), Online::new());
    let mut run: Vec<String> = Vec::new();
    for block in documented("files") {
        run.extend(shell(&block, offline.dir.path()));
    }
    for block in documented("server") {
        run.extend(shell(&block, online.dir.path()));
    }
    let help = ok(&["--help"]);
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for name in names.filter_map(|line| line.split_whitespace().next()) {
        // These need a server of the proxy, a terminal, or another page.
        let elsewhere = ["proxy", "check", "top", "console", "help"].contains(&name);
        assert!(
            elsewhere || run.iter().any(|command| command == name),
            "{name} is not on the page"
        );
    }
    let page = include_str!("../../docs/commands.md");
    let codes = help.split("Exit codes:").nth(1).unwrap();
    for line in codes.lines().filter(|line| !line.trim().is_empty()) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let words = |text: &str| text.replace(['`', '(', ')'], "");
        let row = format!("| {code} | {} |", words(meaning.trim()));
        assert!(words(page).contains(&row), "{row}");
    }
}

#[test]
fn many_orphans_are_resolved_as_the_page_says() {
    if Command::new("jq").arg("--version").output().is_err() {
        return println!("LEFT OUT: the lines of JSON that jq makes: there is no jq");
    }
    let offline = Offline::new();
    let block = documented("files, with jq").remove(0);
    let script: String = block.iter().map(|(line, _)| format!("{line}\n")).collect();
    let ran = bash(&script, offline.dir.path());
    assert_eq!(code(&ran), 0, "{}{}", out(&ran), err(&ran));
    assert!(out(&ran).contains("lost"), "{}{}", out(&ran), err(&ran));
}

/// Ten million keys: the first rows come at once, and an export keeps nothing.
#[test]
#[ignore = "takes minutes; program/tests/commands.sh b9"]
fn b9_a_large_store_is_listed_at_once_and_exported_in_little_memory() {
    let keys: usize =
        std::env::var("ONCEKEY_B9_KEYS").map_or(10_000_000, |keys| keys.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("keys");
    let engine = Engine::open(&store).unwrap();
    let response = StoredResponse::new(StatusCode::OK, &HeaderMap::new(), "ok").encode().unwrap();
    for chunk in 0..keys.div_ceil(10_000) {
        let begun: Vec<_> = (0..10_000.min(keys - chunk * 10_000))
            .map(|at| engine.begin(&key(&format!("{chunk}-{at}")), Fingerprint::builder().finish()))
            .collect();
        let ends: Vec<_> = begun
            .into_iter()
            .map(|begun| match begun.wait().unwrap() {
                Begin::Claimed(claim) => claim.complete(&response),
                other => panic!("{other:?}"),
            })
            .collect();
        for end in ends {
            end.wait().unwrap();
        }
    }
    orphan(&engine, "lost");
    engine.close().unwrap();
    let store = store.display().to_string();
    for command in [&["ls", "--limit", "10"][..], &["orphans"], &["stats"]] {
        let began = std::time::Instant::now();
        ok(&[command, &["--store", &store]].concat());
        println!("{command:?}: {:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    let mut export =
        oncekey(&["export", "--store", &store]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut lines, mut most, mut buffer) = (0, 0, vec![0; 1 << 16]);
    let mut from = export.stdout.take().unwrap();
    let status = format!("/proc/{}/status", export.id());
    loop {
        let read = from.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        if let Ok(status) = std::fs::read_to_string(&status) {
            let rss = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let rss = rss.and_then(|rss| rss.trim().trim_end_matches(" kB").parse::<u64>().ok());
            most = most.max(rss.unwrap_or(0));
        }
    }
    assert!(export.wait().unwrap().success());
    println!("export of {lines} keys: {:?}, {} MiB", began.elapsed(), most >> 10);
    assert_eq!(lines, keys + 1);
    assert!(most < 200 << 10, "{most} KiB");
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_program_that_sends_no_spans_refuses_a_collector() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oncekey.toml");
    let text = "[upstream]\nurls = [\"http://127.0.0.1:1\"]\n[traces]\ncollector = ";
    let check = |collector: &str| {
        std::fs::write(&path, format!("{text}{collector:?}")).unwrap();
        run(&["check", "--config", path.to_str().unwrap()])
    };
    let output = check("http://127.0.0.1:4318");
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("--features otel"), "{}", err(&output));
    assert_eq!(code(&check("")), 0);
}
