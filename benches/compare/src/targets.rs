//! The project's targets beside what a run measured: ratios of sides that took turns.

use std::fmt::Write;

use oncekey_benches::report::median;

use crate::fleet::Fleet;
use crate::http::{Http, Load};

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    what: String,
    bound: Bound,
    /// `None`: the run did not measure it.
    measured: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Without a target.
    Reported,
}

impl Target {
    fn verdict(&self) -> &'static str {
        match (self.bound, self.measured) {
            (_, None) => "not measured",
            (Bound::Reported, _) => "",
            (Bound::AtLeast(bound), Some(measured)) if measured >= bound => "met",
            (Bound::AtMost(bound), Some(measured)) if measured <= bound => "met",
            _ => "missed",
        }
    }
}

/// [`write`], to a string of its own.
pub fn table(targets: &[Target]) -> String {
    let mut out = String::new();
    match write(&mut out, targets) {
        Ok(()) => out,
        Err(error) => unreachable!("writing to a string fails: {error}"),
    }
}

/// A table with a row for each target.
pub fn write(out: &mut String, targets: &[Target]) -> std::fmt::Result {
    if targets.is_empty() {
        return Ok(());
    }
    writeln!(out, "| | target | measured | |\n|---|--:|--:|---|")?;
    for target in targets {
        let figure = |value: f64| match value {
            value if value >= 1000.0 => crate::tables::thousands(value),
            value => format!("{value:.2}"),
        };
        let bound = match target.bound {
            Bound::AtLeast(bound) => format!("at least {}", figure(bound)),
            Bound::AtMost(bound) => format!("at most {}", figure(bound)),
            Bound::Reported => String::new(),
        };
        let measured = target.measured.map(figure).unwrap_or_default();
        writeln!(out, "| {} | {bound} | {measured} | {} |", target.what, target.verdict())?;
    }
    writeln!(out)
}

/// The median of the ratios of `of` to `to`, round by round: a machine that is faster in one round than in the next
/// changes both.
fn paired(of: &[f64], to: &[f64]) -> Option<f64> {
    let ratios: Vec<_> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    median(&ratios).filter(|ratio| ratio.is_finite())
}

/// One side under one load at one number of connections.
pub fn cell<'a>(cells: &'a [Http], side: &str, load: Load, connections: usize) -> Option<&'a Http> {
    let is = |it: &&Http| it.side == side && it.load == load && it.connections == connections;
    cells.iter().find(is)
}

/// Requests/s of one cell in those of another.
pub fn rates(
    cells: &[Http],
    of: (&str, Load),
    to: (&str, Load),
    connections: usize,
) -> Option<f64> {
    let [of, to] = [of, to].map(|(side, load)| cell(cells, side, load, connections));
    paired(&of?.slices, &to?.slices)
}

/// CPU time of the server of one cell in that of another.
pub fn cpu(cells: &[Http], of: (&str, Load), to: (&str, Load), connections: usize) -> Option<f64> {
    let [of, to] = [of, to].map(|(side, load)| cell(cells, side, load, connections));
    paired(&of?.server_cpu_slices, &to?.server_cpu_slices)
}

/// Those of requests over HTTP, with the system's allocator and with mimalloc, each beside the handler alone on the same.
/// The raw limit shows which of them the machine leaves within reach.
pub fn http(cells: &[Http]) -> Vec<Target> {
    let mut targets = Vec::new();
    for (side, bare) in
        [("raw", "bare"), ("oncekey", "bare"), ("oncekey-mimalloc", "bare-mimalloc")]
    {
        if !cells.iter().any(|cell| cell.side == side) {
            continue;
        }
        let limit = side == "raw";
        let bound = |bound| if limit { Bound::Reported } else { bound };
        let (new, replay) = ((side, Load::New), (side, Load::Replay));
        let (redis, none) = (("redis", Load::New), (bare, Load::NoKey));
        let mut target = |what: &str, least, measured| {
            let what = format!("{side}: {what}");
            targets.push(Target { what, bound: bound(least), measured });
        };
        let redis_at = |connections| rates(cells, new, redis, connections);
        target(
            "new keys at 64 connections, in requests/s of the Redis recipe",
            Bound::AtLeast(2.0),
            redis_at(64),
        );
        target(
            "new keys at 1 connection, in requests/s of the Redis recipe",
            Bound::AtLeast(1.5),
            redis_at(1),
        );
        target(
            "new keys at 64 connections, in requests/s without a key",
            Bound::AtLeast(0.6),
            rates(cells, new, none, 64),
        );
        for connections in [64, 256] {
            let what = format!(
                "server CPU of a new key at {connections} connections, in that without a key"
            );
            target(&what, Bound::AtMost(1.8), cpu(cells, new, none, connections));
        }
        if !limit {
            target(
                "hot replays at 64 connections, in requests/s without a key",
                Bound::AtLeast(0.92),
                rates(cells, replay, none, 64),
            );
        }
    }
    targets
}

