//! `oncekey stats` and `oncekey expiry`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::output::{Output, columns};
use super::place::Place;
use super::show;
use super::whereabouts::Where;
use crate::base::exit::Failure;
use crate::base::units;

/// The default time between two reports of `--watch`.
const WATCH: &str = "2s";

#[derive(Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    at: Where,

    /// Repeats after this time, until interrupted
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = WATCH, value_parser = units::duration)]
    watch: Option<Duration>,
}

impl Stats {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        loop {
            // The store is opened each time, so that other processes can hold it in between.
            let report = report(&self.at.open(output)?)?;
            if output.is_json() {
                output.document(&report)?;
            } else {
                let clear =
                    if self.watch.is_some() && output.colored() { "\x1b[H\x1b[J" } else { "" };
                output.bytes(format!("{clear}{}", text(output, &report)).as_bytes())?;
            }
            let Some(pause) = self.watch else { return Ok(()) };
            std::thread::sleep(pause);
        }
    }
}

/// The store, its owner, its figures and its volume in one document.
pub(crate) fn report(place: &Place) -> Result<Value, Failure> {
    let stats = place.stats()?;
    let owner = place.owner()?;
    let store = match owner["store"].as_str() {
        Some(store) => store.to_owned(),
        None => place.name(),
    };
    let volume = rustix::fs::statvfs(store.as_str()).ok();
    let volume = volume.map(|volume| {
        json!({
            "freeBytes": volume.f_bavail.saturating_mul(volume.f_frsize),
            "totalBytes": volume.f_blocks.saturating_mul(volume.f_frsize),
        })
    });
    let owner = match &owner {
        Value::Null => Value::Null,
        owner => json!({
            "pid": owner["pid"], "version": owner["version"], "startedMs": owner["startedMs"],
            "readOnly": owner["readOnly"], "role": owner["role"],
        }),
    };
    Ok(json!({
        "store": store, "shared": matches!(place, Place::Shared(..)), "owner": owner, "engine": stats["engine"], "layer": stats["layer"],
        "volume": volume,
    }))
}

/// The report as text.
pub(crate) fn text(output: &Output, report: &Value) -> String {
    let engine = |name: &str| report["engine"][name].as_u64().unwrap_or(0);
    let count = |name: &str| show::count(engine(name));
    let owner = match &report["owner"] {
        Value::Null if report["shared"] == json!(true) => {
            "shared: --url asks one of its processes".to_owned()
        }
        Value::Null => "no process has it open".to_owned(),
        owner => format!(
            "held by pid {}, oncekey {}, up {}",
            owner["pid"],
            show::text(&owner["version"]),
            show::age(show::now().saturating_sub(owner["startedMs"].as_u64().unwrap_or(0))),
        ),
    };
    let oldest = report["engine"]["oldestClaimMs"].as_u64();
    let oldest = oldest.map(|age| format!(", oldest {}", show::age(age))).unwrap_or_default();
    let hint = if engine("orphans") > 0 { "      ← oncekey orphans" } else { "" };
    let free = match (&report["volume"]["freeBytes"], &report["volume"]["totalBytes"]) {
        (Value::Number(free), Value::Number(total)) => {
            let (free, total) = (free.as_u64().unwrap_or(0), total.as_u64().unwrap_or(1).max(1));
            format!("   {} % of the volume free", free * 100 / total)
        }
        _ => String::new(),
    };
    let full = report["engine"]["full"] == json!(true);
    let health = match (full, engine("failures")) {
        (true, _) => output.painted(31, "full: new keys are refused"),
        (_, 0) => output.painted(32, "ok"),
        (_, failures) => output.painted(33, &format!("failed {failures} times")),
    };
    let lines = [
        ("store", format!("{}    {owner}", show::text(&report["store"]))),
        (
            "keys",
            format!(
                "{} folded (about)    in flight {}{oldest}",
                count("foldedRecords"),
                count("inFlight")
            ),
        ),
        ("orphans", format!("{}{hint}", count("orphans"))),
        (
            "since start",
            format!(
                "claimed {}  replayed {}  locked {}  mismatched {}  errors {}",
                count("claimed"),
                count("replayed"),
                count("locked"),
                count("mismatched"),
                count("errors"),
            ),
        ),
        ("disk", format!("{}    runs {}{free}", show::size(engine("storeBytes")), count("runs"))),
        ("health", health),
    ];
    // Of the processes of a shared store, nobody has the sum.
    let unknown =
        if report["shared"] == json!(true) { &["keys", "since start", "disk"][..] } else { &[] };
    let lines = lines.iter().filter(|(name, _)| !unknown.contains(name)).map(|(name, value)| {
        let line = format!("{name:<12} {value}");
        // A colour code has no width. These lines are short, so they are not cut.
        if line.contains('\x1b') { line } else { show::cut(&line, columns()) }
    });
    lines.map(|line| format!("{line}\n")).collect()
}

#[derive(Args)]
pub(crate) struct Expiry {
    #[command(flatten)]
    at: Where,

    /// The largest number of buckets to show; neighbouring buckets are joined
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..))]
    buckets: u16,
}

impl Expiry {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let all = self.at.open(output)?.expiry()?;
        let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
        let joined = all.chunks(all.len().div_ceil(usize::from(self.buckets)).max(1)).map(|some| {
            let sum =
                |name: &str| some.iter().filter_map(|bucket| bucket[name].as_u64()).sum::<u64>();
            let end = some.last().map(|bucket| bucket["endMs"].clone());
            json!({ "endMs": end, "records": sum("records"), "bytes": sum("bytes") })
        });
        let joined: Vec<Value> = joined.collect();
        let most = joined.iter().filter_map(|bucket| bucket["records"].as_u64()).max().unwrap_or(1);
        let document = json!({ "buckets": joined });
        output.list(&document, "buckets", &["EXPIRED BY", "RECORDS", "BYTES", ""], |bucket| {
            let records = bucket["records"].as_u64().unwrap_or(0);
            let bar = (records * 30).div_ceil(most.max(1)) as usize;
            vec![
                output.moment(bucket["endMs"].as_u64()),
                show::count(records),
                show::size(bucket["bytes"].as_u64().unwrap_or(0)),
                "#".repeat(bar),
            ]
        })
    }
}
