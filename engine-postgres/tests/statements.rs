//! The statements, each against the hazard that it was written for.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{ask, change, claim, cluster};
use oncekey::ErrorKind;
use oncekey::fleet::store::{
    Failure, Group, MAX_MILLIS, Renewal, Row, RowImage, RowState, Store, bytes,
};

const LEASE: Duration = Duration::from_secs(15);

/// One row of a read.
fn only(rows: oncekey::fleet::store::Rows) -> Row {
    assert_eq!(rows.rows.len(), 1, "{rows:?}");
    rows.rows[0].clone()
}

#[test]
fn drift_a_row_is_what_its_image_says_whatever_the_shape_of_the_group() {
    let Some(cluster) = cluster() else { return };
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let seed = 7;
        println!("isolation {isolation}, seed {seed}");
        let mut random = oorandom::Rand64::new(seed);
        let database = cluster.database();
        let set =
            format!("ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'");
        cluster.raw("postgres").run(&set);
        let opened = cluster.open(&database, "", LEASE);
        let mut rows: std::collections::BTreeMap<u128, Row> = Default::default();
        let mut applied = 0;
        for _ in 0..120 {
            let mut images = Vec::new();
            let mut hashes: Vec<u128> = (0..6).collect();
            for _ in 0..1 + random.rand_range(0..4) {
                let hash = hashes.remove(random.rand_range(0..hashes.len() as u64) as usize);
                images.push(image(&mut random, opened.instance, hash, rows.get(&hash)));
            }
            let answer = opened.surely(images.clone());
            for image in images {
                let before = rows.get(&image.hash).cloned();
                let version = answer.applied.iter().find(|(hash, _)| *hash == image.hash);
                let row = only(opened.read(image.hash));
                match version {
                    Some((_, version)) => {
                        let now = answer.now;
                        let filled = image.filled(before.as_ref(), opened.instance, *version, now);
                        assert_eq!(row, filled, "{image:?} on {before:?}");
                        rows.insert(image.hash, filled);
                        applied += 1;
                    }
                    None => {
                        assert_eq!(Some(&row), before.as_ref(), "{image:?}");
                        let told = answer.found.rows.iter().find(|row| row.hash == image.hash);
                        assert_eq!(told, Some(&row));
                    }
                }
            }
        }
        assert!(applied > 100, "{applied}");
    }
}

fn image(random: &mut oorandom::Rand64, instance: u64, hash: u128, row: Option<&Row>) -> RowImage {
    let mut coin = |of: u64| random.rand_range(0..of) == 0;
    let version = row.map_or(0, |row| row.version);
    let state = [
        RowState::Free,
        RowState::InFlight,
        RowState::Orphan,
        RowState::Completed,
        RowState::WithoutResponse,
    ];
    let claims = version == 0 || coin(5);
    let mut image = claim(instance, hash);
    image.expected = if coin(8) { 0 } else { version };
    image.ttl = if coin(3) { MAX_MILLIS } else { 5_000 };
    image.deadline_in = coin(2).then_some(700);
    image.resolves = coin(2);
    if !claims && image.expected > 0 {
        image.state = state[(0..4).find(|_| coin(4)).unwrap_or(4)];
        image.grants = image.state == RowState::InFlight && coin(2);
        image.attempt = row.map_or(1, |row| row.attempt) + u32::from(image.grants);
        image.fingerprint = None;
        image.deadline_in = image.deadline_in.filter(|_| image.grants);
        image.since = coin(2).then_some(1_000);
        image.expires_in = (image.state != RowState::InFlight).then_some(image.ttl);
        image.checkpoint = coin(2).then(|| bytes(&[3; 9]));
        image.body = (image.state == RowState::Completed).then(|| bytes(b"response"));
    }
    image
}

#[test]
fn two_claims_of_one_key_are_one_claim_and_the_loser_is_never_told_absent() {
    let Some(cluster) = cluster() else { return };
    let one = cluster.store();
    let other = cluster.open(&one.database, "", LEASE);
    let claimed = |opened: &common::Opened| {
        (0..200)
            .filter(|hash| {
                let image = opened.claim(*hash);
                loop {
                    let answer = opened.surely(vec![image.clone()]);
                    match (answer.applied.len(), answer.found.rows.len()) {
                        (1, 0) => return true,
                        (0, 1) => return false,
                        // It lost to an insert that its snapshot did not see: it is read again.
                        (0, 0) => assert_eq!(opened.read(*hash).rows.len(), 1),
                        other => panic!("{other:?}"),
                    }
                }
            })
            .count()
    };
    std::thread::scope(|scope| {
        let there = scope.spawn(|| claimed(&other));
        assert_eq!(claimed(&one) + there.join().unwrap(), 200);
    });
}

