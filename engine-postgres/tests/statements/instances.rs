//! Leases: which instance may declare another ended, and when.

use super::*;

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
    // The ended instance gets no more claims, but its late completion is accepted.
    let answer =
        other.surely(vec![other.claim(2), change(&image, row.version, RowState::Completed)]);
    assert!(answer.ended);
    assert_eq!(answer.applied.iter().map(|applied| applied.hash).collect::<Vec<_>>(), [1]);
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
    // Its time without a gap starts anew: the gap was longer than half a lease.
    assert!(matches!(me.renew(), Renewal::Renewed { .. }));
    assert_eq!(
        me.end(&[other.instance]).unwrap(),
        [0u64; 0],
        "after an outage nobody is ended within a lease"
    );
    assert!(matches!(other.renew(), Renewal::Renewed { .. }));
    // The clock went ahead since the asker renewed, or the asker stood still: more than half a lease, 15 s, is a gap.
    lapse(&me.raw, other.instance, 1_000);
    lapse(&me.raw, me.instance, -6_000);
    assert_eq!(me.end(&[other.instance]).unwrap(), [0u64; 0], "it has not renewed for 9 s");
    assert!(matches!(me.renew(), Renewal::Renewed { .. }));
    assert!(matches!(other.renew(), Renewal::Renewed { .. }));
    // If the lease of the other is longer, it is the one that counts.
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
    // The declaration waits for the row, but not for ever.
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
