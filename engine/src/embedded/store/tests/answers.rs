//! Folded records come back, whatever was merged, swept, copied or reopened since.

use super::*;

#[test]
fn folded_records_come_back_over_folds_buckets_and_reopening() {
    let mut fixture = Fixture::new();
    let large = vec![9; 100_000];
    fixture.fold_completed(0..500, 5_000, b"first");
    fixture.fold_completed(500..900, 9_000, b"second");
    fixture.fold_completed(900..1000, 5_500, &large);
    let mixed = (1000..1300).map(|number| {
        let key = key(number);
        let record = completed(&key, number, 1000 + number * 17, &[number as u8; 700]);
        (key, Some(record))
    });
    assert_eq!(fixture.store.view().runs(), 3);
    fixture.fold(mixed.collect());
    assert_eq!(fixture.store.view().runs(), 3 + 7);

    let state = fixture.store.state();
    assert_eq!((state.folded_through, state.epoch), (1300, 2));
    assert_eq!(state.replay_from, Position { segment: 3, offset: 4096 });
    for reopened in [false, true] {
        if reopened {
            fixture = fixture.reopen();
            // Opening begins another range.
            let next_run = state.end_of_runs();
            assert_eq!(fixture.store.state(), StoreState { next_run, ..state.clone() });
        }
        assert_eq!(fixture.store.view().entries(), 1300);
        assert!((0..500).all(|number| fixture.response(number).unwrap() == b"first"));
        assert!((500..900).all(|number| fixture.response(number).unwrap() == b"second"));
        assert!((900..1000).all(|number| fixture.response(number).unwrap() == large));
        assert!((1000..1300).all(|number| {
            fixture.get(number).unwrap().expires_at() == Some(Time(1000 + number * 17))
                && fixture.response(number).unwrap() == [number as u8; 700]
        }));
        assert!((1300..3000).all(|number| fixture.get(number).is_none()));
    }
    let mut loaded = 0;
    while fixture.store.load_next_filter().unwrap() {
        loaded += 1;
    }
    assert_eq!(loaded, fixture.store.view().runs());
    assert!((0..1300).all(|number| fixture.get(number).is_some()));
    assert!((1300..3000).all(|number| fixture.get(number).is_none()));
}

#[test]
fn the_newest_life_of_a_key_wins_whatever_its_bucket() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..10, 20_000, b"long, first");
    fixture.fold_completed(0..10, 5_000, b"short, second");
    assert_eq!(fixture.response(3).unwrap(), b"short, second");
    fixture.fold_completed(0..10, 5_000, b"third");
    assert_eq!(fixture.response(3).unwrap(), b"third");
    let mut fixture = fixture.reopen();
    assert_eq!(fixture.response(3).unwrap(), b"third");
    // A record that had expired when it was folded is not stored, but its open record is removed.
    fixture.fold(vec![(key(3), Some(in_flight(&key(3), 50)))]);
    fixture.time = 6_000;
    assert_eq!(fixture.store.view().open_records().unwrap().len(), 1);
    fixture.fold(vec![(key(3), Some(completed(&key(3), 50, 6_000, b"late")))]);
    assert_eq!(fixture.store.view().entries(), 30);
    assert_eq!(fixture.store.view().open_records().unwrap().len(), 0);
}

#[test]
fn open_records_live_until_they_end() {
    let mut fixture = Fixture::new();
    let keys: Vec<_> = (0..5).map(key).collect();
    let claims = keys.iter().map(|key| (key.clone(), Some(in_flight(key, 1))));
    fixture.fold(claims.collect());
    assert_eq!(fixture.store.view().open_records().unwrap().len(), 5);
    fixture.fold(vec![
        (keys[0].clone(), Some(completed(&keys[0], 1, 5_000, b"done"))),
        (keys[1].clone(), None),
        (keys[2].clone(), Some(orphan(&keys[2], 1, 100))),
        (key(77), None),
    ]);
    for reopened in [false, true] {
        if reopened {
            fixture = fixture.reopen();
        }
        assert_eq!(fixture.response(0).unwrap(), b"done");
        assert_eq!(fixture.get(1), None);
        assert_eq!(fixture.get(2), Some(orphan(&keys[2], 1, 100)));
        assert_eq!(fixture.get(3), Some(in_flight(&keys[3], 1)));
        let view = fixture.store.view();
        assert_eq!((view.orphans(), view.has_orphan(hash(&keys[2]))), (1, true));
        assert!(!view.has_orphan(hash(&keys[3])));
        let mut open = view.open_records().unwrap();
        open.sort_by_key(|(_, versioned)| versioned.sequence);
        let hashes: Vec<_> = open.iter().map(|(hash, _)| *hash).collect();
        assert_eq!(hashes, [hash(&keys[3]), hash(&keys[4]), hash(&keys[2])]);
    }
    // Only the orphan expires.
    assert!(!fixture.store.view().has_expired_orphans(Time(599)));
    assert!(fixture.store.view().has_expired_orphans(Time(600)));
    fixture.time = 1_000_000;
    // A fold removes it, not a sweep: the journal may still hold changes of it.
    fixture.sweep();
    assert_eq!(fixture.store.view().open_records().unwrap().len(), 3);
    assert!(fixture.store.view().has_expired_orphans(Time(1_000_000)));
    fixture.fold(vec![]);
    assert_eq!(fixture.get(2), None);
    assert_eq!(fixture.get(3), Some(in_flight(&keys[3], 1)));
    assert_eq!(fixture.store.view().open_records().unwrap().len(), 2);
    assert_eq!(fixture.reopen().store.view().open_records().unwrap().len(), 2);
}

