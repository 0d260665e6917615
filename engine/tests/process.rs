//! Real processes on a real filesystem. A child under load is killed with -9 again and again, and
//! its successor must find what the child was told before each kill. And disks that are full,
//! read-only or forbidden.
//!
//! `ONCEKEY_SEEDS=0..1000 cargo test --release -p oncekey --test process` kills a thousand times.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::caller::{Caller, Sink, Token};
use common::*;
use oncekey::{Begin, Engine, ErrorKind, Options};
use oncekey_testing::{Answer, Call, CallId, History};

const KEYS: u8 = 12;
const THREADS: u64 = 4;
/// A day, longer than any of these tests takes, so that nothing expires.
const DAY_MS: u64 = 86_400_000;

fn options() -> Options {
    // Small, so that folds, merges and recycling are under way when the kill comes.
    Options::new()
        .max_response(4096)
        .max_checkpoint(1024)
        .segment_bytes(128 << 10)
        .recent_bytes(64 << 10)
}

/// A directory that is removed when the test ends well.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("oncekey-{name}-{}", std::process::id()));
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the store is in {}", self.0.display());
        } else {
            fs::remove_dir_all(&self.0).ok();
        }
    }
}

/// Reports to the parent with one write for each line, so that lines of threads do not mix and have
/// the order of their events.
struct Pipe {
    calls: AtomicUsize,
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
}

impl Sink for Pipe {
    fn call(&self, key: u8, call: Call<Token>) -> CallId {
        let id = self.calls.fetch_add(1, Ordering::Relaxed);
        tell(&format!("\n@call {id} {key} {}\n", call_words(&call)));
        CallId(id)
    }
    fn answer(&self, CallId(id): CallId, answer: Answer<Token>) {
        tell(&format!("\n@answer {id} {}\n", answer_words(&answer)));
    }
}

fn hex(token: &Token) -> String {
    token.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(word: &str) -> Token {
    std::array::from_fn(|at| u8::from_str_radix(&word[2 * at..2 * at + 2], 16).unwrap())
}

fn call_words(call: &Call<Token>) -> String {
    match call {
        Call::Begin { body } => format!("begin {body}"),
        Call::Complete { token, response } => format!("complete {} {response}", hex(token)),
        Call::Abort { token } => format!("abort {}", hex(token)),
        Call::Checkpoint { token, data } => format!("checkpoint {} {data}", hex(token)),
        Call::Drop { token } => format!("drop {}", hex(token)),
        Call::TakeOver { token } => format!("take {}", hex(token)),
        Call::Release { token } => format!("release {}", hex(token)),
        Call::Get | Call::Withdraw | Call::Lapse | Call::Elapse { .. } => {
            unreachable!("a worker makes none")
        }
    }
}

fn parse_call(words: &[&str]) -> Call<Token> {
    let byte = |at: usize| words[at].parse().unwrap();
    let token = || unhex(words[1]);
    match words[0] {
        "begin" => Call::Begin { body: byte(1) },
        "complete" => Call::Complete { token: token(), response: byte(2) },
        "abort" => Call::Abort { token: token() },
        "checkpoint" => Call::Checkpoint { token: token(), data: byte(2) },
        "drop" => Call::Drop { token: token() },
        "take" => Call::TakeOver { token: token() },
        "release" => Call::Release { token: token() },
        other => panic!("{other}"),
    }
}

fn answer_words(answer: &Answer<Token>) -> String {
    match answer {
        Answer::Claimed { token, attempt, checkpoint } => {
            let checkpoint = match checkpoint {
                None => "unread".to_owned(),
                Some(None) => "none".to_owned(),
                Some(Some(data)) => data.to_string(),
            };
            format!("claimed {} {attempt} {checkpoint}", hex(token))
        }
        Answer::Replay(response) => format!("replay {response}"),
        Answer::Locked => "locked".into(),
        Answer::Mismatch => "mismatch".into(),
        Answer::Orphaned(token) => format!("orphaned {}", hex(token)),
        Answer::Done => "done".into(),
        Answer::Fenced => "fenced".into(),
        Answer::AlreadyCompleted => "already".into(),
        Answer::Refused => "refused".into(),
        Answer::Unknown => "unknown".into(),
        Answer::Absent | Answer::Unheard => {
            unreachable!("no call of a worker is answered so")
        }
    }
}

fn parse_answer(words: &[&str]) -> Answer<Token> {
    match words[0] {
        "claimed" => Answer::Claimed {
            token: unhex(words[1]),
            attempt: words[2].parse().unwrap(),
            checkpoint: (words[3] != "unread").then(|| words[3].parse().ok()),
        },
        "replay" => Answer::Replay(words[1].parse().unwrap()),
        "locked" => Answer::Locked,
        "mismatch" => Answer::Mismatch,
        "orphaned" => Answer::Orphaned(unhex(words[1])),
        "done" => Answer::Done,
        "fenced" => Answer::Fenced,
        "already" => Answer::AlreadyCompleted,
        "refused" => Answer::Refused,
        "unknown" => Answer::Unknown,
        other => panic!("{other}"),
    }
}

/// The child: works until it is killed.
fn work_until_killed(dir: &Path, seed: u64) {
    let engine = options().open(dir).unwrap();
    let pipe = Pipe { calls: AtomicUsize::new(0) };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let random = Random::new(seed.wrapping_mul(THREADS).wrapping_add(thread));
            let caller =
                Caller { engine: &engine, sink: &pipe, random, keys: KEYS, claims: Vec::new() };
            scope.spawn(|| caller.run(1_000_000));
        }
    });
}

