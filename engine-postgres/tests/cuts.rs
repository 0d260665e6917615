//! Connections that end at each message of the protocol, in both directions, for each command: whatever was
//! under way is settled, no operation is granted twice, and no caller waits for ever.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::asking::*;
use common::proxy::{Fate, From, Plan, Proxy};
use common::{Cluster, Raw, cluster};
use oncekey::{Engine, ErrorKind, Fingerprint, Key};
use oncekey_postgres::Options;

/// Two engines on one database, the first behind a proxy.
struct Fleet {
    proxy: Proxy,
    one: Engine,
    other: Engine,
    raw: Raw,
}

impl Fleet {
    fn start(cluster: &Cluster, database: &str, patience: Duration) -> Self {
        let proxy = Proxy::start(cluster.port);
        let engine = |patience| oncekey::fleet::Options {
            overload_after: patience,
            settle_for: patience,
            // No heartbeat comes between the messages that are counted.
            lease: Duration::from_secs(600),
            upkeep_interval: Duration::from_secs(3600),
            ..Default::default()
        };
        let other = cluster.options(database, "").engine(engine(2 * LONG)).open().unwrap();
        let through = format!("host=127.0.0.1 port={} user=postgres dbname={database}", proxy.port);
        let one = Options::new(through).engine(engine(patience)).open().unwrap();
        Self { proxy, one, other, raw: cluster.raw(database) }
    }
}

const COMMANDS: [&str; 7] =
    ["begin", "complete", "abort", "checkpoint", "take over", "release", "drop"];

/// Runs a command at the engine behind the proxy once `plan` is made, and looks at the other one.
fn run(fleet: &Fleet, command: &str, name: &str, plan: impl FnOnce()) {
    let Fleet { one, other, .. } = fleet;
    match command {
        "begin" => {
            plan();
            let claim = claim(one, name);
            assert_eq!(claim.attempt(), 1);
            claim.complete(b"done").wait().unwrap();
            assert_eq!(replay(other, name), b"done");
        }
        "complete" => {
            let claim = claim(one, name);
            plan();
            assert!(claim.complete(name.as_bytes()).wait().unwrap().response_kept());
            assert_eq!(replay(other, name), name.as_bytes());
        }
        "abort" => {
            let first = claim(one, name);
            let token = first.token();
            plan();
            first.abort().wait().unwrap();
            let next = claim(other, name);
            assert!(next.token() > token && next.attempt() == 1);
        }
        "checkpoint" => {
            let claim = claim(one, name);
            plan();
            claim.checkpoint(b"half").wait().unwrap();
            drop(claim);
            let left = orphan(other, name);
            assert_eq!(left.last_checkpoint().unwrap().as_deref(), Some(&b"half"[..]));
        }
        "take over" => {
            drop(claim(other, name));
            let left = orphan(one, name);
            plan();
            let second = left.take_over().wait().unwrap();
            assert_eq!(second.attempt(), 2);
            second.complete(b"done").wait().unwrap();
            assert_eq!(replay(other, name), b"done");
        }
        "release" => {
            drop(claim(other, name));
            let left = orphan(one, name);
            plan();
            left.release().wait().unwrap();
            assert_eq!(claim(other, name).attempt(), 1);
        }
        _ => {
            let claim = claim(one, name);
            plan();
            drop(claim);
            orphan(other, name);
        }
    }
}