/// Those of several processes on one PostgreSQL, beside a statement for each row. The same rows in
/// groups, without a check, show which of them a server can reach.
pub fn fleets(cells: &[Fleet]) -> Vec<Target> {
    let mut targets = Vec::new();
    for it in cells.iter().filter(|it| it.side != "postgres") {
        let Fleet { processes, callers, standby, .. } = *it;
        let place = format!("{processes} × {callers}{}", if standby { ", standby" } else { "" });
        let limit = it.side == "postgres-groups";
        let place = if limit { format!("{place}, rows in groups") } else { place };
        // With a standby all is reported, and nothing asked for.
        let bound = |bound| if standby || limit { Bound::Reported } else { bound };
        let mut target = |what: &str, bound, measured| {
            targets.push(Target { what: format!("{place}: {what}"), bound, measured });
        };
        if it.replays {
            let least = if callers == 64 { Bound::AtLeast(30_000.0) } else { Bound::Reported };
            target("replays/s of another process's keys", bound(least), Some(it.per_second));
            continue;
        }
        let same = |rows: &&Fleet| {
            let it = (rows.side.as_str(), rows.processes, rows.callers, rows.standby, rows.replays);
            it == ("postgres", processes, callers, standby, false)
        };
        let rows = cells.iter().find(same);
        let rate = match callers {
            1 => Bound::AtLeast(0.85),
            16 => Bound::AtLeast(1.5),
            64 => Bound::AtLeast(3.0),
            256 => Bound::AtLeast(5.0),
            _ => Bound::Reported,
        };
        let (cpu, p99) = match callers {
            16 => (Bound::AtMost(1.0 / 3.0), Bound::Reported),
            64 | 256 => (Bound::AtMost(1.0 / 6.0), Bound::AtMost(0.5)),
            _ => (Bound::Reported, Bound::Reported),
        };
        let ratio = |value: fn(&Fleet) -> f64| rows.map(|rows| value(it) / value(rows));
        let rates = rows.and_then(|rows| paired(&it.slices, &rows.slices));
        target("pairs/s, in those of a statement for each row", bound(rate), rates);
        target(
            "server CPU a pair, in that of a statement for each row",
            bound(cpu),
            ratio(|it| it.server_cpu_us),
        );
        target("p99, in that of a statement for each row", bound(p99), ratio(|it| it.p99_us));
    }
    targets
}

/// Those of a store with many live keys beside an empty one.
pub fn keys(full: &[f64], empty: &[f64], heap_only: f64) -> Vec<Target> {
    let target = |what: &str, measured| Target {
        what: what.to_owned(),
        bound: Bound::AtLeast(0.9),
        measured,
    };
    vec![
        target("pairs/s, in those of the empty store", paired(full, empty)),
        target("share of heap-only updates", Some(heap_only)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bound: Bound, measured: Option<f64>) -> &'static str {
        Target { what: String::new(), bound, measured }.verdict()
    }

    #[test]
    fn a_target_is_met_at_its_bound_and_missed_beyond_it() {
        assert_eq!(target(Bound::AtLeast(2.0), Some(2.0)), "met");
        assert_eq!(target(Bound::AtLeast(2.0), Some(1.99)), "missed");
        assert_eq!(target(Bound::AtMost(1.8), Some(1.8)), "met");
        assert_eq!(target(Bound::AtMost(1.8), Some(1.81)), "missed");
        assert_eq!(target(Bound::AtMost(1.8), None), "not measured");
        assert_eq!(target(Bound::Reported, Some(7.0)), "");
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        // The machine is twice as fast in the second round, for both.
        assert_eq!(paired(&[20.0, 40.0, 22.0], &[10.0, 20.0, 10.0]), Some(2.0));
        assert_eq!(paired(&[1.0], &[0.0]), None);
        assert_eq!(paired(&[], &[]), None);
    }
}
