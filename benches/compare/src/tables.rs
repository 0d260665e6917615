//! Results as tables in Markdown, so that no figure is ever typed by hand.

use std::fmt::Write;

use crate::http::Http;
use crate::results::{Pairs, Results};
use crate::targets;

/// All tables of `results`.
pub fn markdown(results: &Results) -> String {
    let mut out = String::new();
    match write(&mut out, results) {
        Ok(()) => out,
        Err(error) => unreachable!("writing to a string fails: {error}"),
    }
}

fn write(out: &mut String, results: &Results) -> std::fmt::Result {
    conditions(out, results)?;
    let mut callers: Vec<_> = results.pairs.iter().map(|pairs| pairs.callers).collect();
    callers.dedup();
    if !results.pairs.is_empty() {
        summary(out, results, &callers)?;
    }
    for &callers in &callers {
        writeln!(out, "#### {callers} callers\n")?;
        writeln!(
            out,
            "| side | pairs/s | of the raw limit | p50 µs | p99 µs | p99.9 µs | bytes written per \
             pair | CPU µs per pair |\n|---|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        let raw = find(results, "raw", callers).map(|raw| raw.pairs_per_second);
        for pairs in results.pairs.iter().filter(|pairs| pairs.callers == callers) {
            let ratio = raw.map_or("".to_owned(), |raw| {
                format!("{:.0} %", pairs.pairs_per_second / raw * 100.0)
            });
            writeln!(
                out,
                "| {} | {} | {ratio} | {:.0} | {:.0} | {:.0} | {} | {:.1} |",
                pairs.side,
                thousands(pairs.pairs_per_second),
                pairs.p50_us,
                pairs.p99_us,
                pairs.p999_us,
                thousands(pairs.written_per_pair),
                pairs.cpu_us_per_pair
            )?;
        }
        writeln!(out)?;
    }
    if !results.fleets.is_empty() {
        fleets(out, results)?;
        targets::write(out, &targets::fleets(&results.fleets))?;
    }
    if !results.http.is_empty() {
        http(out, &results.http)?;
        targets::write(out, &targets::http(&results.http))?;
    }
    if !results.replays.is_empty() {
        writeln!(
            out,
            "| side | records | asked for | threads | replays/s | replays/s per core used | load s \
             |\n|---|--:|--:|--:|--:|--:|--:|"
        )?;
        for it in &results.replays {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {:.0} |",
                it.side,
                thousands(it.records as f64),
                thousands(it.asked as f64),
                it.threads,
                thousands(it.replays_per_second),
                thousands(it.replays_per_cpu_second),
                it.load_seconds
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// When and where a run was, and of what.
pub fn conditions(out: &mut String, results: &Results) -> std::fmt::Result {
    let machine = &results.machine;
    writeln!(
        out,
        "{}; {} cores of {}, {:.0} GiB memory, Linux {}, {}; responses of {} bytes.\n",
        machine.started,
        machine.cores,
        machine.cpu,
        machine.memory as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.filesystem,
        results.response
    )?;
    let versions: Vec<_> =
        results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    writeln!(out, "Versions: {}.\n", versions.join(", "))?;
    for (side, why) in &results.missing {
        writeln!(out, "Not measured: {side} ({}).\n", why.trim())?;
    }
    Ok(())
}

/// Several processes on one server.
fn fleets(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(
        out,
        "| callers × processes | side | per s | p50 ms | p99 ms | server CPU µs each | client CPU µs each \
         |\n|---|---|--:|--:|--:|--:|--:|"
    )?;
    for it in &results.fleets {
        writeln!(
            out,
            "| {} × {}{}{} | {} | {} | {:.1} | {:.1} | {:.0} | {:.0} |",
            it.callers,
            it.processes,
            if it.standby { ", standby" } else { "" },
            if it.replays { ", replays elsewhere" } else { "" },
            it.side,
            thousands(it.per_second),
            it.p50_us / 1e3,
            it.p99_us / 1e3,
            it.server_cpu_us,
            it.client_cpu_us
        )?;
    }
    writeln!(out)
}

/// Requests over HTTP: a row for each side and load, by connections.
pub fn http(out: &mut String, cells: &[Http]) -> std::fmt::Result {
    let mut counts: Vec<_> = cells.iter().map(|cell| cell.connections).collect();
    counts.dedup();
    for connections in counts {
        writeln!(
            out,
            "| {connections} connections | load | requests/s | p50 µs | p99 µs | p99.9 µs | CPU µs a request: \
             server | store | client |\n|---|---|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for it in cells.iter().filter(|cell| cell.connections == connections) {
            let store = match it.side.as_str() {
                "oncekey-postgres" | "redis" | "postgres" => format!("{:.0}", it.store_cpu_us),
                _ => String::new(),
            };
            writeln!(
                out,
                "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {store} | {:.0} |",
                it.side,
                it.load.name(),
                thousands(it.requests_per_second),
                it.p50_us,
                it.p99_us,
                it.p999_us,
                it.server_cpu_us,
                it.client_cpu_us
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Pairs per second of all sides, by callers.
fn summary(out: &mut String, results: &Results, callers: &[usize]) -> std::fmt::Result {
    let columns: String = callers.iter().map(|callers| format!(" {callers} |")).collect();
    writeln!(out, "| pairs/s by callers |{columns}\n|---|{}", "--:|".repeat(callers.len()))?;
    for side in crate::sides::all() {
        let cells: Vec<_> = callers.iter().map(|&callers| find(results, side, callers)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells = cells.iter().map(|pairs| {
            let rate = pairs.map_or_else(String::new, |pairs| thousands(pairs.pairs_per_second));
            format!(" {rate} |")
        });
        writeln!(out, "| {side} |{}", cells.collect::<String>())?;
    }
    writeln!(out)
}

fn find<'a>(results: &'a Results, side: &str, callers: usize) -> Option<&'a Pairs> {
    results.pairs.iter().find(|pairs| pairs.side == side && pairs.callers == callers)
}

/// Rounded, with separators: 12,345.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
