//! Upkeep: what expired is removed, and the space it took is used again.

use super::*;

/// Dates the expiry of every row back by two buckets: the leaf of its response is over.
fn date_back(opened: &common::Opened) {
    opened.raw.run(
        "WITH s AS (SELECT (extract(epoch FROM clock_timestamp())*1000)::bigint AS now, bucket_ms, leaves FROM oncekey.store),
         e AS (SELECT (now / bucket_ms - 1) * bucket_ms - 1 AS at, ((now / bucket_ms - 2) % leaves)::smallint AS leaf FROM s),
         k AS (UPDATE oncekey.key SET expires_at = e.at, leaf = e.leaf FROM e RETURNING 1)
         UPDATE oncekey.response SET expires_at = e.at, leaf = e.leaf FROM e",
    );
}

#[test]
fn upkeep_removes_what_expired_a_minute_ago_and_empties_its_leaf() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.brought_to(1, RowState::Completed);
    date_back(&opened);
    opened.brought_to(2, RowState::Completed);
    let upkeep = opened.upkeep();
    assert_eq!((upkeep.elected, upkeep.removed), (true, 1));
    assert!(opened.read(1).rows.is_empty());
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response"), 1);
    assert_eq!(only(opened.read(2)).body.as_deref(), Some(&b"response"[..]));
}

#[test]
fn upkeep_removes_nothing_within_a_minute_of_its_expiry() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.brought_to(1, RowState::Completed);
    date_back(&opened);
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
    opened.brought_to(1, RowState::Completed);
    date_back(&opened);
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
        opened.brought_to(hash, state);
    }
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.response WHERE body IS NULL"), 3);
    assert_eq!(opened.raw.number("SELECT count(*) FROM oncekey.orphan"), 1);
    date_back(&opened);
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
    // Upkeep repairs a list that missed the end of an orphan.
    me.raw.run("UPDATE oncekey.key SET state = 0");
    me.upkeep();
    assert_eq!(me.raw.number("SELECT count(*) FROM oncekey.orphan"), 0);
}

/// Claims these keys in one group, and completes them in another.
fn pairs(opened: &common::Opened, keys: std::ops::Range<u128>) {
    let claims: Vec<_> = keys.map(|hash| RowImage { ttl: 60_000, ..opened.claim(hash) }).collect();
    let applied = opened.surely(claims.clone()).applied.into_iter();
    let versions: std::collections::BTreeMap<_, _> =
        applied.map(|applied| (applied.hash, applied.version)).collect();
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
    // A turn fills the store, then moves its time beyond the TTL and the buckets of upkeep.
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
    // Autovacuum does this once the transaction has ended.
    opened.raw.run("VACUUM oncekey.key");
    let bounded = opened.raw.number(keys);
    for number in 10..15 {
        turn(number);
        opened.raw.run("VACUUM oncekey.key");
    }
    assert!(opened.raw.number(keys) <= bounded.max(1 << 20), "the space is used again");
}

#[test]
fn upkeep_lists_a_claim_beyond_its_deadline_until_its_owner_ends_it() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let listed = || me.raw.number("SELECT count(*) FROM oncekey.orphan");
    for more in [0, 1] {
        let (image, version) = me.granted(10 + more);
        me.raw.run("UPDATE oncekey.key SET deadline = started_at WHERE state = 1");
        me.upkeep();
        assert_eq!(listed(), 1);
        let end = RowImage { resolves: true, ..change(&image, version, RowState::Completed) };
        let others = (0..more).map(|number| me.claim(20 + number));
        let answer = me.surely([end].into_iter().chain(others).collect());
        assert_eq!(answer.applied.len() as u128, 1 + more);
        assert_eq!(listed(), 0);
    }
}
