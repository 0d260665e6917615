//! Begins and completes operations with a number of them outstanding, from Rust tasks on one thread,
//! and prints how many pairs a second that made: the measure for `pairs.c` and `go/internal/pairs`.
//!
//! Usage: pairs DIRECTORY OUTSTANDING SECONDS

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_executor::LocalPool;
use futures_util::task::LocalSpawnExt;
use oncekey::{Begin, Engine, Fingerprint, Key};

const RESPONSE: [u8; 1024] = [b'r'; 1024];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, directory, outstanding, seconds] = &arguments[..] else {
        return Err("usage: pairs DIRECTORY OUTSTANDING SECONDS".into());
    };
    let engine = Engine::open(directory)?;
    let (outstanding, seconds): (u64, f64) = (outstanding.parse()?, seconds.parse()?);
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(seconds);
    let number = Rc::new(Cell::new(0));
    let mut pool = LocalPool::new();
    for _ in 0..outstanding {
        let (engine, number) = (engine.clone(), number.clone());
        pool.spawner().spawn_local(async move {
            while Instant::now() < end {
                number.set(number.get() + 1);
                if let Err(error) = pair(&engine, number.get()).await {
                    eprintln!("{error}");
                    std::process::exit(1);
                }
            }
        })?;
    }
    pool.run();
    println!("{:.0}", number.get() as f64 / started.elapsed().as_secs_f64());
    engine.close()?;
    Ok(())
}

async fn pair(engine: &Engine, number: u64) -> Result<(), oncekey::Error> {
    let key = Key::new("tenant-0042", format!("key-{number:032}"))?;
    let fingerprint = Fingerprint::builder()
        .part("method", "POST")
        .part("target", "/api/v2/orders")
        .part("header authorization", "Bearer 0123456789")
        .part("header content-type", "application/json")
        .part("body", "{\"customerId\":\"c-1\"}")
        .finish();
    match engine.begin(&key, fingerprint).await? {
        Begin::Claimed(claim) => {
            claim.complete(&RESPONSE).await?;
            Ok(())
        }
        other => unreachable!("a new key is claimed: {other:?}"),
    }
}
