//! What many live keys cost a database.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oncekey_benches::Result;
use oncekey_benches::drive;
use oncekey_benches::report::median;

use super::callers::Callee;
use crate::engines::oncekey::Oncekey;
use crate::modes::Turns;
use crate::servers::oncekey_postgres;
use crate::servers::postgres::{Database, PLANS};
use crate::targets;
use crate::work::{Ids, Work};

/// Throughput of a store with many live keys beside that of an empty one, the share of heap-only updates,
/// and the plans.
///
/// # Errors
/// No server; a plan that scans.
pub fn keys(dir: &Path, keys: u64, callers: usize, turns: Turns, work: &Work) -> Result<()> {
    let database = Database::start(&dir.join("keys"), false)?;
    let open = |schema: &str| -> Result<_> {
        let options = oncekey_postgres::options(&database.url()).schema(schema);
        Ok(Callee {
            rival: Arc::new(Oncekey::over(options.open()?, work)),
            ids: Arc::new(Ids::new()),
        })
    };
    let (full, empty) = (open("oncekey")?, open("empty")?);
    fill(&database, keys)?;
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..turns.rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let side = [&full, &empty][which];
            database.run("CHECKPOINT")?;
            rates[which].push(drive::slice(side, side.callers(callers), turns.slice)?.rate());
        }
    }
    let [full_slices, empty_slices] = rates;
    let [with, without] =
        [&full_slices, &empty_slices].map(|slices| median(slices).unwrap_or_default());
    println!("{keys} keys: {with:.0} pairs/s; empty: {without:.0}\n");
    std::thread::sleep(Duration::from_secs(2));
    let hot = "SELECT n_tup_hot_upd::float8 / greatest(n_tup_upd, 1) FROM pg_stat_user_tables WHERE schemaname = 'oncekey' AND relname = 'key'";
    print!(
        "{}",
        targets::table(&targets::keys(&full_slices, &empty_slices, database.run(hot)?.parse()?))
    );
    println!("sizes: {}", database.run("SELECT pg_size_pretty(pg_table_size('oncekey.key')) || ' key, ' || pg_size_pretty(pg_indexes_size('oncekey.key')) || ' its index'")?);
    plans(&database)
}

/// Completed records whose expiry is spread over a day.
fn fill(database: &Database, keys: u64) -> Result<()> {
    const CHUNK: u64 = 250_000;
    let mut left = keys;
    while left > 0 {
        let chunk = left.min(CHUNK);
        database.run(&format!(
            "WITH s AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now, bucket_ms, leaves FROM oncekey.store),
             n AS (SELECT nextval('oncekey.version') AS v, s.*, s.now + (random() * 86400000)::bigint AS until FROM s, generate_series(1, {chunk})),
             k AS (INSERT INTO oncekey.key (hash, version, token, owner, writer, op, started_at, ttl_ms, since, expires_at, attempt, state, leaf, identity, fingerprint)
                   SELECT gen_random_uuid(), v, v, 1, 1, v, now, 86400000, now, until, 1, 3,
                     CASE WHEN until / bucket_ms - now / bucket_ms BETWEEN 0 AND leaves - 3 THEN (until / bucket_ms % leaves)::smallint ELSE leaves END,
                     convert_to(lpad(v::text, 48, 'k'), 'UTF8'), convert_to(repeat('f', 100), 'UTF8')
                   FROM n RETURNING leaf, version, expires_at, hash)
             INSERT INTO oncekey.response (leaf, version, expires_at, hash, body)
             SELECT leaf, version, expires_at, hash, convert_to(repeat('r', 100), 'UTF8') FROM k"
        ))?;
        left -= chunk;
        eprintln!("{left} keys are left to fill in");
    }
    database.run("VACUUM ANALYZE oncekey.key")?;
    Ok(())
}

fn plans(database: &Database) -> Result<()> {
    for (name, text, types) in ::oncekey_postgres::gated_statements("oncekey") {
        let nulls = vec!["NULL"; types.len()].join(", ");
        let types = types.join(", ");
        let plan = database.run(&format!(
            "{PLANS}; PREPARE \"{name}\" ({types}) AS {text}; EXPLAIN EXECUTE \"{name}\" ({nulls})"
        ))?;
        for bad in ["Seq Scan", "Hash Join", "Merge Join"] {
            if plan.contains(bad) {
                return Err(format!("{name}: {bad}\n{plan}").into());
            }
        }
        println!("{name}: no scan, no hash");
    }
    Ok(())
}
