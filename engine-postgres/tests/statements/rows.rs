//! Groups: of two changes to a row one wins, and the answer has the row as it is.

use super::*;

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
                let carried = answer.applied.iter().find(|applied| applied.hash == image.hash);
                let row = only(opened.read(image.hash));
                match carried {
                    Some(&Applied { version, at, .. }) => {
                        let filled = image.filled(before.as_ref(), opened.instance, version, at);
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
                        // The claim lost to an insert that its snapshot did not see, so the row is
                        // read again.
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
    // The next instance sends the change again: the row keeps the names of the first sending.
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
    let (image, version) = opened.granted(1);
    let user = cluster.raw(&opened.database);
    user.run("BEGIN; UPDATE oncekey.key SET checkpoint = NULL");
    // The user's transaction is open. `NotCarriedOut` would mean that a caller waited for it.
    let answer = opened.group(vec![opened.claim(1), opened.claim(2)]).unwrap();
    assert_eq!((answer.applied.len(), answer.found.rows[0].version), (1, version));
    let complete = change(&image, version, RowState::Completed);
    let answer = opened.group(vec![complete.clone()]).unwrap();
    assert_eq!(answer.found.rows[0].version, version, "locked for a moment");
    user.run("ROLLBACK");
    assert_eq!(opened.surely(vec![complete]).applied.len(), 1);
}

/// A lean statement carries one change out and leaves the other to a full one, which comes later.
#[test]
fn times_of_a_row_are_those_of_the_statement_that_wrote_it() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let owner = cluster.open(&me.database, "", LEASE);
    let (image, version) = owner.granted(1);
    let before = only(me.read(1));
    me.raw.run(&format!(
        "UPDATE oncekey.instance SET ended_at = {} WHERE id = {};
         CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END $$;
         CREATE TRIGGER dawdle AFTER INSERT ON oncekey.key FOR EACH ROW EXECUTE FUNCTION dawdle()",
        before.started_at, owner.instance
    ));
    let end = RowImage { writer: me.instance, ..change(&image, version, RowState::Completed) };
    let images = [me.claim(2), end];
    let applied = me.surely(images.to_vec()).applied;
    let [claimed, ended] = [2, 1].map(|hash| *applied.iter().find(|one| one.hash == hash).unwrap());
    assert!(claimed.at + 20 <= ended.at, "{applied:?}");
    for (image, before, applied) in
        [(&images[0], None, claimed), (&images[1], Some(&before), ended)]
    {
        let filled = image.filled(before, me.instance, applied.version, applied.at);
        assert_eq!(only(me.read(image.hash)), filled);
    }
}

/// The group stands still before its commit. Only the server knows whether another one does so beside it.
#[test]
fn groups_on_two_lanes_do_not_wait_for_each_other() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.raw.run(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
         CREATE TRIGGER stall AFTER UPDATE ON oncekey.mark FOR EACH ROW EXECUTE FUNCTION stall()",
    );
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    std::thread::scope(|scope| {
        let groups = [0, 1].map(|lane| {
            let opened = &opened;
            scope.spawn(move || {
                for number in 0..50 {
                    let images = vec![opened.claim(2 * number + lane as u128)];
                    let group = opened.next(lane, images, u64::MAX);
                    ask(|done| opened.store.group(group, done)).unwrap();
                }
            })
        });
        while opened.raw.number(asleep) < 2 {
            assert!(!groups.iter().all(|groups| groups.is_finished()), "one after the other");
        }
    });
}

/// A group of begins behind one that met rows reads first, and claims the keys that have none.
#[test]
fn begins_behind_a_retry_are_read_and_the_rest_is_claimed() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let (_, version) = opened.granted(1);
    assert_eq!(opened.surely(vec![opened.claim(1)]).found.rows.len(), 1);
    for (keys, claimed) in [([1, 2], 2), ([2, 1], 0), ([3, 1], 3), ([4, 5], 9), ([1, 6], 6)] {
        let answer = opened.surely(keys.map(|key| opened.claim(key)).to_vec());
        let mut applied: Vec<_> = answer.applied.iter().map(|applied| applied.hash).collect();
        applied.sort_unstable();
        let mut met: Vec<_> = answer.found.rows.iter().map(|row| row.hash).collect();
        match claimed {
            0 => assert!(applied.is_empty()),
            9 => assert_eq!(applied, keys),
            one => assert_eq!(applied, [one]),
        }
        met.extend(applied);
        met.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(met, keys, "each key is either claimed or told");
        assert!(answer.found.rows.iter().all(|row| row.hash != 1 || row.version == version));
        assert_eq!(answer.found.generation, version >> 44);
    }
}

/// Another transaction holds a row of a group that is expected to be carried out as a whole.
#[test]
fn a_group_that_meets_a_lock_is_carried_out_without_that_row() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let (held, held_version) = opened.granted(1);
    let (free, free_version) = opened.granted(2);
    let user = cluster.raw(&opened.database);
    user.run("BEGIN; SELECT FROM oncekey.key WHERE hash = '00000000-0000-0000-0000-000000000001' FOR UPDATE");
    let ends = [
        change(&held, held_version, RowState::Completed),
        change(&free, free_version, RowState::Completed),
    ];
    let answer = opened.group(ends.to_vec()).unwrap();
    assert_eq!(answer.applied.iter().map(|applied| applied.hash).collect::<Vec<_>>(), [2]);
    assert_eq!(answer.found.rows[0].version, held_version, "locked for a moment");
    user.run("ROLLBACK");
    assert_eq!(opened.surely(ends[..1].to_vec()).applied.len(), 1);
}

/// The swap of a lean statement draws its version before it has the row.
#[test]
fn versions_grow_where_an_end_waits_for_another_change() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let (claim, version) = opened.granted(1);
    let user = cluster.raw(&opened.database);
    user.run("BEGIN; UPDATE oncekey.key SET version = nextval('oncekey.version')");
    std::thread::scope(|scope| {
        let end = change(&claim, version, RowState::Completed);
        let waiting = scope.spawn(|| opened.group(vec![end]).unwrap());
        let locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
        while opened.raw.number(locked) == 0 && !waiting.is_finished() {}
        user.run("UPDATE oncekey.key SET version = nextval('oncekey.version'); COMMIT");
        let answer = waiting.join().unwrap();
        let row = only(opened.read(1));
        assert!(
            answer.applied.is_empty() && row.version > version && row.state == RowState::InFlight,
            "{answer:?}"
        );
        assert_eq!(answer.found.rows[0].hash, 1);
    });
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
        let (claim, version) = quick.granted(1);
        quick.surely(vec![change(&claim, version, RowState::Free)]);
        let answer = stalled.join().unwrap();
        let met: Vec<_> = answer.found.rows.iter().map(|row| row.state).collect();
        assert!(answer.applied.is_empty() && met == [RowState::Free], "{answer:?}");
        let free = only(slow.read(1));
        let again = RowImage { expected: free.version, ..slow.claim(1) };
        let later = slow.surely(vec![again]).applied[0].version;
        assert!(later > version, "{later} {version}");
    });
}