#[test]
fn settled_the_row_names_who_wrote_it_as_it_was_first_sent() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let image = opened.claim(1);
    assert_eq!(opened.surely(vec![image.clone()]).applied.len(), 1);
    let again = opened.surely(vec![image.clone()]);
    let row = &again.found.rows[0];
    assert!(again.applied.is_empty());
    assert_eq!((row.writer, row.op), (image.writer, image.op));
    // Sent again by the instance that came after: the name stays that of the first sending.
    let complete = change(&image, row.version, RowState::Completed);
    let later = cluster.open(&opened.database, "", LEASE);
    later.surely(vec![complete.clone()]);
    let row = only(opened.read(1));
    assert_eq!((row.writer, row.op, row.owner), (complete.writer, complete.op, opened.instance));
}

#[test]
fn late_a_statement_that_is_held_up_past_its_time_changes_nothing() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let now = opened.surely(vec![opened.claim(1)]).found.now;
    let blocker = cluster.raw(&opened.database);
    blocker.run("BEGIN; LOCK TABLE oncekey.key IN ACCESS EXCLUSIVE MODE");
    std::thread::scope(|scope| {
        let held = scope.spawn(|| opened.group_until(vec![opened.claim(2)], now + 300));
        std::thread::sleep(Duration::from_millis(500));
        blocker.run("COMMIT");
        assert!(matches!(held.join().unwrap(), Err(Failure::NotCarriedOut(_))));
    });
    assert!(opened.read(2).rows.is_empty());
}

#[test]
fn on_conflict_does_not_wait_for_an_open_transaction_and_neither_does_a_swap() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let image = opened.claim(1);
    let version = opened.surely(vec![image.clone()]).applied[0].1;
    let user = cluster.raw(&opened.database);
    user.run("BEGIN; UPDATE oncekey.key SET checkpoint = NULL");
    // While the user's transaction is open: not carried out would mean that a caller waited.
    let answer = opened.group(vec![opened.claim(1), opened.claim(2)]).unwrap();
    assert_eq!((answer.applied.len(), answer.found.rows[0].version), (1, version));
    let complete = change(&image, version, RowState::Completed);
    let answer = opened.group(vec![complete.clone()]).unwrap();
    assert_eq!(answer.found.rows[0].version, version, "locked for a moment");
    user.run("ROLLBACK");
    assert_eq!(opened.surely(vec![complete]).applied.len(), 1);
}

#[test]
fn standstill_a_group_behind_an_insert_in_progress_gives_up_and_is_sent_again() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let user = cluster.raw(&opened.database);
    let insert = "INSERT INTO oncekey.key (hash, version, token, owner, writer, op, started_at, ttl_ms, attempt, \
                  state, identity, fingerprint) VALUES ('00000000-0000-0000-0000-000000000001', 1, 1, 1, 1, 1, 1, \
                  1, 1, 1, '', '')";
    user.run(&format!("BEGIN; {insert}"));
    let waits = opened.group(vec![opened.claim(1), opened.claim(2)]);
    let Err(Failure::NotCarriedOut(error)) = waits else { panic!("{waits:?}") };
    assert!(
        error.to_string().contains("55P03"),
        "by its own bound, not by that of the statement: {error}"
    );
    assert!(opened.read(2).rows.is_empty());
    user.run("ROLLBACK");
    assert_eq!(opened.surely(vec![opened.claim(1), opened.claim(2)]).applied.len(), 2);
}

#[test]
fn token_order_a_stalled_insert_does_not_win_with_a_smaller_token() {
    let Some(cluster) = cluster() else { return };
    let quick = cluster.store();
    quick.raw.run(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF current_setting('application_name') = 'stalled' THEN PERFORM pg_sleep(1.5); END IF; RETURN NEW;
         END $$;
         CREATE TRIGGER stall BEFORE INSERT ON oncekey.key FOR EACH ROW EXECUTE FUNCTION stall()",
    );
    let slow = cluster.open(&quick.database, "application_name=stalled", LEASE);
    std::thread::scope(|scope| {
        let stalled = scope.spawn(|| slow.group(vec![slow.claim(1)]).unwrap());
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        while quick.raw.number(asleep) == 0 {
            std::thread::yield_now();
        }
        let claim = quick.claim(1);
        let version = quick.surely(vec![claim.clone()]).applied[0].1;
        quick.surely(vec![change(&claim, version, RowState::Free)]);
        let answer = stalled.join().unwrap();
        let met: Vec<_> = answer.found.rows.iter().map(|row| row.state).collect();
        assert!(answer.applied.is_empty() && met == [RowState::Free], "{answer:?}");
        let free = only(slow.read(1));
        let again = RowImage { expected: free.version, ..slow.claim(1) };
        let later = slow.surely(vec![again]).applied[0].1;
        assert!(later > version, "{later} {version}");
    });
}