fn all_answers(fixture: &Fixture, keys: u64) -> Vec<Option<Vec<u8>>> {
    (0..keys).map(|number| fixture.response(number)).collect()
}

#[test]
fn merging_keeps_every_answer_and_leaves_few_runs() {
    let mut fixture = Fixture::new();
    for round in 0..20u64 {
        // Half of the keys are written again, in the same or another bucket.
        let expires_at = 5_000 + 5_000 * (round % 2);
        fixture.fold_completed(round * 50..round * 50 + 100, expires_at, &round.to_le_bytes());
    }
    let before = all_answers(&fixture, 1100);
    assert_eq!(fixture.store.view().runs(), 20);
    let mut steps = 0;
    while fixture.store.merge_step(70).unwrap() {
        steps += 1;
        if steps % 5 == 0 {
            assert_eq!(all_answers(&fixture, 1100), before);
        }
    }
    assert!(steps > 10, "{steps} steps");
    assert_eq!(fixture.store.view().runs(), 2);
    assert_eq!(all_answers(&fixture, 1100), before);
    fixture.give_back();
    assert_eq!(fixture.dir.run_files().len(), 2, "what was merged is gone");
    assert_eq!(fixture.sweep(), 0);
    fixture = fixture.reopen();
    assert_eq!(all_answers(&fixture, 1100), before);
    while fixture.store.load_next_filter().unwrap() {}
    assert_eq!(all_answers(&fixture, 1100), before);
}

/// Records of one key that expire in one bucket: the runs list all of them, a merged run the last.
#[test]
fn of_the_lives_of_a_key_a_merge_keeps_the_newest() {
    let mut fixture = Fixture::new();
    for round in 0..4u64 {
        fixture.fold_completed(0..100, 5_000, &round.to_le_bytes());
        fixture.fold_completed(100 + round * 100..200 + round * 100, 5_000, b"another");
    }
    while fixture.store.merge_step(70).unwrap() {}
    assert_eq!((fixture.store.view().runs(), fixture.store.view().entries()), (1, 500));
    assert!((0..100).all(|number| fixture.response(number).unwrap() == 3_u64.to_le_bytes()));
    assert!((100..500).all(|number| fixture.response(number).unwrap() == b"another"));
}

#[test]
fn levels_are_merged_four_by_four_and_quiet_buckets_to_one() {
    let mut fixture = Fixture::new();
    for round in 0..3 {
        fixture.fold_completed(round * 10..round * 10 + 10, 50_000, b"x");
        assert!(!fixture.store.merge_step(1000).unwrap());
    }
    fixture.fold_completed(30..40, 50_000, b"x");
    assert!(fixture.store.merge_step(1000).unwrap());
    fixture.fold_completed(40..50, 50_000, b"x");
    assert!(!fixture.store.merge_step(1000).unwrap());
    assert_eq!(fixture.store.view().runs(), 2);
    for _ in 0..20 {
        fixture.fold(Vec::new());
    }
    assert!(fixture.store.merge_step(1000).unwrap());
    assert_eq!(fixture.store.view().runs(), 1);
    // A single run needs no merge.
    assert!(!fixture.store.merge_step(1000).unwrap());
    assert!((0..50).all(|number| fixture.response(number).unwrap() == b"x"));
}

