//! The store as a whole: scans, buckets and bounds.

use super::*;

/// Pages by key, over rows of every state; the same walk at each engine.
#[test]
fn a_walk_through_the_store_meets_every_record_once() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let mut expected = std::collections::BTreeMap::new();
    for number in 0..130 {
        let name = format!("k{number}");
        claim(&one, &name).complete(format!("response {number}").as_bytes()).wait().unwrap();
        expected.insert(name, "completed");
    }
    claim(&one, "gone").abort().wait().unwrap();
    drop(claim(&one, "orphan"));
    drop(orphan(&other, "orphan"));
    let held = claim(&other, "held");
    expected.extend([("orphan".to_owned(), "orphaned"), ("held".to_owned(), "in flight")]);
    for (engine, limit) in [(&one, 7), (&other, 10_000)] {
        let (mut after, mut met) = (None, std::collections::BTreeMap::new());
        loop {
            let (page, next) = engine.scan(after, limit).unwrap();
            assert!(page.len() <= limit);
            for listed in page {
                let word = match listed.lookup() {
                    Lookup::Completed(recorded) => {
                        assert!(recorded.response().unwrap().starts_with(b"response"));
                        "completed"
                    }
                    Lookup::Orphaned(_) => "orphaned",
                    Lookup::InFlight(_) => "in flight",
                    other => panic!("{other:?}"),
                };
                let name = String::from_utf8(listed.key().key().to_vec()).unwrap();
                assert_eq!(met.insert(name, word), None);
            }
            assert!(next.is_none() || next > after);
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(met, expected);
        assert_eq!(engine.scan(Some([255; 16]), 10).unwrap().0.len(), 0);
    }
    drop(held);
}

#[test]
fn buckets_tell_what_expires_when() {
    let Some([one, other]) = fleet(|options| options) else { return };
    assert_eq!(one.buckets().unwrap(), []);
    for number in 0..5 {
        claim(&one, &format!("k{number}")).complete(&[b'r'; 100]).wait().unwrap();
    }
    let buckets = other.buckets().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket.records).sum::<u64>(), 5);
    assert_eq!(buckets.iter().map(|bucket| bucket.bytes).sum::<u64>(), 500);
    let Lookup::Completed(recorded) = one.get(&key("k0")).unwrap() else { panic!("completed") };
    assert!(buckets.last().unwrap().end > recorded.expires_at());
}

#[test]
fn bounds_of_the_store_are_heeded_by_every_process_and_are_not_those_of_a_process() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let open = |engine| cluster.options(&database, "").engine(engine).open().unwrap();
    let options = oncekey::fleet::Options::default;
    let one = open(options());
    let few = open(oncekey::fleet::Options { max_orphans: 1, ..options() });
    let small = open(oncekey::fleet::Options { max_store_bytes: Some(1 << 20), ..options() });
    claim(&one, "done").complete(b"done").wait().unwrap();
    // A megabyte that no compression makes smaller.
    let mut random = oorandom::Rand64::new(1);
    let noise = std::iter::repeat_with(|| random.rand_u64().to_le_bytes());
    let noise: Vec<u8> = noise.flatten().take(1 << 20).collect();
    claim(&one, "long").complete(&noise).wait().unwrap();
    drop(claim(&one, "left"));
    orphan(&few, "left");
    // Counters belong to a process. Each process learns the figures of the store at its next
    // upkeep.
    assert_eq!([&one, &few].map(|engine| engine.stats().claimed), [3, 0]);
    assert_eq!((small.stats().orphans, small.stats().full), (0, false));
    for engine in [&one, &few, &small] {
        engine.sweep().unwrap();
        let stats = engine.stats();
        assert_eq!(stats.orphans, 1);
        assert!(stats.store_bytes > 0);
    }
    assert!(small.stats().full && !one.stats().full);
    assert_eq!(begin_error(&few, "new").kind(), ErrorKind::Overloaded);
    assert_eq!(begin_error(&small, "new").kind(), ErrorKind::StoreFull);
    for engine in [&few, &small] {
        assert_eq!(replay(engine, "done"), b"done", "everything but a new claim is answered");
        assert!(matches!(begin(engine, "left"), Begin::Orphaned(_)));
    }
    let full = orphan(&small, "left").take_over().wait().unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StoreFull);
    orphan(&few, "left").take_over().wait().unwrap().complete(b"done").wait().unwrap();
    few.sweep().unwrap();
    claim(&few, "new").complete(b"done").wait().unwrap();
}
