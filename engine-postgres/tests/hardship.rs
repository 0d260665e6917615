//! A full disk, a process that stands still beyond its lease, and a store that a newer build has begun to use.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::asking::*;
use common::{Cluster, cluster};
use oncekey::{Begin, Claim, Engine, ErrorKind};
use oncekey_postgres::Options;
use oncekey_testing::calls;

/// A file system of 8 MiB; `None` where this user may not mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(cluster: &Cluster) -> Option<Self> {
        let dir = cluster.dir.join("small");
        std::fs::create_dir_all(&dir).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs"])
            .arg(&dir)
            .stderr(Stdio::null())
            .status();
        if !mount.is_ok_and(|status| status.success()) {
            println!("LEFT OUT: a disk that is really full; this user may not mount a small one");
            return None;
        }
        let disk = Self(dir);
        let chown = Command::new("chown").arg("postgres").arg(&disk.0).status().unwrap();
        assert!(chown.success());
        Some(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server still has files in it; the mount goes with the last one.
        let _done = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_of_the_server_refuses_and_forgets_nothing_until_there_is_room() {
    let Some(cluster) = cluster() else { return };
    let Some(disk) = SmallDisk::mount(cluster) else { return };
    let database = cluster.database();
    let open = || cluster.options(&database, "").engine(impatient()).open().unwrap();
    let (one, other) = (open(), open());
    let kept = claim(&one, "kept");
    kept.complete(b"kept").wait().unwrap();
    let held = claim(&one, "held");
    let raw = cluster.raw(&database);
    raw.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display()));
    for leaf in 0..=8 {
        raw.run(&format!("ALTER TABLE oncekey.response_{leaf} SET TABLESPACE small"));
    }
    raw.run("CREATE TABLE filler (data bytea) TABLESPACE small; ALTER TABLE filler ALTER data SET STORAGE EXTERNAL");
    while raw.try_run("INSERT INTO filler SELECT convert_to(repeat('x', 7000), 'UTF8')").is_ok() {}
    full(&one, &other, held, || raw.run("DROP TABLE filler"));
    raw.run("DROP SCHEMA oncekey CASCADE");
    raw.run("DROP TABLESPACE small");
}

#[test]
fn a_server_that_says_53100_is_a_full_disk() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let open = || cluster.options(&database, "").engine(impatient()).open().unwrap();
    let (one, other) = (open(), open());
    claim(&one, "kept").complete(b"kept").wait().unwrap();
    let held = claim(&one, "held");
    let raw = cluster.raw(&database);
    raw.run(
        "CREATE FUNCTION oncekey.full() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON oncekey.response FOR EACH ROW EXECUTE FUNCTION oncekey.full()",
    );
    full(&one, &other, held, || raw.run("DROP TRIGGER full_disk ON oncekey.response"));
}

fn impatient() -> oncekey::fleet::Options {
    oncekey::fleet::Options {
        overload_after: Duration::from_secs(3),
        settle_for: Duration::from_secs(3),
        ..Default::default()
    }
}

/// No response can be written until `room` is made.
fn full(one: &Engine, other: &Engine, held: Claim, room: impl FnOnce()) {
    let failed = held.complete(&[7; 100_000]).wait().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::StoreFull, "{:?}", failed.error());
    let held = failed.into_handle().unwrap();
    // Neighbours that write no response are not held up, and what was stored is replayed.
    assert_eq!(replay(other, "kept"), b"kept");
    assert!(matches!(calls::begin(other, "held"), Begin::Locked(_)));
    room();
    held.complete(&[7; 100_000]).wait().unwrap();
    assert_eq!(replay(other, "held").len(), 100_000);
    claim(one, "new").complete(b"new").wait().unwrap();
}

/// This program again, as another process that claims a key and completes it when it is told to.
struct Other(Child, BufReader<ChildStdout>);

