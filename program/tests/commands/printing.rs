//! The output for a reader that goes away, a terminal, a shell and a manual, and its size.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use http::{HeaderMap, StatusCode};
use oncekey::{Begin, Engine, Fingerprint};
use oncekey_http::StoredResponse;

use crate::support::{Offline, key, ok, oncekey, orphan, out};

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
    // roff reads ASCII without a preprocessor; … is one of the other characters.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        assert!(std::fs::read(entry.unwrap().path()).unwrap().is_ascii());
    }
    assert!(page.contains("\\[u2026]") && ok(&["man"]).is_ascii());
    let root = std::fs::read_to_string(dir.path().join("oncekey.1")).unwrap();
    assert!(root.contains("130") && ok(&["--help"]).contains("130"));
}

/// Ten million keys: the first rows come at once, and an export keeps no rows in memory.
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
    use crate::support::{code, err, run};
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