/// Kills a child after a number of lines. Returns its lines, read to the end of the pipe.
fn killed_child(dir: &Path, seed: u64, after: u64) -> Vec<String> {
    let mut child = this_test("a_process_killed_at_any_moment_loses_nothing_it_was_told")
        .env("ONCEKEY_TEST_CHILD", dir)
        .env("ONCEKEY_TEST_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if let Some(line) = line.strip_prefix('@') {
            told.push(line.to_owned());
        }
        if told.len() as u64 == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(told.len() as u64 >= after, "the child ended by itself after {}", told.len());
    told
}

#[test]
fn a_process_killed_at_any_moment_loses_nothing_it_was_told() {
    if let Some(dir) = std::env::var_os("ONCEKEY_TEST_CHILD") {
        let seed = std::env::var("ONCEKEY_TEST_SEED").unwrap().parse().unwrap();
        return work_until_killed(Path::new(&dir), seed);
    }
    let scratch = Scratch::new("kill");
    let history = History::new();
    let (mut known, mut answers) = (BTreeMap::new(), 0);
    for seed in seeds(0..50) {
        let _named = Seed(seed);
        let after = 1 + Random::new(seed).below(600);
        known.clear();
        for line in killed_child(&scratch.0, seed, after) {
            let words: Vec<_> = line.split_whitespace().collect();
            let id: usize = words[1].parse().unwrap();
            if words[0] == "call" {
                let call = parse_call(&words[3..]);
                known.insert(id, history.call(words[2].parse().unwrap(), call));
            } else {
                answers += 1;
                history.answer(known[&id], parse_answer(&words[2..]));
            }
        }
        let verified = oncekey::verify(&scratch.0).unwrap();
        assert!(verified.is_sound(), "{verified:?}");
        history.restart(0);
    }
    eprintln!("{} calls, {answers} answers", history.calls());
    history.check(DAY_MS).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Mounts a filesystem, and unmounts it.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(dir: &Path, options: &str) -> Option<Self> {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A child of another test holds the files that are open here until it runs its program.
        let unmounted = (0..1000).any(|_| {
            let umount = Command::new("umount").arg(&self.0).stderr(Stdio::null()).status();
            let unmounted = umount.is_ok_and(|status| status.success());
            if !unmounted {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            unmounted
        });
        assert!(unmounted || std::thread::panicking());
    }
}

/// Completes keys until one is refused. Returns the number of acknowledged keys, and the kind of
/// the refusal.
fn fill(engine: &Engine) -> (usize, ErrorKind) {
    for acknowledged in 0..10_000 {
        let name = format!("key {acknowledged}");
        let claim = match engine.begin(&key(&name), body("a")).wait() {
            Ok(Begin::Claimed(claim)) => claim,
            Ok(other) => panic!("{name} is {other:?}"),
            Err(error) => return (acknowledged, error.kind()),
        };
        if let Err(failed) = claim.complete(&[7; 4096]).wait() {
            return (acknowledged, failed.kind());
        }
    }
    panic!("3 MiB hold no 40 MB");
}

fn all_replay(engine: &Engine, acknowledged: usize) {
    for number in 0..acknowledged {
        let recorded = replay(engine, &format!("key {number}"));
        assert_eq!(recorded.response(), Some(&[7; 4096][..]), "key {number}");
    }
}

fn remount(dir: &Path, how: &str) {
    let status = Command::new("mount").args(["-o", how]).arg(dir).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_full_filesystem_that_grows_is_used_again() {
    let scratch = Scratch::new("grows");
    let Some(_mount) = Mount::tmpfs(&scratch.0, "size=3m") else {
        return eprintln!("skipped: a small filesystem cannot be mounted here");
    };
    let engine = options().open(scratch.0.join("store")).unwrap();
    let (acknowledged, full) = fill(&engine);
    if full == ErrorKind::Unavailable {
        return eprintln!("skipped: it was the store file that could not grow");
    }
    assert_eq!(full, ErrorKind::StoreFull);
    all_replay(&engine, acknowledged);
    remount(&scratch.0, "remount,size=64m");
    while let Err(error) = engine.begin(&key("room again"), body("a")).wait() {
        assert_eq!(error.kind(), ErrorKind::StoreFull);
        std::thread::yield_now();
    }
    engine.fold().unwrap();
    all_replay(&engine, acknowledged);
    assert_eq!(engine.stats().failures, 0);
}

#[test]
fn a_full_filesystem_refuses_claims_and_keeps_what_was_acknowledged() {
    let scratch = Scratch::new("full");
    let Some(_mount) = Mount::tmpfs(&scratch.0, "size=3m") else {
        return eprintln!("skipped: a small filesystem cannot be mounted here");
    };
    let dir = scratch.0.join("store");
    let engine = options().open(&dir).unwrap();
    let (acknowledged, full) = fill(&engine);
    let expected = [ErrorKind::StoreFull, ErrorKind::OutcomeUnknown, ErrorKind::Unavailable];
    assert!(expected.contains(&full), "{full:?}");
    assert!(acknowledged > 50, "{acknowledged}");
    drop(engine);
    // The disk is still full. The engine may refuse to open or to answer, but every answer is
    // right.
    match options().open(&dir) {
        Ok(engine) => (0..acknowledged).for_each(|number| {
            match engine.begin(&key(format!("key {number}")), body("a")).wait() {
                Ok(Begin::Replay(recorded)) => {
                    assert_eq!(recorded.response(), Some(&[7; 4096][..]), "key {number}");
                }
                Ok(other) => panic!("key {number} is {other:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
        }),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::StoreFull), "{error:?}");
        }
    }
    remount(&scratch.0, "remount,size=64m");
    let engine = options().open(&dir).unwrap();
    all_replay(&engine, acknowledged);
    complete(&engine, "room again", b"yes");
}

#[test]
fn a_read_only_filesystem_is_refused_and_left_untouched() {
    let scratch = Scratch::new("read-only");
    let Some(_mount) = Mount::tmpfs(&scratch.0, "size=8m") else {
        return eprintln!("skipped: a small filesystem cannot be mounted here");
    };
    let dir = scratch.0.join("store");
    let engine = options().open(&dir).unwrap();
    complete(&engine, "k", b"answer");
    engine.close().unwrap();
    drop(engine);
    remount(&scratch.0, "remount,ro");
    let error = options().open(&dir).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::StoreUnreadable | ErrorKind::Io), "{error:?}");
    remount(&scratch.0, "remount,rw");
    assert_eq!(replay(&options().open(&dir).unwrap(), "k").response(), Some(&b"answer"[..]));
}

#[test]
fn a_forbidden_store_is_refused_and_left_untouched() {
    if is_root() {
        return eprintln!("skipped: nothing is forbidden to root");
    }
    let scratch = Scratch::new("forbidden");
    let dir = scratch.0.join("store");
    let engine = options().open(&dir).unwrap();
    complete(&engine, "k", b"answer");
    engine.close().unwrap();
    let mode = |mode| {
        let file = dir.join("store.redb");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o000);
    assert_eq!(options().open(&dir).unwrap_err().kind(), ErrorKind::StoreUnreadable);
    mode(0o600);
    assert_eq!(replay(&options().open(&dir).unwrap(), "k").response(), Some(&b"answer"[..]));
}
