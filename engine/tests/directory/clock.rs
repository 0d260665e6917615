//! The wall clock between two opens, and under a running engine.

use super::*;

#[test]
fn a_forward_gap_beyond_the_limit_must_be_acknowledged() {
    let sim = Sim::new();
    let engine = sim.options().ttl(Duration::from_secs(100 * 86_400)).open("/store").unwrap();
    complete(&engine, "k", b"x");
    engine.close().unwrap();
    sim.clock.jump_wall(30 * 86_400);
    sim.open().close().unwrap();
    sim.clock.jump_wall(30 * 86_400 + 60);
    let refused = sim.options().open("/store").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ClockJump);
    assert!(refused.to_string().contains("stands 30 days after"), "{refused}");
    let short = Duration::from_secs(3600);
    let refused = sim.options().max_clock_gap(short).open("/store").unwrap_err().to_string();
    assert!(refused.contains("max_clock_gap is 3600s"), "{refused}");
    let engine = sim.options().accept_clock_jump(true).open("/store").unwrap();
    replay(&engine, "k");
}

#[test]
fn a_wall_clock_that_went_back_does_not_bring_expired_records_back() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"x");
    sim.clock.advance(TTL);
    engine.sweep().unwrap();
    engine.close().unwrap();
    sim.clock.jump_wall(-86_400);
    let engine = sim.open();
    assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent));
    let _claim = claim(&engine, "k");
}

#[test]
fn steps_of_the_wall_clock_do_not_reach_a_running_engine() {
    let sim = Sim::new();
    let engine = sim.open();
    complete(&engine, "k", b"x");
    sim.clock.jump_wall(10 * 86_400);
    replay(&engine, "k");
    sim.clock.suspend(TTL);
    assert!(matches!(engine.get(&key("k")).unwrap(), Lookup::Absent), "suspend counts");
}
