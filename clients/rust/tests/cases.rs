//! The state machine plays `clients/cases.json`, without a socket: time is the sum of the waits.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use oncekey_client::{Answer, Next, Policy, Retry, Why};
use serde_json::Value;

#[test]
fn every_case_ends_as_expected_after_the_expected_waits() {
    let cases: Value = serde_json::from_str(include_str!("../../cases.json")).unwrap();
    for case in cases.as_array().unwrap() {
        for seed in 0..20 {
            play(case, seed);
        }
    }
}

fn play(case: &Value, seed: u64) {
    let (name, expect) = (&case["name"], &case["expect"]);
    let mut retry = Retry::with_seed(Policy::default(), seed);
    let (mut elapsed, mut waits, mut result) = (Duration::ZERO, vec![], "");
    let mut sent = 0;
    for answer in case["answers"].as_array().unwrap() {
        sent += 1;
        match retry.next(&parse(answer), elapsed) {
            Next::Again { after } => {
                elapsed += after;
                waits.push(after.as_secs_f64() * 1000.0);
                continue;
            }
            Next::Done => result = "done",
            Next::Stop(Why::Unknown) => result = "unknown",
            Next::Stop(Why::NotStored) => result = "notStored",
            Next::Stop(Why::Bug) => result = "bug",
            Next::Stop(Why::Unauthorized) => result = "unauthorized",
            Next::Stop(_) => result = "gaveUp",
        }
        break;
    }
    assert_eq!(
        (sent, result),
        (expect["sent"].as_u64().unwrap(), expect["result"].as_str().unwrap()),
        "{name}"
    );
    let ranges = expect["waitsMs"].as_array().unwrap();
    assert_eq!(waits.len(), ranges.len(), "{name}");
    for (wait, range) in waits.iter().zip(ranges) {
        let (low, high) = (range[0].as_f64().unwrap(), range[1].as_f64().unwrap());
        assert!((low..=high).contains(wait), "{name}, seed {seed}: {waits:?}");
    }
}

fn parse(answer: &Value) -> Answer {
    let Some(status) = answer["status"].as_u64() else { return Answer::none() };
    let mut headers = HeaderMap::new();
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
        headers.insert(name.parse::<HeaderName>().unwrap(), value);
    }
    let mut body = answer["body"].as_str().unwrap_or_default().to_owned();
    if answer["problem"].is_object() {
        body = answer["problem"].to_string();
        headers.insert("content-type", HeaderValue::from_static("application/problem+json"));
    }
    Answer::parse(status as u16, &headers, body.as_bytes())
}

#[test]
fn an_operation_is_sent_while_the_server_surely_remembers_its_key() {
    let hours = |n: u64| Duration::from_secs(n * 3600);
    assert!(Policy::default().may_send(hours(23)));
    assert!(!Policy::default().may_send(hours(23) + Duration::from_secs(1)));
}

#[test]
fn waits_stay_below_their_ceiling_however_many_there_are() {
    let mut policy = Policy::default();
    policy.deadline = Duration::MAX;
    policy.tries = u32::MAX;
    let mut retry = Retry::with_seed(policy, 1);
    for _ in 0..100 {
        match retry.next(&Answer::none(), Duration::ZERO) {
            Next::Again { after } => assert!(after <= Duration::from_secs(5)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_wait_without_bound_is_as_long_as_the_server_asks() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from(u64::MAX));
    let asked = Answer::parse(503, &headers, b"");
    let mut policy = Policy::default();
    (policy.deadline, policy.max_wait) = (Duration::MAX, Duration::MAX);
    (policy.backoff, policy.max_backoff) = (Duration::MAX, Duration::MAX);
    let mut retry = Retry::with_seed(policy, 1);
    for answer in [asked, Answer::none()] {
        let Next::Again { .. } = retry.next(&answer, Duration::MAX) else { panic!("{answer:?}") };
    }
}
