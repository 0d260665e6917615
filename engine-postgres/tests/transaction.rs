//! `complete_in`: the caller's own rows and the response in one commit.

#![allow(clippy::unwrap_used)]

mod common;

use common::asking::begin as settled;
use common::{cluster, runtime};
use oncekey::{Begin, Engine, ErrorKind};
use oncekey_postgres::CompleteIn;
use oncekey_testing::calls::{begin, claim};
use tokio_postgres::{Client, IsolationLevel, NoTls};

struct Shop {
    one: Engine,
    other: Engine,
    client: Client,
}

/// Two engines, and a connection of the caller with a table of orders.
fn shop(test: impl AsyncFnOnce(Shop)) {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    cluster.raw(&database).run("CREATE TABLE orders (name text NOT NULL)");
    let [one, other] = [(); 2].map(|()| cluster.options(&database, "").open().unwrap());
    let url = cluster.url(&database);
    runtime().block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        test(Shop { one, other, client }).await;
    });
}

async fn orders(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0)
}

const ORDER: &str = "INSERT INTO orders VALUES ('a')";

#[test]
fn the_order_and_the_response_are_one_commit() {
    shop(async |Shop { one, other, mut client }| {
        let held = claim(&one, "a");
        let mut transaction = client.transaction().await.unwrap();
        transaction.execute(ORDER, &[]).await.unwrap();
        let completed = held.complete_in(&mut transaction, b"ordered").await.unwrap();
        // No caller waits for the transaction, and no caller sees uncommitted rows.
        for engine in [&one, &other] {
            assert!(matches!(begin(engine, "a"), Begin::Locked(_)));
        }
        claim(&other, "b").complete(b"meanwhile").await.unwrap();
        transaction.commit().await.unwrap();
        completed.committed();
        for engine in [&one, &other] {
            match settled(engine, "a") {
                Begin::Replay(recorded) => assert_eq!(recorded.response(), Some(&b"ordered"[..])),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(orders(&client).await, 1);
    });
}

#[test]
fn rolled_back_the_claim_is_held_or_an_orphan_and_never_locked_for_ever() {
    shop(async |Shop { one, other, mut client }| {
        let held = claim(&one, "kept");
        let mut transaction = client.transaction().await.unwrap();
        let completed = held.complete_in(&mut transaction, b"no").await.unwrap();
        transaction.rollback().await.unwrap();
        completed.rolled_back().complete(b"otherwise").await.unwrap();
        assert!(matches!(settled(&other, "kept"), Begin::Replay(_)));

        // `committed` is called too early, or its value is dropped, before the transaction ends.
        for early in [true, false] {
            let name = if early { "early" } else { "dropped" };
            let held = claim(&one, name);
            let mut transaction = client.transaction().await.unwrap();
            let completed = held.complete_in(&mut transaction, b"no").await.unwrap();
            match early {
                true => completed.committed(),
                false => drop(completed),
            }
            transaction.rollback().await.unwrap();
            assert!(matches!(settled(&other, name), Begin::Orphaned(_)), "{name}");
        }

        // Within a savepoint that is given up.
        let held = claim(&one, "savepoint");
        let mut transaction = client.transaction().await.unwrap();
        let mut savepoint = transaction.transaction().await.unwrap();
        let completed = held.complete_in(&mut savepoint, b"no").await.unwrap();
        savepoint.rollback().await.unwrap();
        transaction.commit().await.unwrap();
        completed.committed();
        assert!(matches!(settled(&other, "savepoint"), Begin::Orphaned(_)));
    });
}

#[test]
fn a_second_attempt_fences_the_transaction_of_the_first() {
    shop(async |Shop { one, other, mut client }| {
        let held = claim(&one, "a");
        one.reopen().unwrap();
        let Begin::Orphaned(orphan) = begin(&other, "a") else { panic!("its instance ended") };
        let second = orphan.take_over().await.unwrap();
        let mut transaction = client.transaction().await.unwrap();
        transaction.execute(ORDER, &[]).await.unwrap();
        let failed = held.complete_in(&mut transaction, b"late").await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Fenced);
        transaction.rollback().await.unwrap();

        let mut transaction = client.transaction().await.unwrap();
        transaction.execute(ORDER, &[]).await.unwrap();
        second.complete_in(&mut transaction, b"ordered").await.unwrap().committed();
        transaction.commit().await.unwrap();
        assert_eq!(orders(&client).await, 1);
        assert!(matches!(settled(&one, "a"), Begin::Replay(_)));
    });
}

#[test]
fn a_transaction_that_cannot_see_the_claim_gives_it_back() {
    shop(async |Shop { one, mut client, .. }| {
        let old = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let mut transaction = old.start().await.unwrap();
        transaction.query("SELECT 1 FROM orders", &[]).await.unwrap();
        let held = claim(&one, "a");
        let (error, held) =
            held.complete_in(&mut transaction, b"no").await.unwrap_err().into_parts();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        transaction.rollback().await.unwrap();
        held.unwrap().complete(b"yes").await.unwrap();
        // A completed key is not completed again.
        let other = claim(&one, "b");
        let transaction = client.transaction().await.unwrap();
        transaction.execute("UPDATE oncekey.key SET state = 4, since = 1, expires_at = 9000000000000, leaf = 8 WHERE state = 1", &[]).await.unwrap();
        transaction.commit().await.unwrap();
        let mut transaction = client.transaction().await.unwrap();
        let failed = other.complete_in(&mut transaction, b"no").await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::AlreadyCompleted);
    });
}

#[test]
fn a_claim_whose_owner_ended_a_ttl_ago_is_fenced() {
    shop(async |Shop { one, mut client, .. }| {
        let held = claim(&one, "a");
        one.reopen().unwrap();
        let long_ago = "UPDATE oncekey.key SET started_at = started_at - 2 * ttl_ms;
                        UPDATE oncekey.instance SET ended_at = 1 WHERE ended_at IS NOT NULL";
        client.batch_execute(long_ago).await.unwrap();
        let mut transaction = client.transaction().await.unwrap();
        let failed = held.complete_in(&mut transaction, b"late").await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Fenced);
        transaction.rollback().await.unwrap();
        assert!(matches!(begin(&one, "a"), Begin::Claimed(_)), "it is new");
    });
}

#[test]
fn a_claim_of_an_embedded_store_is_unsupported() {
    shop(async |Shop { mut client, .. }| {
        let dir = std::env::temp_dir().join(format!("oncekey-embedded-{}", std::process::id()));
        let engine = Engine::open(&dir).unwrap();
        let held = claim(&engine, "a");
        let mut transaction = client.transaction().await.unwrap();
        let failed = held.complete_in(&mut transaction, b"no").await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unsupported);
        failed.into_handle().unwrap().complete(b"here").await.unwrap();
        drop(engine);
        std::fs::remove_dir_all(&dir).unwrap();
    });
}