/// Makes the lease of an instance end so long ago.
fn lapse(raw: &common::Raw, instance: u64, ago: i64) {
    raw.run(&format!("UPDATE oncekey.instance SET lease_until = (extract(epoch FROM clock_timestamp())*1000)::bigint - {ago}, \
         since = since - 1000000 WHERE id = {instance}"));
}

/// As if the instance had renewed without a gap for long.
fn old(raw: &common::Raw, instance: u64) {
    raw.run(&format!("UPDATE oncekey.instance SET since = since - 1000000 WHERE id = {instance}"));
}

#[test]
fn declare_ends_whose_lease_is_over_and_nobody_else() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let other = cluster.open(&me.database, "", LEASE);
    old(&me.raw, me.instance);
    assert_eq!(me.end(&[other.instance, me.instance]).unwrap(), [0u64; 0], "its lease runs");
    let image = other.claim(1);
    other.surely(vec![image.clone()]);
    lapse(&me.raw, other.instance, 1);
    assert_eq!(other.surely(vec![other.claim(3)]).applied.len(), 1, "not declared: it may claim");
    assert!(only(me.read(1)).owner_lapsed);
    assert_eq!(me.end(&[other.instance]).unwrap(), [other.instance]);
    let row = only(me.read(1));
    assert!(row.owner_ended.is_some());
    assert!(row.owner_ended.unwrap() >= row.started_at && !row.owner_lapsed);
    assert!(matches!(other.renew(), Renewal::Ended { .. }));
    // It gets no claims any more, and its late completion is accepted.
    let answer =
        other.surely(vec![other.claim(2), change(&image, row.version, RowState::Completed)]);
    assert!(answer.ended);
    assert_eq!(answer.applied.iter().map(|(hash, _)| *hash).collect::<Vec<_>>(), [1]);
}

#[test]
fn declare_needs_an_asker_whose_own_lease_runs_and_who_renewed_without_a_gap() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let other = cluster.open(&me.database, "", LEASE);
    lapse(&me.raw, other.instance, 1_000);
    assert_eq!(me.end(&[other.instance]).unwrap(), [0u64; 0], "it was not here for a whole lease");
    lapse(&me.raw, me.instance, 45_000);
    assert_eq!(me.end(&[other.instance]).unwrap(), [0u64; 0], "its own lease is over");
    // Its renewal begins anew: the gap was longer than half a lease.
    assert!(matches!(me.renew(), Renewal::Renewed { .. }));
    assert_eq!(
        me.end(&[other.instance]).unwrap(),
        [0u64; 0],
        "after an outage nobody is ended within a lease"
    );
    assert!(matches!(other.renew(), Renewal::Renewed { .. }));
    // A longer lease of the other counts.
    let long = cluster.open(&me.database, "", Duration::from_secs(3_000));
    old(&me.raw, me.instance);
    lapse(&me.raw, long.instance, 1_000);
    assert_eq!(me.end(&[long.instance]).unwrap(), [0u64; 0]);
}

#[test]
fn lapse_unsaid_a_heartbeat_under_way_wins_against_a_declaration() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let other = cluster.open(&me.database, "", LEASE);
    old(&me.raw, me.instance);
    lapse(&me.raw, other.instance, 1_000);
    let heartbeat = cluster.raw(&me.database);
    heartbeat.run(&format!(
        "BEGIN; UPDATE oncekey.instance SET lease_until = lease_until + 100000 WHERE id = {}",
        other.instance
    ));
    // It waits for the row, not for ever.
    assert!(matches!(me.end(&[other.instance]), Err(Failure::NotCarriedOut(_))));
    std::thread::scope(|scope| {
        let declaring = scope.spawn(|| me.end(&[other.instance]));
        std::thread::sleep(Duration::from_millis(100));
        heartbeat.run("COMMIT");
        let ended = declaring.join().unwrap().unwrap_or_default();
        assert_eq!(ended, [0u64; 0], "the lease that it sees was renewed meanwhile");
    });
    assert!(matches!(other.renew(), Renewal::Renewed { .. }));
}