fn audited(fleet: &Fleet) {
    let violations = fleet.raw.texts("SELECT what FROM oncekey.violation WHERE number > 0");
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn each_command_is_one_statement() {
    let Some(cluster) = cluster() else { return };
    let Fleet { proxy, one, other, .. } = Fleet::start(cluster, &cluster.database(), 2 * LONG);
    let counted = |command: &str, statements: usize, run: &dyn Fn(&str)| {
        // The statement is prepared, and the shape of the last group is that of this one.
        run(&format!("{command} before"));
        let before = proxy.executions();
        run(&format!("{command} now"));
        assert_eq!(proxy.executions() - before, statements, "{command}");
    };
    counted("begin and complete", 2, &|name| {
        claim(&one, name).complete(b"done").wait().unwrap();
    });
    counted("begin and abort", 2, &|name| claim(&one, name).abort().wait().unwrap());
    counted("begin, checkpoint and complete", 3, &|name| {
        let claim = claim(&one, name);
        claim.checkpoint(b"half").wait().unwrap();
        claim.complete(b"done").wait().unwrap();
    });
    for name in ["replay before", "replay now"] {
        claim(&other, name).complete(b"done").wait().unwrap();
    }
    counted("replay", 1, &|name| assert_eq!(replay(&one, name), b"done"));
}

#[test]
fn cut_at_each_message_of_each_command_every_outcome_is_settled() {
    let Some(cluster) = cluster() else { return };
    let fleet = Fleet::start(cluster, &cluster.database(), 2 * LONG);
    fleet.raw.run(include_str!("audit.sql"));
    for command in COMMANDS {
        // The statements are prepared before the messages are counted.
        run(&fleet, command, &format!("{command} undisturbed"), || {});
        for (from, fate) in
            [(From::Client, Fate::Lost), (From::Server, Fate::Lost), (From::Server, Fate::Last)]
        {
            let mut number = 0;
            loop {
                let name = format!("{command} {from:?} {fate:?} {number}");
                let plan = Plan { from, number, of_a_new_connection: false, fate };
                run(&fleet, command, &name, || fleet.proxy.plan(plan));
                if fleet.proxy.still_waits() {
                    break;
                }
                number += 1;
            }
            // At least Bind, Execute and Sync, or the answers to them.
            assert!(number >= 3, "{command} {from:?}: {number} messages");
        }
    }
    audited(&fleet);
}

#[test]
fn cut_at_each_message_of_a_connection_from_its_first_on() {
    let Some(cluster) = cluster() else { return };
    let fleet = Fleet::start(cluster, &cluster.database(), 2 * LONG);
    fleet.raw.run(include_str!("audit.sql"));
    for from in [From::Client, From::Server] {
        let mut number = 0;
        loop {
            fleet.proxy.cut();
            let plan = Plan { from, number, of_a_new_connection: true, fate: Fate::Lost };
            fleet.proxy.plan(plan);
            let name = format!("{from:?} {number}");
            claim(&fleet.one, &name).complete(b"done").wait().unwrap();
            assert_eq!(replay(&fleet.other, &name), b"done");
            if fleet.proxy.still_waits() {
                break;
            }
            number += 1;
        }
        // The startup, the handshake, and the two statements with their preparation.
        assert!(number >= 20, "{from:?}: {number} messages");
    }
    audited(&fleet);
}

#[test]
fn silence_at_each_message_what_is_told_as_unknown_is_settled_once_the_network_is_back() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    drop(cluster.options(&database, "").open().unwrap());
    cluster.raw(&database).run(include_str!("audit.sql"));
    let of_client = (0..3).map(|number| (From::Client, number));
    let of_server = (0..4).map(|number| (From::Server, number));
    let cases: Vec<_> = of_client.chain(of_server).collect();
    std::thread::scope(|scope| {
        for (from, number) in cases {
            let database = &database;
            scope.spawn(move || {
                let fleet = Fleet::start(cluster, database, Duration::from_secs(4));
                let plan = Plan { from, number, of_a_new_connection: false, fate: Fate::Silence };
                silence(&fleet, &format!("{from:?} {number}"), plan);
            });
        }
    });
    let violations =
        cluster.raw(&database).texts("SELECT what FROM oncekey.violation WHERE number > 0");
    assert!(violations.is_empty(), "{violations:?}");
}

fn silence(fleet: &Fleet, name: &str, plan: Plan) {
    let (begun, ended) = (format!("begin {name}"), format!("complete {name}"));
    claim(&fleet.one, &format!("first {name}")).complete(b"done").wait().unwrap();
    let held = claim(&fleet.one, &ended);
    // No caller was told that the begin is granted, so the engine gives the claim back.
    fleet.proxy.plan(plan);
    let fingerprint = Fingerprint::builder().part("body", "body").finish();
    let refused = fleet.one.begin(&Key::new("", &begun).unwrap(), fingerprint).wait().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    fleet.proxy.cut();
    let next = claim(&fleet.other, &begun);
    assert_eq!(next.attempt(), 1);
    next.complete(b"done").wait().unwrap();
    // The caller of complete is told that the outcome is unknown, and keeps the claim. In the end the key is
    // completed.
    assert!(!fleet.proxy.still_waits());
    claim(&fleet.one, &format!("second {name}")).complete(b"done").wait().unwrap();
    fleet.proxy.plan(plan);
    let failed = held.complete(b"done").wait().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown, "{:?}", failed.error());
    let kept = failed.into_handle().unwrap();
    fleet.proxy.cut();
    assert_eq!(replay(&fleet.other, &ended), b"done");
    let again = kept.complete(b"else").wait();
    assert!(again.is_err(), "the first response stands");
    assert_eq!(replay(&fleet.other, &ended), b"done");
}
