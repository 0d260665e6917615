//! The server crashed, was promoted, or lost what it had acknowledged.

use super::*;

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
    assert_eq!(second.applied[0].version >> 44, second.found.generation);
    assert!(second.applied[0].version > first.applied[0].version);
}

/// Sends a claim until it is refused for good. Returns why.
fn refusal(opened: &common::Opened, hash: u128) -> ErrorKind {
    let refused = loop {
        match opened.group(vec![opened.claim(hash)]) {
            Err(Failure::NotCarriedOut(_)) => {}
            answer => break answer,
        }
    };
    let Err(Failure::Refused(error)) = refused else { panic!("{refused:?}") };
    error.kind()
}

#[test]
fn history_lost_is_noticed_by_a_process_that_lives_through_it() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.surely(vec![opened.claim(1)]);
    opened.surely(vec![opened.claim(2)]);
    // The server is replaced by one that has the first group and not the second.
    opened.raw.run("DELETE FROM oncekey.boot; UPDATE oncekey.mark SET number = 1");
    assert_eq!(refusal(&opened, 3), ErrorKind::HistoryLost);
    // The refusal lasts until the process is started again, whatever the server says later.
    opened.raw.run("UPDATE oncekey.mark SET number = 1000");
    assert!(matches!(opened.group(vec![opened.claim(3)]), Err(Failure::Refused(_))));
}

/// Either lane's last group is missed, also where the other lane has a later one.
#[test]
fn history_lost_is_noticed_by_the_mark_of_each_lane() {
    let Some(cluster) = cluster() else { return };
    for lane in [0, 1] {
        let opened = cluster.store();
        for (number, lane) in [(1, lane), (2, lane), (3, 1 - lane)] {
            let group = opened.next(lane, vec![opened.claim(number)], u64::MAX);
            assert_eq!(ask(|done| opened.store.group(group, done)).unwrap().applied.len(), 1);
        }
        let lost = format!("UPDATE oncekey.mark SET number = 1 WHERE lane = {lane}");
        opened.raw.run(&format!("DELETE FROM oncekey.boot; {lost}"));
        assert_eq!(refusal(&opened, 4), ErrorKind::HistoryLost);
    }
}

/// A connection is given up while its server process is slow. Its group arrives after a group that was sent on the
/// next connection and acknowledged.
#[test]
fn history_lost_is_not_said_of_a_group_that_came_late() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.surely(vec![opened.claim(1)]);
    opened.surely(vec![opened.claim(2)]);
    let slow = cluster.open(&opened.database, "", LEASE);
    let images = vec![opened.claim(3)];
    let (instance, valid_until) = (opened.instance, u64::MAX);
    let late = Group { lane: 0, instance, number: 1, valid_until, durable: true, images };
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
fn history_lost_and_accepted_the_process_goes_on() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let opened = cluster.open_with(&database, |options| options.accept_lost_history(true), LEASE);
    opened.surely(vec![opened.claim(1)]);
    opened.surely(vec![opened.claim(2)]);
    opened.raw.run("DELETE FROM oncekey.boot; UPDATE oncekey.mark SET number = 1");
    assert_eq!(opened.surely(vec![opened.claim(3)]).applied.len(), 1);
}