#[test]
fn clock_back_a_lease_lasts_no_longer_than_one_lease() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let other = cluster.open(&me.database, "", LEASE);
    old(&me.raw, me.instance);
    let far = "UPDATE oncekey.instance SET lease_until = lease_until + 3600000 WHERE id = ";
    me.raw.run(&format!("{far}{}", other.instance));
    assert_eq!(me.end(&[other.instance]).unwrap(), [0u64; 0]);
    let left = "SELECT lease_until - (extract(epoch FROM clock_timestamp())*1000)::bigint FROM oncekey.instance WHERE id = ";
    assert!(me.raw.number(&format!("{left}{}", other.instance)) <= 15_000);
}

#[test]
fn a_missing_instance_row_is_an_ended_instance() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let other = cluster.open(&me.database, "", LEASE);
    other.surely(vec![other.claim(1)]);
    assert_eq!(only(me.read(1)).owner_ended, None);
    me.raw.run(&format!("DELETE FROM oncekey.instance WHERE id = {}", other.instance));
    let rows = me.read(1);
    assert_eq!(
        only(rows.clone()).owner_ended,
        Some(rows.now),
        "since now, never absent by a guess"
    );
    assert!(other.surely(vec![other.claim(2)]).ended);
}

#[test]
fn a_named_instance_ends_its_predecessor() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let new = oncekey::fleet::store::NewInstance {
        name: "pod-3".to_owned(),
        lease: LEASE,
        build: "test".to_owned(),
    };
    let first = ask(|done| me.store.register(new.clone(), done)).unwrap();
    let second = ask(|done| me.store.register(new, done)).unwrap();
    assert!(matches!(
        ask(|done| me.store.renew(first.instance, done)).unwrap(),
        Renewal::Ended { .. }
    ));
    assert!(matches!(
        ask(|done| me.store.renew(second.instance, done)).unwrap(),
        Renewal::Renewed { .. }
    ));
    assert!(matches!(me.renew(), Renewal::Renewed { .. }), "it has no name");
}

#[test]
fn boot_mark_a_server_that_crashed_or_was_promoted_gets_a_new_generation() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let first = opened.surely(vec![opened.claim(1)]);
    opened.raw.run("DELETE FROM oncekey.boot");
    let refused = opened.group(vec![opened.claim(2)]);
    assert!(matches!(refused, Err(Failure::NotCarriedOut(_))), "{refused:?}");
    let second = opened.surely(vec![opened.claim(2)]);
    assert_eq!(first.found.generation + 1, second.found.generation);
    assert_eq!(second.applied[0].1 >> 44, second.found.generation);
    assert!(second.applied[0].1 > first.applied[0].1);
}

#[test]
fn history_lost_is_noticed_by_a_process_that_lives_through_it() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.surely(vec![opened.claim(1)]);
    opened.surely(vec![opened.claim(2)]);
    // The server is replaced by one that has the first group and not the second.
    opened.raw.run("DELETE FROM oncekey.boot; UPDATE oncekey.mark SET number = 1");
    let refused = loop {
        match opened.group(vec![opened.claim(3)]) {
            Err(Failure::NotCarriedOut(_)) => {}
            answer => break answer,
        }
    };
    let Err(Failure::Refused(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.kind(), ErrorKind::HistoryLost);
    // Until the process is started again, whatever the server says later.
    opened.raw.run("UPDATE oncekey.mark SET number = 1000");
    assert!(matches!(opened.group(vec![opened.claim(3)]), Err(Failure::Refused(_))));
}

/// A connection was given up while its server process was slow: the group that it had been sent comes
/// behind the one that was sent on the next connection and acknowledged.
#[test]
fn history_lost_is_not_said_of_a_group_that_came_late() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.surely(vec![opened.claim(1)]);
    opened.surely(vec![opened.claim(2)]);
    let slow = cluster.open(&opened.database, "", LEASE);
    let images = vec![opened.claim(3)];
    let (instance, valid_until) = (opened.instance, u64::MAX);
    let late = Group { instance, number: 1, valid_until, durable: true, images };
    assert_eq!(ask(|done| slow.store.group(late, done)).unwrap().applied.len(), 1);
    opened.raw.run("DELETE FROM oncekey.boot");
    assert_eq!(opened.surely(vec![opened.claim(4)]).applied.len(), 1);
}