#[test]
fn a_merge_cut_short_is_dropped_and_done_again() {
    let mut fixture = Fixture::new();
    for round in 0..8 {
        fixture.fold_completed(round * 100..round * 100 + 100, 5_000, &[round as u8]);
    }
    let before = all_answers(&fixture, 800);
    assert!(fixture.store.merge_step(50).unwrap());
    assert!(fixture.store.merge_step(50).unwrap());
    // As after a crash: the file of a store that is still open.
    let crashed = Dir::new();
    std::fs::copy(fixture.dir.file(), crashed.file()).unwrap();
    for path in fixture.dir.files(|_| true) {
        std::fs::copy(&path, crashed.0.join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(crashed.run_files().len(), 9);
    // A fold and a sweep leave it alone.
    fixture.fold_completed(0..1, 9_000, &[0]);
    fixture.sweep();
    assert!(fixture.store.merge_step(50).unwrap());
    assert_eq!(fixture.dir.run_files().len(), 10);
    let mut fixture = Fixture { store: open(&crashed).unwrap(), dir: crashed, ..fixture };
    assert_eq!(all_answers(&fixture, 800), before);
    assert_eq!(fixture.dir.run_files().len(), 8);
    while fixture.store.merge_step(50).unwrap() {}
    fixture.give_back();
    assert_eq!((fixture.store.view().runs(), fixture.dir.run_files().len()), (1, 1));
    assert_eq!(all_answers(&fixture, 800), before);

    // When a bucket expires, its merge ends, too.
    fixture.fold_completed(800..900, 9_000, b"x");
    for _ in 0..4 {
        fixture.fold_completed(900..950, 9_000, b"x");
    }
    assert!(fixture.store.merge_step(20).unwrap());
    assert!(fixture.store.merge.is_some());
    fixture.time = 9_000;
    fixture.sweep();
    assert!(fixture.store.merge.is_none());
    assert!(fixture.store.catalog.runs.is_empty());
    assert_eq!(fixture.dir.run_files(), [] as [PathBuf; 0]);
    assert!(!fixture.store.merge_step(20).unwrap());
}

#[test]
fn sweeping_removes_everything_and_space_is_used_again() {
    let mut fixture = Fixture::new();
    let mut sizes = Vec::new();
    for cycle in 0..12u64 {
        for part in 0..5 {
            let first = cycle * 1000 + part * 200;
            fixture.fold_completed(first..first + 200, fixture.time + 5_000, &[1; 1500]);
        }
        while fixture.store.merge_step(500).unwrap() {}
        sizes.push(fixture.store.file_bytes().unwrap());
        fixture.time += 10_000;
        assert_eq!(fixture.sweep(), 1000);
        assert_eq!(fixture.dir.record_files(), [] as [PathBuf; 0]);
        let view = fixture.store.view();
        assert_eq!((view.runs(), view.entries()), (0, 0));
        assert!(fixture.get(cycle * 1000).is_none());
        assert_eq!(fixture.store.state().time, Time(fixture.time));
        assert_eq!(fixture.dir.run_files(), [] as [PathBuf; 0]);
        assert_eq!(::redb::ReadableTableMetadata::len(&view.tables.runs).unwrap(), 0);
    }
    assert!(sizes[11] <= sizes[1], "{sizes:?}");
}

/// A large file takes long to free, while folds wait.
#[test]
fn the_space_of_a_file_comes_back_in_steps_once_nobody_reads_it() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..10, 5_000, b"x");
    let file =
        std::fs::OpenOptions::new().write(true).open(&fixture.dir.record_files()[0]).unwrap();
    file.set_len(200 << 20).unwrap();
    let view = fixture.store.view();
    let found = |view: &View| view.get(hash(&key(5)), &key(5)).unwrap().is_some();
    fixture.time = 9_000;
    let mebibytes = |file: &std::fs::File| file.metadata().unwrap().len() >> 20;
    fixture.sweep();
    assert_eq!(mebibytes(&file), 200);
    assert_eq!(fixture.dir.record_files().len(), 1);
    assert!(found(&view), "who has the view from before opens the file even now");
    drop(view);
    for left in [196, 192, 188] {
        assert_eq!(fixture.store.give_back_removed().unwrap(), Some(true));
        assert_eq!(mebibytes(&file), left);
    }
    fixture.sweep();
    assert!(fixture.store.removed.is_empty());
    assert_eq!(fixture.dir.record_files(), [] as [PathBuf; 0]);
}

