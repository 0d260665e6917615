//! Pairs of begin and complete over a fleet, with a response of 1 KiB, and replays at another engine:
//! `pairs URL [callers] [seconds]`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oncekey::{Begin, Engine, Fingerprint, Key};

fn fingerprint() -> Fingerprint {
    Fingerprint::builder().part("body", "body").finish()
}

/// Runs `callers` tasks for `seconds`, each with numbers of its own; gives the sorted times.
async fn run<F>(callers: u64, seconds: f64, call: impl Fn(u64) -> F) -> Vec<Duration>
where
    F: Future<Output = ()> + Send + 'static,
{
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let numbers = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    let call = &call;
    for _ in 0..callers {
        let numbers = numbers.clone();
        tasks.push(async move {
            let mut own = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                call(numbers.fetch_add(1, Ordering::Relaxed)).await;
                own.push(start.elapsed());
            }
            own
        });
    }
    let mut all = futures_util::future::join_all(tasks).await.concat();
    all.sort();
    all
}

fn tell(what: &str, callers: u64, seconds: f64, times: &[Duration]) {
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let rate = times.len() as f64 / seconds;
    println!("{what}: {callers} callers: {rate:.0}/s, p50 {:?}, p99 {:?}", at(0.5), at(0.99));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("pairs URL [callers] [seconds]")?;
    let callers: u64 = args.next().map_or(Ok(16), |n| n.parse())?;
    let seconds: f64 = args.next().map_or(Ok(3.0), |n| n.parse())?;
    let open = || oncekey_postgres::Options::new(&url).create(true).open();
    let (engine, other): (Engine, Engine) = (open()?, open()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run_id = std::process::id();
    runtime.block_on(async {
        let times = run(callers, seconds, |number| {
            let engine = engine.clone();
            async move {
                let key = Key::new("pairs", format!("{run_id}-{number}")).expect("a short key");
                match engine.begin(&key, fingerprint()).await {
                    Ok(Begin::Claimed(claim)) => {
                        claim.complete(&[7; 1024]).await.expect("completed");
                    }
                    answer => panic!("{answer:?}"),
                }
            }
        })
        .await;
        tell("pairs", callers, seconds, &times);
        let made = times.len() as u64;
        let times = run(callers, seconds, |number| {
            let other = other.clone();
            async move {
                let key =
                    Key::new("pairs", format!("{run_id}-{}", number % made)).expect("a short key");
                match other.begin(&key, fingerprint()).await {
                    Ok(Begin::Replay(_)) => {}
                    answer => panic!("{answer:?}"),
                }
            }
        })
        .await;
        tell("replays elsewhere", callers, seconds, &times);
    });
    println!("{:?}", engine.stats());
    Ok(())
}