/// One connection looks for the mark while another, to the same server, has a group acknowledged.
#[test]
fn history_lost_is_not_said_of_a_group_that_was_acknowledged_meanwhile() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.surely(vec![opened.claim(1)]);
    // The first renewal is shut out by its gate. The second looks for the mark: it stands still behind its
    // snapshot, and holds no lock.
    opened.raw.run(
        "CREATE SEQUENCE turn;
         CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF nextval('turn') = 2 THEN PERFORM pg_sleep(1); END IF; RETURN NULL; END $$;
         CREATE TRIGGER dawdle BEFORE UPDATE ON oncekey.instance FOR EACH STATEMENT EXECUTE FUNCTION dawdle();
         DELETE FROM oncekey.boot",
    );
    std::thread::scope(|scope| {
        let renewing = scope.spawn(|| {
            loop {
                match ask(|done| opened.store.renew(opened.instance, done)) {
                    Err(Failure::NotCarriedOut(_)) => {}
                    answer => break answer,
                }
            }
        });
        while opened.raw.number("SELECT last_value FROM turn") < 2 {}
        opened.surely(vec![opened.claim(2)]);
        renewing.join().unwrap().unwrap();
    });
    assert!(opened.raw.number("SELECT last_value FROM turn") > 3, "both looked for the mark");
    opened.surely(vec![opened.claim(3)]);
}

#[test]
fn a_store_whose_last_holder_is_an_answer_ends_on_its_own_thread() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let (instance, store) = (opened.instance, Arc::new(opened.store));
    let (sender, ended) = std::sync::mpsc::channel();
    let held = store.clone();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let done = move |renewed: Result<Renewal, Failure>| {
        released.recv().unwrap();
        drop(held);
        sender.send(renewed.is_ok()).unwrap();
    };
    store.renew(instance, Box::new(done));
    drop(store);
    release.send(()).unwrap();
    assert!(ended.recv().unwrap());
}

#[test]
fn history_lost_and_accepted_the_process_goes_on() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let opened = cluster.open_with(&database, |options| options.accept_lost_history(true), LEASE);
    opened.surely(vec![opened.claim(1)]);
    opened.surely(vec![opened.claim(2)]);
    opened.raw.run("DELETE FROM oncekey.boot; UPDATE oncekey.mark SET number = 1");
    assert_eq!(opened.surely(vec![opened.claim(3)]).applied.len(), 1);
}

/// The drop of a claim is on its way while another process declares its owner ended.
#[test]
fn an_orphan_is_one_since_its_owner_ended_if_that_was_earlier() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let image = opened.claim(1);
    let version = opened.surely(vec![image.clone()]).applied[0].1;
    let started = only(opened.read(1)).started_at;
    opened
        .raw
        .run("UPDATE oncekey.instance SET ended_at = (SELECT started_at + 1 FROM oncekey.key)");
    std::thread::sleep(Duration::from_millis(20));
    let mut dropped = change(&image, version, RowState::Orphan);
    dropped.expires_in = Some(1_000_000);
    opened.surely(vec![dropped]);
    let row = only(opened.read(1));
    assert_eq!((row.since, row.expires_at), (Some(started + 1), Some(started + 1_000_001)));
}

/// An orphan that nobody wrote as one: its owner ended, or its deadline passed, and then its TTL went by.
#[test]
fn expired_a_claim_that_nobody_declared_an_orphan_is_only_claimed_anew() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let now = "(extract(epoch FROM clock_timestamp())*1000)::bigint";
    let end = |owner: u64, ago: &str| {
        me.raw.run(&format!("UPDATE oncekey.instance SET ended_at = {ago} WHERE id = {owner}"));
    };
    let (hour, ttl) = (3_600_000, 86_400_000);
    // So long ago the owner ended, or the deadline was; none: it lives, and has no deadline.
    for (number, ended, deadline, stands) in [
        (1, None, None, true),
        (2, Some(ttl - hour), None, true),
        (3, Some(ttl + hour), None, false),
        (4, None, Some(ttl - hour), true),
        (5, None, Some(ttl + hour), false),
        (6, Some(ttl - hour), Some(ttl + hour), false),
        (7, Some(ttl + hour), Some(ttl - hour), false),
        // Ended before it was granted: an orphan since it was.
        (8, Some(4 * ttl), None, false),
    ] {
        for of_another in [false, true] {
            let owner = cluster.open(&me.database, "", LEASE);
            let hash = number * 2 + u128::from(of_another);
            let image = owner.claim(hash);
            let version = owner.surely(vec![image.clone()]).applied[0].1;
            let ago =
                |span: Option<i64>| span.map_or("NULL".into(), |ago| format!("{now} - {ago}"));
            let (ended, deadline) = (ago(ended), ago(deadline));
            me.raw.run(&format!(
                "UPDATE oncekey.key SET started_at = {now} - 3 * ttl_ms, deadline = {deadline} WHERE version = {version}"
            ));
            end(owner.instance, &ended);
            let by = if of_another { &me } else { &owner };
            let row = only(by.read(hash));
            assert_eq!(row.has_expired(by.read(hash).now), !stands, "{number}");
            // Alone, or one of several: the statements differ.
            let mut completed = by.surely(match number % 2 {
                0 => vec![change(&image, version, RowState::Completed)],
                _ => vec![change(&image, version, RowState::Completed), by.claim(1_000 + hash)],
            });
            completed.applied.retain(|(of, _)| *of == hash);
            assert_eq!(completed.applied.len(), usize::from(stands), "{number} {of_another}");
            if !stands {
                let told = completed.found.rows.iter().find(|row| row.hash == hash).unwrap();
                assert_eq!((told.version, told.state), (version, RowState::InFlight));
                let anew = RowImage { expected: version, ..me.claim(hash) };
                assert_eq!(me.surely(vec![anew]).applied.len(), 1, "{number}");
            }
        }
    }
}

