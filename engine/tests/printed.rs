//! What is printed with `{:?}` reaches logs: it holds lengths, never what customers sent or stored.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::fmt::Debug;

use common::{Sim, checkpoint};
use oncekey::{Begin, Engine, Fingerprint, FingerprintedHeaders, HttpRequest, Key, Lookup};
use oncekey_testing::{Fault, OpKind};

/// A part of every value that must not be printed.
const MARK: &str = "PRIVATE";

fn hidden(what: &str) -> Vec<u8> {
    format!("{MARK}-{what}").into_bytes()
}

fn secret_key() -> Key {
    Key::new(hidden("scope"), hidden("key")).unwrap()
}

fn request() -> Fingerprint {
    Fingerprint::builder().part("body", hidden("body")).finish()
}

/// As text, as a list of bytes in decimal or hexadecimal.
#[track_caller]
fn prints_nothing(value: &dyn Debug) {
    let joined =
        |form: fn(&u8) -> String, by| MARK.as_bytes().iter().map(form).collect::<Vec<_>>().join(by);
    let forms = [
        MARK.to_owned(),
        joined(|byte| byte.to_string(), ", "),
        joined(|byte| format!("{byte:02x}"), ""),
        joined(|byte| format!("{byte:02x}"), ", "),
    ];
    for printed in [format!("{value:?}"), format!("{value:#?}").replace(",\n", ", ")] {
        let squeezed = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        for form in &forms {
            assert!(!squeezed.contains(form.as_str()), "{printed}");
        }
    }
}

fn begin(engine: &Engine) -> Begin {
    engine.begin(&secret_key(), request()).wait().unwrap()
}

#[test]
fn requests_and_keys_are_printed_by_their_lengths() {
    prints_nothing(&secret_key());
    assert_eq!(format!("{:?}", secret_key()), "Key(scope 13 bytes, key 11 bytes)");
    prints_nothing(&request());
    prints_nothing(&Fingerprint::builder().part("body", hidden("body")));
    let (target, body) = (hidden("target?token"), hidden("body"));
    let request = HttpRequest {
        method: b"PRIVATE",
        target: &target,
        authority: Some(b"PRIVATE.example"),
        body: &body,
    };
    prints_nothing(&request);
    assert!(format!("{request:?}").starts_with("HttpRequest { method: "));
    let value = hidden("header");
    let of_http = Fingerprint::of_http(request, &FingerprintedHeaders::default(), |_| {
        [&value[..]].into_iter()
    });
    prints_nothing(&of_http);
    // A digest without a key reveals a short value to a reader who tries all of them.
    let digest = format!("{:?}", Fingerprint::builder().part("pin", "1234").finish());
    assert_eq!(digest, r#"Fingerprint(["pin"])"#);
}

#[test]
fn answers_handles_and_failures_are_printed_without_their_bytes() {
    let sim = Sim::new();
    let engine = sim.open();
    let pending = engine.begin(&secret_key(), request());
    prints_nothing(&pending);
    let Begin::Claimed(claim) = pending.wait().unwrap() else { panic!("claimed") };
    claim.checkpoint(&hidden("checkpoint")).wait().unwrap();
    prints_nothing(&claim);
    prints_nothing(&begin(&engine));
    prints_nothing(&engine.get(&secret_key()).unwrap());
    drop(claim);
    let Begin::Orphaned(orphan) = begin(&engine) else { panic!("orphaned") };
    assert_eq!(checkpoint(orphan.last_checkpoint()), hidden("checkpoint"));
    prints_nothing(&orphan);
    prints_nothing(&engine.orphans().unwrap());
    prints_nothing(&engine.get(&secret_key()).unwrap());
    let claim = orphan.take_over().wait().unwrap();
    assert_eq!(checkpoint(claim.last_checkpoint()), hidden("checkpoint"));
    prints_nothing(&claim);

    sim.disk.inject(Fault::at_kind(OpKind::Sync, 0).on_path("journal-0000"));
    let failed = claim.complete(&hidden("response")).wait().unwrap_err();
    prints_nothing(&failed);
    prints_nothing(failed.error());
    let claim = failed.into_handle().unwrap();
    sim.disk.clear_faults();
    engine.reopen().unwrap();
    prints_nothing(&claim.complete(&hidden("response")).wait().unwrap());
    let begun = begin(&engine);
    assert!(matches!(&begun, Begin::Replay(replay) if replay.response().is_some()));
    prints_nothing(&begun);
    let found = engine.get(&secret_key()).unwrap();
    prints_nothing(&found);
    let Lookup::Completed(recorded) = found else { panic!("completed") };
    prints_nothing(&recorded);
    prints_nothing(&recorded.into_response());
    let other = Fingerprint::builder().part("body", hidden("other body")).finish();
    prints_nothing(&engine.begin(&secret_key(), other).wait().unwrap());
    prints_nothing(&engine);
    prints_nothing(&engine.stats());
}

#[test]
fn damage_is_printed_without_the_record_and_displayed_with_its_key() {
    let sim = Sim::new();
    let engine = sim.open();
    let Begin::Claimed(claim) = begin(&engine) else { panic!("claimed") };
    claim.complete(&hidden("response")).wait().unwrap();
    engine.close().unwrap();
    let files = sim.disk.files().into_iter().map(|(path, _)| path);
    let records = files.filter(|path| path.to_string_lossy().contains("records-"));
    for path in records {
        let mut bytes = sim.disk.read_file(&path);
        let at = bytes.windows(8).position(|bytes| bytes == b"response").unwrap();
        bytes[at] ^= 1;
        sim.disk.put_file(&path, &bytes);
    }
    let verified = sim.options().verify("/store").unwrap();
    assert!(!verified.is_sound());
    prints_nothing(&verified);
    for damage in verified.damage() {
        prints_nothing(damage);
        let line = damage.to_string();
        assert!(!line.contains(char::is_control) && !line.contains("response"), "{line}");
    }
}
