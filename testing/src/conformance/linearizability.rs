//! Threads make calls on few keys while the store fails, engines are reopened and processes end.
//! The answers must have an order that the state machine allows.
//!
//! The seed decides the calls of every thread and the failures, but not how the threads are
//! interleaved. `ONCEKEY_SEEDS=0..5000` runs a campaign.

use std::thread;
use std::time::Duration;

use oncekey::{Claim, Engine};

use super::{Bounds, Recovery, Rig, cases};
use crate::caller::{Caller, Token};
use crate::calls::TTL;
use crate::{Answer, Call, History, Random, Seed, seeds};

const KEYS: u8 = 3;
const THREADS: usize = 4;
const PHASES: u64 = 5;
const STEPS: u64 = 10;

type Claims = Vec<(u8, Claim)>;

cases!($ linearizability: what_threads_are_told_has_an_order_that_the_model_allows);

fn what_threads_are_told_has_an_order_that_the_model_allows<R: Rig>(first: R) {
    let (mut calls, mut rig) = (0, Some(first));
    for seed in seeds(0..2 * u64::from(R::PACE)) {
        let _named = Seed(seed);
        let Some(rig) = rig.take().or_else(R::new) else { return };
        let history = one_life(rig, seed);
        calls += history.calls();
        if let Err(violation) = history.check(TTL.as_millis() as u64) {
            panic!("{violation:?}");
        }
    }
    eprintln!("{calls} calls");
}

fn one_life<R: Rig>(mut rig: R, seed: u64) -> History<Token> {
    let mut random = Random::new(seed);
    let (history, bounds) = (History::new(), Bounds::default());
    let mut engines = rig.open_all(&bounds);
    let mut claims: Vec<Claims> = (0..THREADS).map(|_| Vec::new()).collect();
    for _phase in 0..PHASES {
        rig.disturb(&mut random);
        claims = hammer(&engines, &history, claims, &mut random);
        if rig.recover(&mut engines, &bounds, &mut random) == Recovery::Anew {
            claims.iter_mut().for_each(Vec::clear);
        }
        let millis = 20_000 * random.below(3);
        if R::LAPSES {
            for key in 0..KEYS {
                let id = history.call(key, Call::Lapse);
                history.answer(id, Answer::Done);
            }
            // No time passes: this suite does not cover a record that expires while its owner lives
            // on.
            continue;
        }
        engines.iter().for_each(|engine| {
            rig.advance(engine, Duration::from_millis(millis));
        });
        history.restart(millis);
    }
    history
}

/// Lets each thread take some random steps at one of the engines.
fn hammer(
    engines: &[Engine],
    history: &History<Token>,
    claims: Vec<Claims>,
    random: &mut Random,
) -> Vec<Claims> {
    let callers: Vec<_> = (claims.into_iter().enumerate())
        .map(|(nth, claims)| {
            let random = Random::new(random.below(u64::MAX));
            let engine = &engines[nth % engines.len()];
            Caller { engine, sink: history, random, keys: KEYS, claims }
        })
        .collect();
    thread::scope(|scope| {
        let threads: Vec<_> =
            callers.into_iter().map(|caller| scope.spawn(|| caller.run(STEPS))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