#[test]
fn clock_jump_a_clock_that_went_30_days_ahead_changes_nothing() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.raw.run("UPDATE oncekey.store SET high_time = high_time - 31::bigint * 86400000");
    let Err(Failure::Refused(error)) = opened.group(vec![opened.claim(1)]) else { panic!() };
    assert_eq!(error.kind(), ErrorKind::ClockJump);
    assert!(opened.raw.texts("SELECT hash FROM oncekey.key").is_empty());
    // Accepted by one, it is right for all.
    let open = |accept| cluster.options(&opened.database, "").accept_clock_jump(accept).open();
    assert_eq!(open(false).unwrap_err().kind(), ErrorKind::ClockJump);
    open(true).unwrap();
    open(false).unwrap();
    assert_eq!(opened.surely(vec![opened.claim(1)]).applied.len(), 1);
}

#[test]
fn clock_back_no_decision_is_made_before_the_high_time() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.raw.run("UPDATE oncekey.store SET high_time = high_time + 1000000");
    let high = opened.raw.number("SELECT high_time FROM oncekey.store");
    assert_eq!(opened.surely(vec![opened.claim(1)]).found.now as i64, high);
    assert_eq!(opened.read(1).now as i64, high);
}

#[test]
fn an_enormous_ttl_fails_nobody() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let mut long = opened.claim(1);
    long.ttl = MAX_MILLIS;
    long.deadline_in = Some(MAX_MILLIS);
    let versions = opened.surely(vec![long.clone(), opened.claim(2)]).applied;
    let version = versions.iter().find(|(hash, _)| *hash == 1).unwrap().1;
    let mut complete = change(&long, version, RowState::Completed);
    complete.expires_in = Some(MAX_MILLIS);
    opened.surely(vec![complete]);
    let row = only(opened.read(1));
    assert_eq!(row.body.as_deref(), Some(&b"response"[..]));
    assert_eq!(
        opened.raw.number("SELECT leaf FROM oncekey.response"),
        8,
        "beyond the ring: the spare leaf"
    );
}

/// A completed row that expired two buckets ago: its leaf is over.
fn expired(opened: &common::Opened, hash: u128) -> Row {
    let image = opened.claim(hash);
    let version = opened.surely(vec![image.clone()]).applied[0].1;
    opened.surely(vec![change(&image, version, RowState::Completed)]);
    let row = only(opened.read(hash));
    opened.raw.run(&format!(
        "WITH s AS (SELECT (extract(epoch FROM clock_timestamp())*1000)::bigint AS now, bucket_ms, leaves FROM oncekey.store),
         e AS (SELECT (now / bucket_ms - 1) * bucket_ms - 1 AS at, ((now / bucket_ms - 2) % leaves)::smallint AS leaf FROM s),
         k AS (UPDATE oncekey.key SET expires_at = e.at, leaf = e.leaf FROM e WHERE version = {0} RETURNING 1)
         UPDATE oncekey.response SET expires_at = e.at, leaf = e.leaf FROM e WHERE version = {0}",
        row.version
    ));
    row
}

#[test]
fn upkeep_removes_what_expired_a_minute_ago_and_empties_its_leaf() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let (old, live) = (expired(&opened, 1), opened.claim(2));
    let version = opened.surely(vec![live.clone()]).applied[0].1;
    opened.surely(vec![change(&live, version, RowState::Completed)]);
    let upkeep = opened.upkeep();
    assert_eq!((upkeep.elected, upkeep.removed), (true, 1));
    assert!(opened.read(1).rows.is_empty());
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response"), 1);
    assert_eq!(only(opened.read(2)).body.as_deref(), Some(&b"response"[..]));
    assert!(old.version > 0);
}

#[test]
fn upkeep_removes_nothing_within_a_minute_of_its_expiry() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    expired(&opened, 1);
    let recent = "(extract(epoch FROM clock_timestamp())*1000)::bigint - 30000";
    opened.raw.run(&format!("UPDATE oncekey.key SET expires_at = {recent}; UPDATE oncekey.response SET expires_at = {recent}"));
    assert_eq!(opened.upkeep().removed, 0);
    assert_eq!(opened.read(1).rows.len(), 1);
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response"), 1);
}

