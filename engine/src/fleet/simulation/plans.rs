//! The plans: the faults of a simulation, and their frequency.

use super::*;

/// Runs seeds, and the seeds that once showed a fault.
fn simulate(name: &str, plan: Plan, default_seeds: u64, found: &[u64]) {
    let first = std::env::var("ONCEKEY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = std::env::var("ONCEKEY_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let (first, seeds) = (first.unwrap_or(0), seeds.unwrap_or(default_seeds));
    let mut told: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in (first..first + seeds).chain(found.iter().copied()) {
        let world = World::new(seed, plan);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        match result {
            Ok(counts) => {
                counts.into_iter().for_each(|(what, n)| *told.entry(what).or_default() += n)
            }
            Err(_) => {
                println!("{name}: ONCEKEY_SEED={seed} ONCEKEY_SEEDS=1 shows it");
                failed.push(seed);
            }
        }
    }
    println!("{name}, seeds {first}..{}: {told:?}", first + seeds);
    assert!(failed.is_empty(), "{name}: seeds {failed:?}");
}

const LONG: u64 = 1_000_000_000;

/// Two machines, and nothing goes wrong.
const QUIET: Plan = Plan {
    machines: 2,
    steps: 200,
    ttl: LONG,
    kills: 0,
    pauses: 0,
    jumps: 0,
    lost: 0,
    patience: LONG,
    reads_later: false,
};

#[test]
fn a_quiet_network_gives_the_answers_of_the_model() {
    simulate("quiet", QUIET, 60, &[]);
}

#[test]
fn lost_late_and_repeated_statements_are_settled() {
    let plan = Plan { steps: 160, lost: 6, ..QUIET };
    simulate("lossy", plan, 60, &[3487, 12212]);
}

#[test]
fn instances_that_die_and_stand_still_leave_orphans_and_no_second_execution() {
    let plan = Plan { machines: 3, steps: 250, kills: 8, pauses: 20, lost: 3, ..QUIET };
    simulate("dying", plan, 60, &[2215, 4750, 46001]);
}

#[test]
fn rows_that_are_read_behind_the_group_that_met_them_are_judged_by_their_own_time() {
    let plan = Plan {
        machines: 3,
        steps: 250,
        ttl: 4_000,
        kills: 4,
        pauses: 20,
        lost: 3,
        reads_later: true,
        ..QUIET
    };
    simulate("read later", plan, 60, &[]);
}

#[test]
fn a_clock_of_the_store_that_jumps_ends_leases_too_soon_or_late_and_runs_nothing_twice() {
    let plan = Plan { machines: 3, steps: 250, kills: 6, pauses: 10, jumps: 20, lost: 3, ..QUIET };
    simulate("jumping", plan, 60, &[3120, 12505, 16094, 26411, 29664, 60853, 618319, 661496]);
}

#[test]
fn callers_that_lose_patience_leave_no_claim_behind() {
    let plan = Plan { steps: 120, lost: 5, patience: 1_500, ..QUIET };
    simulate("impatient", plan, 60, &[2131, 12663, 1037699]);
}

#[test]
fn what_expires_is_new_again() {
    let plan = Plan { ttl: 900, ..QUIET };
    simulate("expiring", plan, 60, &[1033, 2743]);
}

#[test]
fn what_expires_while_answers_are_lost_and_instances_die_is_new_again() {
    let plan = Plan { machines: 3, ttl: 4_000, kills: 8, pauses: 20, lost: 5, ..QUIET };
    simulate("expiring and dying", plan, 60, &[52266, 58068, 64618, 70227]);
}