impl Other {
    fn start(url: &str, name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_process", "--nocapture"])
            .env("ONCEKEY_OTHER_URL", url)
            .env("ONCEKEY_OTHER_KEY", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self(child, out);
        assert_eq!(other.says(), "claimed");
        other
    }

    /// The next line of its output that is meant for this test.
    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "the other process ended");
            if let Some(said) = line.trim().strip_prefix("OTHER ") {
                return said.to_owned();
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    fn completes(mut self) -> String {
        self.0.stdin.take().unwrap().write_all(b"complete\n").unwrap();
        let said = self.says();
        self.0.wait().unwrap();
        said
    }
}

#[test]
fn the_other_process() {
    let Ok(url) = std::env::var("ONCEKEY_OTHER_URL") else { return };
    let name = std::env::var("ONCEKEY_OTHER_KEY").unwrap();
    let engine = Options::new(url).lease(Duration::from_secs(1)).open().unwrap();
    let held = claim(&engine, &name);
    println!("\nOTHER claimed");
    std::io::stdin().lines().next().unwrap().unwrap();
    match held.complete(b"late").wait() {
        Ok(_) => println!("\nOTHER completed"),
        Err(failed) => println!("\nOTHER {:?}", failed.kind()),
    }
}

#[test]
fn stopped_beyond_its_lease_a_process_completes_late_or_is_fenced_and_runs_nothing_twice() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let engine = cluster.options(&database, "").lease(Duration::from_secs(1)).open().unwrap();
    for taken_over in [false, true] {
        let name = format!("taken over: {taken_over}");
        let other = Other::start(&cluster.url(&database), &name);
        assert!(matches!(calls::begin(&engine, &name), Begin::Locked(_)));
        other.signal("-STOP");
        let left = orphan(&engine, &name);
        if taken_over {
            left.take_over().wait().unwrap().complete(b"by another").wait().unwrap();
        }
        other.signal("-CONT");
        let (said, stands) = match taken_over {
            false => ("completed", &b"late"[..]),
            true => ("Fenced", &b"by another"[..]),
        };
        let heard = other.completes();
        assert!(heard == said || taken_over && heard == "AlreadyCompleted", "{heard}");
        assert_eq!(replay(&engine, &name), stands);
    }
}

#[test]
fn killed_with_9_a_process_leaves_an_orphan_after_its_lease() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let engine = cluster.options(&database, "").lease(Duration::from_secs(1)).open().unwrap();
    let mut other = Other::start(&cluster.url(&database), "a");
    other.signal("-KILL");
    other.0.wait().unwrap();
    orphan(&engine, "a").take_over().wait().unwrap().complete(b"done").wait().unwrap();
}

/// The changes that a minor version may make: it adds to the tables, and raises `format` alone.
const NEXT_FORMAT: &str = "
    ALTER TABLE oncekey.key ADD COLUMN later text;
    ALTER TABLE oncekey.response ADD COLUMN later bigint DEFAULT 7;
    ALTER TABLE oncekey.instance ADD COLUMN later text;
    ALTER TABLE oncekey.orphan ADD COLUMN later text;
    ALTER TABLE oncekey.store ADD COLUMN later text;
    UPDATE oncekey.store SET format = 2;";

#[test]
fn rolling_update_two_formats_write_together_until_the_older_one_is_shut_out() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let raw = cluster.raw(&database);
    let before = cluster.options(&database, "").open().unwrap();
    let held = claim(&before, "across");
    raw.run(NEXT_FORMAT);
    let after = cluster.options(&database, "").open().unwrap();
    assert!(matches!(calls::begin(&after, "across"), Begin::Locked(_)));
    held.complete(b"done").wait().unwrap();
    assert_eq!(replay(&after, "across"), b"done");
    for (one, other, name) in [(&before, &after, "a"), (&after, &before, "b")] {
        let first = claim(one, name);
        first.checkpoint(b"half").wait().unwrap();
        // The newer build writes columns that the older one does not know.
        raw.run("UPDATE oncekey.key SET later = 'new'");
        drop(first);
        let second = orphan(other, name).take_over().wait().unwrap();
        second.complete(b"done").wait().unwrap();
        assert_eq!(replay(one, name), b"done");
        other.sweep().unwrap();
    }
    // The last step of a migration shuts older builds out at once: the boot mark makes each connection
    // look at the format again.
    raw.run("UPDATE oncekey.store SET min_format = 2; DELETE FROM oncekey.boot");
    for engine in [&before, &after] {
        assert_eq!(calls::begin_error(engine, "new").kind(), ErrorKind::StoreNewerFormat);
    }
    let refused = cluster.options(&database, "").open().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StoreNewerFormat);
    assert_eq!(raw.number("SELECT count(*) FROM oncekey.key"), 3, "untouched");
}
