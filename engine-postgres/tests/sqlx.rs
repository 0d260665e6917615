//! `complete_in` in a transaction of sqlx 0.8.

#![allow(clippy::unwrap_used)]

mod common;

use common::asking::{begin, claim, key, orphan, replay};
use common::{cluster, runtime};
use oncekey::{Begin, Engine, ErrorKind, Lookup};
use oncekey_postgres::CompleteIn;
use sqlx::{Connection, PgConnection};

struct Shop {
    one: Engine,
    other: Engine,
    client: PgConnection,
}

/// Two engines, and a connection of the caller with a table of orders.
fn shop(test: impl AsyncFnOnce(Shop)) {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    cluster.raw(&database).run("CREATE TABLE orders (name text NOT NULL)");
    let [one, other] = [(); 2].map(|()| cluster.options(&database, "").open().unwrap());
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", cluster.port);
    runtime().block_on(async {
        test(Shop { one, other, client: PgConnection::connect(&url).await.unwrap() }).await;
    });
}

async fn order(client: &mut PgConnection) {
    sqlx::query("INSERT INTO orders VALUES ('a')").execute(client).await.unwrap();
}

async fn orders(client: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(client).await.unwrap()
}

#[test]
fn the_order_and_its_response_are_one_commit() {
    shop(async |Shop { one, other, mut client }| {
        let claim = claim(&one, "a");
        let mut transaction = client.begin().await.unwrap();
        order(&mut transaction).await;
        let completed = claim.complete_in(&mut *transaction, b"201").await.unwrap();
        assert!(matches!(other.get(&key("a")).unwrap(), Lookup::InFlight(_)), "not committed yet");
        transaction.commit().await.unwrap();
        completed.committed();
        assert_eq!((replay(&other, "a"), replay(&one, "a")), (b"201".to_vec(), b"201".to_vec()));
        assert_eq!(orders(&mut client).await, 1);
    });
}

#[test]
fn a_rollback_leaves_neither_order_nor_response() {
    shop(async |Shop { one, other, mut client }| {
        let held = claim(&one, "a");
        let mut transaction = client.begin().await.unwrap();
        order(&mut transaction).await;
        let completed = held.complete_in(&mut *transaction, b"201").await.unwrap();
        transaction.rollback().await.unwrap();
        let held = completed.rolled_back();
        assert!(matches!(other.get(&key("a")).unwrap(), Lookup::InFlight(_)));
        assert_eq!(orders(&mut client).await, 0);
        // The claim is held as before: it may be tried again.
        let mut transaction = client.begin().await.unwrap();
        order(&mut transaction).await;
        held.complete_in(&mut *transaction, b"202").await.unwrap().committed();
        // Dropped without a commit.
        drop(transaction);
        assert_eq!(orders(&mut client).await, 0);
        assert!(!matches!(begin(&other, "a"), Begin::Replay(_)));
    });
}

#[test]
fn a_transaction_of_an_owner_that_was_taken_over_is_fenced() {
    shop(async |Shop { one, other, mut client }| {
        let slow = claim(&one, "a");
        one.reopen().unwrap();
        let taken = orphan(&other, "a").take_over().await.unwrap();
        let mut transaction = client.begin().await.unwrap();
        order(&mut transaction).await;
        let fenced = slow.complete_in(&mut *transaction, b"late").await.unwrap_err();
        assert_eq!(fenced.kind(), ErrorKind::Fenced);
        transaction.rollback().await.unwrap();
        let mut transaction = client.begin().await.unwrap();
        order(&mut transaction).await;
        let completed = taken.complete_in(&mut *transaction, b"first").await.unwrap();
        transaction.commit().await.unwrap();
        completed.committed();
        assert_eq!((replay(&one, "a"), orders(&mut client).await), (b"first".to_vec(), 1));
    });
}