#[test]
fn a_copy_has_every_answer_and_its_own_identity() {
    let mut fixture = Fixture::new();
    for round in 0..6 {
        fixture.fold_completed(round * 100..round * 100 + 100, 5_000 + round * 500, &[3; 2000]);
    }
    // More bytes than are copied at once.
    fixture.fold_completed(2_000..2_700, 9_000, &[4; 2000]);
    fixture.fold(vec![(key(5_000), Some(orphan(&key(5_000), 1, 5)))]);
    assert!(fixture.store.merge_step(50).is_ok());
    let target = Dir::new();
    copy(&fixture.store, &target, |state| state.identity = 100).unwrap();
    let again = copy(&fixture.store, &target, |_| ());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidInput);
    let sequence = fixture.sequence;
    let mut copy = Fixture { store: open(&target).unwrap(), dir: target, sequence, time: 10 };
    assert_eq!(copy.store.state().identity, 100);
    assert_eq!(copy.store.state().secret, SECRET);
    assert_eq!(all_answers(&copy, 600), all_answers(&fixture, 600));
    assert!((2_000..2_700).all(|number| copy.response(number).unwrap() == [4; 2000]));
    assert_eq!(copy.get(5_000), fixture.get(5_000));
    copy.fold_completed(1000..1100, 5_000, b"y");
    assert_eq!(copy.response(1050).unwrap(), b"y");
    assert_eq!(fixture.get(1050), None);
}

/// Two folds share no block, and the next fold overwrites the bytes of a fold that did not commit.
#[test]
fn folds_append_and_what_none_lists_goes() {
    let mut fixture = Fixture::new();
    let lengths = |fixture: &Fixture| {
        let files = fixture.dir.record_files();
        files.iter().map(|path| path.metadata().unwrap().len()).collect::<Vec<_>>()
    };
    fixture.fold_completed(0..10, 5_000, b"x");
    assert_eq!(lengths(&fixture), [4096]);
    fixture.fold_completed(10..20, 5_000, &[3; 1000]);
    fixture.fold_completed(20..30, 9_000, b"z");
    assert_eq!(lengths(&fixture), [4 * 4096, 4096]);
    // A fold that was cut off, and one whose bucket has no run yet.
    let Fixture { dir, store, sequence, time } = fixture;
    drop(store);
    let first = &dir.record_files()[0];
    let mut bytes = std::fs::read(first).unwrap();
    bytes.extend([7; 9000]);
    std::fs::write(first, bytes).unwrap();
    std::fs::write(dir.0.join("records-0000000000001b58"), [7; 9000]).unwrap();
    let store = open(&dir).unwrap();
    let mut fixture = Fixture { dir, store, sequence, time };
    assert_eq!(lengths(&fixture), [4 * 4096 + 9000, 4096]);
    fixture.fold_completed(30..40, 5_000, b"y");
    assert_eq!(lengths(&fixture), [5 * 4096, 4096]);
    let stored: u64 =
        fixture.dir.files(|_| true).iter().map(|path| path.metadata().unwrap().len()).sum();
    let redb = fixture.dir.file().metadata().unwrap().len();
    assert_eq!(fixture.store.file_bytes().unwrap(), redb + stored);
    let responses = [&b"x"[..], &[3; 1000], b"z", b"y"];
    for (number, response) in [5, 15, 25, 35].into_iter().zip(responses) {
        assert_eq!(fixture.response(number).unwrap(), response);
    }
    fixture.time = 5_000;
    fixture.sweep();
    assert_eq!(lengths(&fixture), [4096]);
    // Expired and swept, by a process that ended before it removed the file.
    let leftover = fixture.dir.0.join("records-0000000000001388");
    std::fs::write(&leftover, b"expired").unwrap();
    let fixture = fixture.reopen();
    assert!(!leftover.exists());
    assert_eq!(fixture.response(25).unwrap(), b"z");
}

/// A fold writes to few files, however far off its records expire.
#[test]
fn far_off_records_share_wide_buckets() {
    let mut fixture = Fixture::new();
    let hour = 3_600_000;
    let records = (0..4_000u64).map(|number| {
        let key = key(number);
        let record = completed(&key, number, 11 + number * hour, b"x");
        (key, Some(record))
    });
    fixture.fold(records.collect());
    assert_eq!(fixture.store.view().entries(), 4_000);
    let runs = fixture.store.view().runs();
    assert!((20..60).contains(&runs), "{runs} runs");
    assert!((0..4_000).all(|number| fixture.get(number).is_some()));
    fixture.time = 2_000 * hour;
    let swept = fixture.sweep();
    // All expired records, except those of the last sixth of the time.
    assert!((1_660..=2_000).contains(&swept), "{swept}");
    assert!((2_000..4_000).all(|number| fixture.get(number).is_some()));
}

/// No view keeps the file of a swept bucket open, so its space is given back.
#[test]
fn what_is_swept_is_let_go_of_at_once() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..10, 5_000, b"x");
    fixture.fold_completed(10..20, 9_000, b"y");
    fixture.store.sweep(Time(5_000)).unwrap();
    let open: Vec<_> = fixture.store.view().files.names().collect();
    assert!(matches!(open[..], [FileName::Records(9_000), FileName::Run(_)]), "{open:?}");
    assert_eq!(fixture.response(15).unwrap(), b"y");
}