#[test]
fn upkeep_a_leaf_that_somebody_reads_is_emptied_later() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    expired(&opened, 1);
    let reader = cluster.raw(&opened.database);
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM oncekey.response");
    assert_eq!(opened.upkeep().removed, 1);
    assert_eq!(reader.number("SELECT count(*) FROM oncekey.response"), 1);
    reader.run("COMMIT");
    opened.upkeep();
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response"), 0);
}

#[test]
fn upkeep_expires_tombstones_orphans_and_what_has_no_response_by_the_same_entries() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    for (hash, state) in
        [(1, RowState::Free), (2, RowState::Orphan), (3, RowState::WithoutResponse)]
    {
        let image = opened.claim(hash);
        let version = opened.surely(vec![image.clone()]).applied[0].1;
        opened.surely(vec![change(&image, version, state)]);
    }
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response WHERE body IS NULL"), 3);
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.orphan"), 1);
    opened.raw.run(
        "WITH s AS (SELECT (extract(epoch FROM clock_timestamp())*1000)::bigint AS now, bucket_ms, leaves FROM oncekey.store),
         e AS (SELECT (now / bucket_ms - 1) * bucket_ms - 1 AS at, ((now / bucket_ms - 2) % leaves)::smallint AS leaf FROM s),
         k AS (UPDATE oncekey.key SET expires_at = e.at, leaf = e.leaf FROM e RETURNING 1)
         UPDATE oncekey.response SET expires_at = e.at, leaf = e.leaf FROM e",
    );
    assert_eq!(opened.upkeep().removed, 3);
    for table in ["key", "orphan", "response"] {
        assert_eq!(
            opened.raw.number(&format!("SELECT count(*) FROM oncekey.{table}")),
            0,
            "{table}"
        );
    }
}

#[test]
fn upkeep_lists_the_orphans_of_ended_instances_and_forgets_those_that_own_nothing() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let owner = cluster.open(&me.database, "", LEASE);
    let idle = cluster.open(&me.database, "", LEASE);
    owner.surely(vec![owner.claim(1)]);
    old(&me.raw, me.instance);
    for other in [&owner, &idle] {
        lapse(&me.raw, other.instance, 1);
    }
    assert_eq!(me.upkeep().ended, 2);
    let listed = ask(|done| me.store.orphans(me.instance, None, 10, done)).unwrap();
    assert_eq!(only(listed.clone()).hash, 1);
    let behind = ask(|done| me.store.orphans(me.instance, Some(1), 10, done)).unwrap();
    assert!(behind.rows.is_empty());
    // A minute later.
    me.raw.run("UPDATE oncekey.instance SET ended_at = ended_at - 61000 WHERE ended_at IS NOT NULL; UPDATE oncekey.upkeep SET whole = 0");
    me.upkeep();
    me.upkeep();
    let left = me.raw.texts("SELECT id FROM oncekey.instance WHERE ended_at IS NOT NULL");
    assert_eq!(left, [owner.instance.to_string()], "it is still named");
    // The list may drift: resolved behind its back, it is repaired.
    me.raw.run("UPDATE oncekey.key SET state = 0");
    me.upkeep();
    assert_eq!(me.raw.number("SELECT count(*) FROM oncekey.orphan"), 0);
}

/// Claims and completes these keys, a group each.
fn pairs(opened: &common::Opened, keys: std::ops::Range<u128>) {
    let claims: Vec<_> = keys.map(|hash| RowImage { ttl: 60_000, ..opened.claim(hash) }).collect();
    let versions: std::collections::BTreeMap<_, _> =
        opened.surely(claims.clone()).applied.into_iter().collect();
    let ends = claims.iter().map(|claim| RowImage {
        body: Some(bytes(&[7; 1024])),
        ..change(claim, versions[&claim.hash], RowState::Completed)
    });
    assert_eq!(opened.surely(ends.collect()).applied.len(), claims.len());
}

