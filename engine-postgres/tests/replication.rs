//! Waits for a standby that does not come: one server, one test.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Raw, ask, change, cluster};
use oncekey::fleet::store::{Failure, Group, RowState, Store};

fn standbys(raw: &Raw, names: &str) {
    raw.run(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
    raw.run("SELECT pg_reload_conf()");
    while raw.text("SHOW synchronous_standby_names") != names {
        std::thread::yield_now();
    }
}

const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'oncekey'";

/// Cancels waits for the standby until `done`, and says how many there were.
fn cancel_waits(raw: &Raw, done: impl Fn() -> bool) -> usize {
    let mut cancelled = 0;
    while !done() {
        for pid in raw.texts(WAITING) {
            raw.run(&format!("SELECT pg_cancel_backend({pid})"));
            cancelled += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    cancelled
}

#[test]
fn cancelled_synchronous_wait_the_answer_is_withheld_and_synchronous_commit_off_is_overruled() {
    let Some(cluster) = cluster() else { return };
    // A role that would hide the warning and not wait for the disk.
    let database = cluster.database();
    let raw = cluster.raw(&database);
    raw.run(&format!("ALTER DATABASE {database} SET client_min_messages = error"));
    raw.run(&format!("ALTER DATABASE {database} SET synchronous_commit = off"));
    raw.run("ALTER SYSTEM SET wal_writer_delay = '10s'");
    let raw = cluster.raw(&database);
    raw.run("SELECT pg_reload_conf(); SET synchronous_commit = on");
    let opened = cluster.open(&database, "", Duration::from_secs(600));
    let (image, version) = opened.granted(1);
    let lag = "SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()";
    assert_eq!(raw.text(lag), "0", "the group was durable when it was answered");

    let group = |number, image| Group {
        lane: 0,
        instance: opened.instance,
        number,
        valid_until: u64::MAX,
        durable: true,
        images: vec![image],
    };
    let send = |group| {
        let (sender, receiver) = std::sync::mpsc::channel();
        opened.store.group(group, Box::new(move |answer| drop(sender.send(answer))));
        receiver
    };

    standbys(&raw, "nobody");
    let complete = change(&image, version, RowState::Completed);
    let receiver = send(group(7, complete));
    let until = std::time::Instant::now() + Duration::from_secs(1);
    let cancelled = cancel_waits(&raw, || std::time::Instant::now() > until);
    assert!(cancelled > 1, "the group and each heartbeat behind it");
    // The group is committed and visible here, but not acknowledged: no caller is told.
    assert_eq!(raw.number("SELECT state FROM oncekey.key"), 3);
    assert!(receiver.try_recv().is_err());
    standbys(&raw, "");
    let answer = receiver.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
    assert_eq!(answer.applied.len(), 1);

    // When the session of the server ends meanwhile, the outcome is unknown. Sending the group again settles it.
    standbys(&raw, "nobody");
    let image = opened.claim(2);
    let again = group(8, image.clone());
    let receiver = send(again.clone());
    while raw.texts(WAITING).is_empty() {
        std::thread::yield_now();
    }
    raw.run(&format!("SELECT pg_terminate_backend(pid) FROM ({WAITING}) w"));
    let answer = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(matches!(answer, Err(Failure::Unknown(_))), "{answer:?}");
    standbys(&raw, "");
    let row = ask(|done| opened.store.group(again, done)).unwrap().found.rows.remove(0);
    assert_eq!((row.writer, row.op), (image.writer, image.op));
}
