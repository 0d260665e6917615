//! The first part of docs/benchmarks.md, made of what the mode `http` measured: no figure in it is typed by hand.

use std::fmt::Write;
use std::path::Path;

use oncekey_benches::Result;

use crate::http::{Http, Load};
use crate::results::Results;
use crate::{plot, tables, targets};

const START: &str = "<!-- Made by `oncekey-compare page`: edit src/page.rs, not this part. -->";
const END: &str = "<!-- The end of what `oncekey-compare page` makes. -->";
const PAGE: &str = "benchmarks.md";

/// Writes that part into the page in `docs`, under its title or in place of an earlier one, and the drawings beside it.
///
/// # Errors
/// Those of the filesystem; a page without a title; a run of `http` that left a side out.
pub fn write(results: &Results, docs: &Path) -> Result<()> {
    let path = docs.join(PAGE);
    let page = replaced(&std::fs::read_to_string(&path)?, &part(results)?)?;
    plot::results(&Results { pairs: Vec::new(), ..results.clone() }, &docs.join("plots"))?;
    Ok(std::fs::write(path, page)?)
}

/// The page with `part` in it.
fn replaced(page: &str, part: &str) -> Result<String> {
    if let Some((before, rest)) = page.split_once(START) {
        let (_, after) =
            rest.split_once(END).ok_or("the page has the start of the part and no end")?;
        return Ok(format!("{before}{START}\n\n{part}{END}{after}"));
    }
    let (title, after) = page.split_once('\n').ok_or("the page is empty")?;
    if !title.starts_with("# ") {
        return Err("the page has no title".into());
    }
    Ok(format!("{title}\n\n{START}\n\n{part}{END}\n{after}"))
}

fn part(results: &Results) -> Result<String> {
    let mut out = conclusions(&results.http).ok_or("the page needs a whole run of `http`")?;
    out.push_str(
        "\n![requests/s by connections](plots/http-throughput.svg)\n\n\
         ![CPU time of server and store by connections](plots/http-cpu.svg)\n\n",
    );
    targets::write(&mut out, &targets::http(&results.http))?;
    out.push_str(
        "Each ratio is the median over the rounds of that in the same round. The client, the server and \
         the store are processes of their own on the same processors; what each does is in \
         [benches/compare](../benches/compare/README.md#requests-over-http).\n\n",
    );
    tables::conditions(&mut out, results)?;
    tables::http(&mut out, &results.http)?;
    Ok(out)
}

/// What a reader should know who reads no further: five sentences.
fn conclusions(cells: &[Http]) -> Option<String> {
    let (none, new) = (("bare", Load::NoKey), ("oncekey", Load::New));
    let (replay, mimalloc) = (("oncekey", Load::Replay), ("oncekey-mimalloc", Load::New));
    let (redis, postgres) = (("redis", Load::New), ("postgres", Load::New));
    let (fleet, bare) = (("oncekey-postgres", Load::New), ("bare-mimalloc", Load::NoKey));
    let at = |(side, load), connections| targets::cell(cells, side, load, connections);
    let rates = |of, to, connections| targets::rates(cells, of, to, connections);
    let mut out = String::new();
    let rate = tables::thousands(at(new, 64)?.requests_per_second);
    writeln!(
        out,
        "1. At 64 connections one handler of axum answers {rate} requests with new keys a second, each claimed and recorded durably: {:.1} times \
         as many as with the usual Redis recipe, {:.1} times as many as with the usual table in PostgreSQL, {:.2} of those without a key.",
        rates(new, redis, 64)?,
        rates(new, postgres, 64)?,
        rates(new, none, 64)?
    )
    .ok()?;
    writeln!(
        out,
        "2. Such a request takes {:.0} µs of the server's CPU where one without a key takes {:.0}: {:.1} times as much at 64 connections and {:.1} times \
         at 256, with mimalloc {:.1} and {:.1} times.",
        at(new, 64)?.server_cpu_us,
        at(none, 64)?.server_cpu_us,
        targets::cpu(cells, new, none, 64)?,
        targets::cpu(cells, new, none, 256)?,
        targets::cpu(cells, mimalloc, bare, 64)?,
        targets::cpu(cells, mimalloc, bare, 256)?
    )
    .ok()?;
    writeln!(
        out,
        "3. One connection alone, which waits for each sync, gets {:.1} times as many answers a second as with the Redis recipe and {:.1} times as many as with the table.",
        rates(new, redis, 1)?,
        rates(new, postgres, 1)?
    )
    .ok()?;
    writeln!(
        out,
        "4. Replays of 500 hot keys reach {:.2} of the requests/s without a key at 64 connections, and {:.2} of them with the Redis recipe.",
        rates(replay, none, 64)?,
        rates(("redis", Load::Replay), none, 64)?
    )
    .ok()?;
    let store_cpu = at(fleet, 64)?.store_cpu_us / at(postgres, 64)?.store_cpu_us;
    writeln!(
        out,
        "5. On a shared PostgreSQL (`oncekey-postgres`) new keys at 64 connections get {:.1} times the answers of the table with {store_cpu:.2} of its CPU in PostgreSQL.",
        rates(fleet, postgres, 64)?
    )
    .ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_goes_under_the_title_and_later_into_its_own_place() {
        let page = "# Benchmarks\n\nThe rest.\n";
        let once = replaced(page, "First.\n").unwrap();
        assert_eq!(once, format!("# Benchmarks\n\n{START}\n\nFirst.\n{END}\n\nThe rest.\n"));
        let twice = replaced(&once, "Second.\n").unwrap();
        assert_eq!(twice, once.replace("First", "Second"));
        assert!(replaced("The rest.\n", "").is_err());
        assert!(replaced(&format!("# Benchmarks\n{START}\n"), "").is_err());
    }

    #[test]
    fn a_run_that_left_something_out_makes_no_page() {
        assert!(part(&Results::default()).is_err());
    }
}
