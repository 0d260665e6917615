//! The statements, each against the hazard that it was written for.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod history;
mod instances;
mod rows;
mod time;
mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use common::{ask, change, claim, cluster};
use oncekey::ErrorKind;
use oncekey::fleet::store::{
    Applied, Failure, Group, MAX_MILLIS, Renewal, Row, RowImage, RowState, Store, bytes,
};

const LEASE: Duration = Duration::from_secs(15);

/// One row of a read.
fn only(rows: oncekey::fleet::store::Rows) -> Row {
    assert_eq!(rows.rows.len(), 1, "{rows:?}");
    rows.rows[0].clone()
}

/// Sets the end of an instance's lease `ago` milliseconds back.
fn lapse(raw: &common::Raw, instance: u64, ago: i64) {
    raw.run(&format!("UPDATE oncekey.instance SET lease_until = (extract(epoch FROM clock_timestamp())*1000)::bigint - {ago}, \
         since = since - 1000000 WHERE id = {instance}"));
}

/// Makes the instance one that has renewed without a gap for long.
fn old(raw: &common::Raw, instance: u64) {
    raw.run(&format!("UPDATE oncekey.instance SET since = since - 1000000 WHERE id = {instance}"));
}

/// Whether a plan runs through one part of the statement for each row of another part, so that a group of n costs n².
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
            // A look into the leaves costs a single change more than all else, so only statements that may meet rows
            // look there.
            let looks = plan.contains("response_0_pkey");
            assert_eq!(looks, name.contains("any") || ["read", "orphans"].contains(&name));
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
