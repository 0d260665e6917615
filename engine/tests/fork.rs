//! The promise to a process that forks: a child that does not touch the engine and ends with `_exit` or `exec` does
//! its parent no harm. While the child lives, it keeps the store locked.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use oncekey::{Begin, Claim, Engine, ErrorKind, Fingerprint, Key};

/// A child inherits the open stores of all tests: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap()
}

fn store(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("oncekey-{name}-{}", std::process::id()));
    std::fs::remove_dir_all(&dir).ok();
    dir
}

fn claim(engine: &Engine, name: &str) -> Claim {
    let begun = engine.begin(&Key::new("", name).unwrap(), Fingerprint::builder().finish());
    match begun.wait().unwrap() {
        Begin::Claimed(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn replays(engine: &Engine, name: &str) -> bool {
    let begun = engine.begin(&Key::new("", name).unwrap(), Fingerprint::builder().finish());
    matches!(begun.wait().unwrap(), Begin::Replay(_))
}

/// A child that does nothing but wait for the end of a pipe and `_exit`.
struct Child {
    pid: libc::pid_t,
    pipe: Option<std::io::PipeWriter>,
}

impl Child {
    fn fork() -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        let (read, write) = (reader.as_raw_fd(), writer.as_raw_fd());
        // SAFETY: the child calls close, read and _exit alone, which may be called after a fork of
        // a process with threads; it touches no memory that another thread may have locked.
        let pid = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::close(write);
                let mut byte = 0_u8;
                libc::read(read, (&raw mut byte).cast(), 1);
                libc::_exit(i32::from(byte));
            }
            pid
        };
        assert!(pid > 0);
        Self { pid, pipe: Some(writer) }
    }

    fn end(mut self) {
        self.pipe.take().unwrap().write_all(&[7]).unwrap();
        let mut status = 0;
        // SAFETY: waits for a child of our own, into an integer of our own.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!((waited, libc::WEXITSTATUS(status)), (self.pid, 7));
    }
}

fn in_use(dir: &PathBuf) -> bool {
    Engine::open(dir).is_err_and(|error| error.kind() == ErrorKind::StoreInUse)
}

#[test]
fn a_child_that_leaves_the_engine_alone_does_no_harm() {
    let _alone = alone();
    let dir = store("fork");
    let engine = Engine::open(&dir).unwrap();
    let held = claim(&engine, "across");
    Child::fork().end();
    // The end of the child neither unlocks the store nor stops the engine.
    assert!(in_use(&dir));
    held.complete(b"answer").wait().unwrap();
    claim(&engine, "later").complete(b"answer").wait().unwrap();
    engine.fold().unwrap();
    // A child that runs another program inherits nothing, and does no harm either.
    assert!(std::process::Command::new("true").status().unwrap().success());
    assert!(in_use(&dir));
    engine.close().unwrap();
    let engine = Engine::open(&dir).unwrap();
    assert!(replays(&engine, "across") && replays(&engine, "later"));
    drop(engine);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_child_that_lives_on_keeps_the_store_locked() {
    let _alone = alone();
    let dir = store("fork-locked");
    let engine = Engine::open(&dir).unwrap();
    claim(&engine, "k").complete(b"answer").wait().unwrap();
    let child = Child::fork();
    drop(engine);
    assert!(in_use(&dir), "the child holds what it inherited");
    child.end();
    let engine = Engine::open(&dir).unwrap();
    assert!(replays(&engine, "k"));
    drop(engine);
    std::fs::remove_dir_all(dir).unwrap();
}
