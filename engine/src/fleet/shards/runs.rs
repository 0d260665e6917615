//! Runs of the model, as it is and with a rule left out.

use super::*;

/// Returns the numbers of settled changes, granted claims and orphans taken over.
fn run(seeds: std::ops::Range<u64>, broken: Option<Broken>) -> [u64; 3] {
    let mut sums = [0; 3];
    for seed in seeds {
        let mut world = World::new(seed, broken);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..1_500).for_each(|_| world.step());
        }));
        if let Err(panic) = result {
            println!("ONCEKEY_SEED={seed} ONCEKEY_SEEDS=1 shows it");
            std::panic::resume_unwind(panic);
        }
        let [settled, granted, over] = &mut sums;
        *settled += world.settled as u64;
        *granted += world.granted;
        *over += world.prolonged;
    }
    sums
}

#[test]
fn no_key_is_granted_twice_while_the_list_of_homes_changes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, seeds) =
        (number("ONCEKEY_SEED").unwrap_or(0), number("ONCEKEY_SEEDS").unwrap_or(60));
    let [settled, granted, over] = run(first..first + seeds, None);
    println!(
        "shards, seeds {first}..{}: {settled} changes, {granted} claims, {over} taken over",
        first + seeds
    );
    assert!(seeds < 60 || settled > seeds && granted > 10 * seeds && over > seeds);
}

#[test]
fn each_rule_of_a_change_is_needed() {
    for broken in [
        Broken::NoFences,
        Broken::LivingInstances,
        Broken::OneTtl,
        Broken::NoFloor,
        Broken::NoRaise,
    ] {
        let noticed = std::panic::catch_unwind(|| run(0..400, Some(broken))).is_err();
        assert!(noticed, "{broken:?} is noticed by no seed");
    }
}
