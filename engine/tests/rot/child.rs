//! Trials run in processes of their own. On damaged pages redb may panic while it unwinds, which
//! ends the process. The test takes that for the end of one trial, and tells it apart from every
//! other end.

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;

use super::common::{Seed, this_test};

const SEEDS: &str = "ONCEKEY_ROT_SEEDS";

/// Whether redb ended the process. Its last panic is one of redb, or the standard library's about a
/// panic during unwinding. Or the folder's stack overflowed: no code of the engine recurses there,
/// while redb recurses without end over a page that damage made its own child.
fn ended_by_redb(stderr: &str) -> bool {
    if stderr.contains("thread 'oncekey-fold' (") && stderr.contains("has overflowed its stack") {
        return true;
    }
    let last = stderr.lines().rfind(|line| line.contains("panicked at"));
    last.is_some_and(|at| at.contains("/redb-") || at.contains("core/src/panicking.rs"))
        && !stderr.contains("memory allocation of")
}

/// The sums of the counts of trials, and the number of trials that ended their process.
#[derive(Debug)]
pub(crate) struct Ran<const N: usize> {
    pub(crate) counts: [u64; N],
    pub(crate) ended: u64,
}

/// Runs `trial` for each seed in children of this process, which run the test `name` again. `None`
/// in such a child.
pub(crate) fn run<const N: usize>(
    name: &str,
    seeds: Range<u64>,
    mut trial: impl FnMut(u64) -> [u64; N],
) -> Option<Ran<N>> {
    if let Ok(given) = std::env::var(SEEDS) {
        let (start, end) = given.split_once(' ').unwrap();
        for seed in start.parse().unwrap()..end.parse().unwrap() {
            let _named = Seed(seed);
            println!("\n@seed {seed}");
            let counts = trial(seed).map(|count| count.to_string());
            println!("\n@counts {}", counts.join(" "));
        }
        return None;
    }
    let mut ran = Ran { counts: [0; N], ended: 0 };
    let mut next = seeds.start;
    while next < seeds.end {
        let child = this_test(name).env(SEEDS, format!("{next} {}", seeds.end)).output().unwrap();
        let mut last = None;
        for line in String::from_utf8_lossy(&child.stdout).lines() {
            if let Some(seed) = line.strip_prefix("@seed ") {
                last = Some(seed.parse::<u64>().unwrap());
            } else if let Some(counts) = line.strip_prefix("@counts ") {
                for (sum, count) in ran.counts.iter_mut().zip(counts.split(' ')) {
                    *sum += count.parse::<u64>().unwrap();
                }
            }
        }
        let last = last.expect("the child ran a trial");
        if child.status.success() {
            assert_eq!(last + 1, seeds.end, "the child ran all trials");
            break;
        }
        let stderr = String::from_utf8_lossy(&child.stderr);
        let _named = Seed(last);
        let aborted = child.status.signal() == Some(libc::SIGABRT);
        assert!(aborted && ended_by_redb(&stderr), "{}: {stderr}", child.status);
        ran.ended += 1;
        next = last + 1;
    }
    Some(ran)
}