#[test]
fn bloat_responses_are_bounded_while_a_transaction_holds_xmin_and_keys_once_it_ends() {
    let Some(cluster) = cluster() else { return };
    const KEYS: u128 = 400;
    let database = cluster.database();
    let ttl = Duration::from_secs(60);
    let opened = cluster.open_with(&database, |options| options.ttl(ttl), LEASE);
    let holder = cluster.raw(&database);
    holder.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    let responses = "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'oncekey.response'::regclass";
    let keys = "SELECT pg_relation_size('oncekey.key')";
    // A turn: fill, and then the time of the store goes on beyond the TTL and the buckets of upkeep.
    let turn = |number: u128| {
        pairs(&opened, number * KEYS..(number + 1) * KEYS);
        let filled = opened.raw.number(responses);
        for _ in 0..5 {
            opened.raw.run("UPDATE oncekey.store SET high_time = greatest(high_time, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) + bucket_ms");
            opened.upkeep();
        }
        filled
    };
    let first = turn(0);
    for number in 1..10 {
        let filled = turn(number);
        assert!(
            filled <= first * 2,
            "responses: {first} bytes at first, {filled} in turn {number}"
        );
    }
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.key"), 0);
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response"), 0);
    holder.run("COMMIT");
    // What autovacuum does, once it may.
    opened.raw.run("VACUUM oncekey.key");
    let bounded = opened.raw.number(keys);
    for number in 10..15 {
        turn(number);
        opened.raw.run("VACUUM oncekey.key");
    }
    assert!(opened.raw.number(keys) <= bounded.max(1 << 20), "the space is used again");
}

/// Whether a plan goes through one part of the statement for each row of another: a group of n would cost n².
fn joins_itself(plan: &str) -> bool {
    let lines: Vec<&str> = plan.lines().collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    lines.iter().enumerate().filter(|(_, line)| line.contains("Nested Loop")).any(|(at, join)| {
        let below = lines[at + 1..].iter().take_while(|line| depth(line) > depth(join));
        let below: Vec<_> = below.filter(|line| line.contains("->")).collect();
        let top = below.iter().map(|line| depth(line)).min();
        let mut sides = below.iter().filter(|line| Some(depth(line)) == top);
        let of_it =
            |line: &&&&str| line.contains("CTE Scan on") && !line.contains("CTE Scan on s ");
        sides.by_ref().filter(of_it).count() == 2
    })
}

#[test]
fn plans_no_statement_scans_or_hashes_whatever_the_size_of_the_table() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let options = "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
                   SET plan_cache_mode = force_generic_plan";
    let fill = "INSERT INTO oncekey.key (hash, version, token, owner, writer, op, started_at, ttl_ms, attempt, state, identity, fingerprint)
                SELECT gen_random_uuid(), n, n, 1, 1, n, 1, 1, 1, 3, '', '' FROM generate_series(1, 50000) n";
    for fill in ["SELECT 1", fill, "ANALYZE oncekey.key"] {
        opened.raw.run(fill);
        let raw = cluster.raw(&opened.database);
        raw.run(options);
        for (name, text, types) in oncekey_postgres::gated_statements("oncekey") {
            raw.run(&format!("PREPARE \"{name}\" ({}) AS {text}", types.join(", ")));
            let nulls = vec!["NULL"; types.len()].join(", ");
            let plan = raw.texts(&format!("EXPLAIN EXECUTE \"{name}\" ({nulls})")).join("\n");
            assert!(!plan.contains("Seq Scan"), "{name}: {plan}");
            assert!(!plan.contains("Hash Join") && !plan.contains("Merge Join"), "{name}: {plan}");
            assert!(!joins_itself(&plan), "{name}: {plan}");
            // The leaves cost a single change more than all else, so only what meets rows looks there.
            let looks = plan.contains("response_0_pkey");
            assert_eq!(looks, name.contains("meet") || ["read", "orphans"].contains(&name));
        }
    }
}

#[test]
fn unsafe_settings_and_foreign_places_are_refused() {
    let Some(cluster) = cluster() else { return };
    let new = oncekey::fleet::store::NewInstance {
        name: String::new(),
        lease: LEASE,
        build: String::new(),
    };
    let kind = |options: oncekey_postgres::Options| {
        options.store().unwrap().open(&new).unwrap_err().kind()
    };
    let database = cluster.database();
    let options = || cluster.options(&database, "");
    assert_eq!(kind(options().create(false)), ErrorKind::StoreMissing);
    assert_eq!(kind(options().replication_required(true)), ErrorKind::UnsafeStore);
    assert_eq!(
        kind(options().startup_options(false)),
        ErrorKind::UnsafeStore,
        "no statement_timeout"
    );
    assert_eq!(kind(cluster.options("nowhere", "")), ErrorKind::StoreMissing);
    options().store().unwrap().open(&new).unwrap();
    let raw = cluster.raw(&database);
    raw.run("UPDATE oncekey.store SET min_format = 2");
    assert_eq!(kind(options()), ErrorKind::StoreNewerFormat);
    raw.run("UPDATE oncekey.store SET min_format = 1");
    raw.run(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    assert_eq!(kind(options()), ErrorKind::Unavailable);
}
