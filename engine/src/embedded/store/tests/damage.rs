//! Damage is an error, never an absence, and a refused file is left as it was.

use ::redb::ReadableTable;

use super::*;
use crate::backend::reports::Verification;
use crate::base::bytes::SharedBytes;
use crate::embedded::store::schema::RunMeta;
use crate::semantics::record_codec;

pub(super) fn altered(mut bytes: Vec<u8>, index: usize) -> Vec<u8> {
    bytes[index] ^= 0x10;
    bytes
}

/// Flips a bit of byte `index` of every value of a table.
pub(super) fn alter<K: ::redb::Key + 'static>(
    transaction: &WriteTransaction,
    definition: ::redb::TableDefinition<'_, K, schema::Bytes>,
    index: impl Fn(&[u8]) -> usize,
) {
    let mut table = transaction.open_table(definition).unwrap();
    let mut keys = Vec::new();
    table
        .retain(|key, _| {
            keys.push(K::as_bytes(&key).as_ref().to_vec());
            true
        })
        .unwrap();
    for key in keys {
        let key = K::from_bytes(&key);
        let value = table.get(&key).unwrap().unwrap().value().to_vec();
        let index = index(&value);
        table.insert(&key, altered(value, index).as_slice()).unwrap();
    }
}

pub(super) fn remove_all<K: ::redb::Key + 'static>(
    transaction: &WriteTransaction,
    definition: ::redb::TableDefinition<'_, K, schema::Bytes>,
) {
    transaction.open_table(definition).unwrap().retain(|_, _| false).unwrap();
}

/// Opening must fail with `kind` and leave the file as it is.
pub(super) fn refused(dir: &Dir, kind: ErrorKind) {
    let before = std::fs::read(dir.file()).unwrap();
    let error = open(dir).err().unwrap();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(before == std::fs::read(dir.file()).unwrap(), "the file was touched");
}

#[test]
fn damaged_and_missing_rows_are_never_taken_for_absence() {
    let filled = || {
        let mut fixture = Fixture::new();
        fixture.fold_completed(0..300, 5_000, b"response");
        fixture.fold(vec![(key(1000), Some(in_flight(&key(1000), 1)))]);
        fixture
    };
    let corrupted = |result: Result<Option<Record>>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupted);
    };
    let last = |bytes: &[u8]| bytes.len() - 1;

    // 300 entries make three blocks of a head and entries of 24 bytes; then the starts, then the filter.
    const BLOCKS: usize = 3 * 28 + 300 * 24;
    let altered_blocks = |bytes: &mut Vec<u8>| (0..BLOCKS).for_each(|at| bytes[at] ^= 0x10);
    let fixture = filled().tamper_runs(altered_blocks).unwrap();
    corrupted(fixture.try_get(5));
    corrupted(fixture.try_get(5_000));
    for kept in [0, 20, 2000] {
        let fixture = filled().tamper_runs(|bytes| bytes.truncate(kept)).unwrap();
        corrupted(fixture.try_get(5));
        corrupted(fixture.try_get(5_000));
    }
    // A block in the place of another, which has as many entries or not.
    let fixture = filled().tamper_runs(|bytes| bytes.rotate_left(28 + 24)).unwrap();
    corrupted(fixture.try_get(5));
    let Fixture { dir, store, .. } = filled();
    store.close().unwrap();
    std::fs::remove_file(&dir.run_files()[0]).unwrap();
    refused(&dir, ErrorKind::Corrupted);
    // The run of another bucket, which is as long.
    let mut fixture = filled();
    fixture.fold_completed(300..600, 9_000, b"response");
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    std::fs::copy(&dir.run_files()[0], &dir.run_files()[1]).unwrap();
    let store = open(&dir).unwrap();
    let found = store.view().get(hash(&key(400)), &key(400));
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupted);
    let fixture = filled().tamper_records(|bytes| bytes[100] ^= 1).unwrap();
    assert!((0..300).any(|number| fixture.try_get(number).is_err()));
    assert_eq!(fixture.get(5_000), None);
    let fixture = filled().tamper_records(|bytes| bytes.truncate(100)).unwrap();
    corrupted(fixture.try_get(5));
    // Each record in the place of another of the same length.
    let mut fixture = Fixture::new();
    fixture.fold_completed(10..99, 5_000, b"response");
    let fixture = fixture
        .tamper_records(|bytes| {
            let place = |key: &[u8]| bytes.windows(6).position(|at| at == key).unwrap();
            let len = place(b"key-11") - place(b"key-10");
            bytes.copy_within(0..len, len);
        })
        .unwrap();
    corrupted(fixture.try_get(11));
    let Fixture { dir, store, .. } = filled();
    store.close().unwrap();
    std::fs::remove_file(&dir.record_files()[0]).unwrap();
    refused(&dir, ErrorKind::Corrupted);

    // A damaged filter costs only reads. Damaged starts do, too, where the place of a block is
    // right.
    let filter = BLOCKS + 16 + 4 * 4 + 60;
    for damaged in [filter, BLOCKS + 3] {
        let mut fixture = filled().tamper_runs(|bytes| bytes[damaged] ^= 1).unwrap();
        while fixture.store.load_next_filter().unwrap() {}
        let run = fixture.store.catalog.runs.values().next().unwrap();
        assert_eq!(matches!(run.filter, FilterSlot::Damaged), damaged == filter);
        assert_eq!(run.starts.is_none(), damaged != filter);
        assert!((0..300).all(|number| fixture.response(number).unwrap() == b"response"));
        assert_eq!(fixture.get(5_000), None);
    }
    // Wrong starts lead to no block.
    for damage in [&[0xff; 8][..], &[9, 0, 0, 0, 3, 0, 0, 0]] {
        let starts = BLOCKS + 16..BLOCKS + 24;
        let fixture = filled().tamper_runs(|bytes| bytes[starts.clone()].copy_from_slice(damage));
        let fixture = fixture.unwrap();
        assert!((0..300).any(|number| fixture.try_get(number).is_err()));
        assert!((300..600).all(|number| !matches!(fixture.try_get(number), Ok(Some(_)))));
    }

    let damage: [fn(&WriteTransaction); 5] = [
        |rows| alter(rows, RUNS, |_| 3),
        |rows| remove_all(rows, RUNS),
        |rows| alter(rows, OPEN, |_| 30),
        |rows| remove_all(rows, OPEN),
        |rows| alter(rows, STATE, |_| 30),
    ];
    for damage in damage {
        assert_eq!(filled().tamper(damage).err().unwrap().kind(), ErrorKind::Corrupted);
    }
    for index in [0, 3, 20] {
        let damaged = filled().tamper(|rows| alter(rows, OPEN, |_| index));
        assert_eq!(damaged.err().unwrap().kind(), ErrorKind::Corrupted);
    }
    let damaged = filled().tamper(|rows| alter(rows, OPEN, last));
    assert_eq!(damaged.err().unwrap().kind(), ErrorKind::Corrupted);

    // A row that vanishes while the store is open.
    let mut fixture = filled();
    fixture
        .store
        .commit(|transaction, _| {
            remove_all(transaction, OPEN);
            Ok(())
        })
        .unwrap();
    corrupted(fixture.try_get(1000));
    assert_eq!(fixture.store.view().open_records().unwrap_err().kind(), ErrorKind::Corrupted);
}

/// A record is valid only in its place: an earlier record of a key is not taken for the present
/// one, whether it comes from elsewhere in the file or from the same place in another file.
#[test]
fn an_earlier_life_in_the_place_of_a_record_is_damage() {
    let lives = |expiries: [u64; 2]| {
        let mut fixture = Fixture::new();
        for (life, expires_at) in expiries.into_iter().enumerate() {
            fixture.fold_completed(1..2, expires_at, &[life as u8; 100]);
        }
        assert_eq!(fixture.response(1).unwrap(), [1; 100]);
        fixture
    };
    let fixture = lives([5_000, 5_000]).tamper_records(|bytes| bytes.copy_within(0..4096, 4096));
    assert_eq!(fixture.unwrap().try_get(1).unwrap_err().kind(), ErrorKind::Corrupted);

    let Fixture { dir, store, .. } = lives([5_000, 6_000]);
    store.close().unwrap();
    let [first, second] = &dir.record_files()[..] else { panic!("two buckets") };
    std::fs::copy(first, second).unwrap();
    let store = open(&dir).unwrap();
    let found = store.view().get(hash(&key(1)), &key(1));
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupted);
}

/// An old version of a row, which came back with its page, is noticed although its checksum is
/// right.
#[test]
fn stale_rows_do_not_add_up() {
    let mut fixture = Fixture::new();
    fixture.fold(vec![(key(1), Some(in_flight(&key(1), 1)))]);
    let stale = {
        let view = fixture.store.view();
        view.tables.open.get(hash(&key(1)).0).unwrap().unwrap().value().to_vec()
    };
    fixture.fold(vec![(key(1), Some(orphan(&key(1), 1, 5)))]);
    let result = fixture.tamper(|transaction| {
        let mut rows = transaction.open_table(OPEN).unwrap();
        rows.insert(hash(&key(1)).0, stale.as_slice()).unwrap();
    });
    assert_eq!(result.err().unwrap().kind(), ErrorKind::Corrupted);
}

#[test]
fn a_merge_of_damaged_runs_fails_once_and_changes_nothing() {
    let mut fixture = Fixture::new();
    for round in 0..4 {
        fixture.fold_completed(round * 300..round * 300 + 300, 5_000, b"x");
    }
    let Fixture { dir, store, sequence, time } = fixture;
    store.close().unwrap();
    let damaged = &dir.run_files()[0];
    let bytes = std::fs::read(damaged).unwrap();
    let in_the_middle = 28 + 150 * 24;
    std::fs::write(damaged, altered(bytes, in_the_middle)).unwrap();
    let mut fixture = Fixture { store: open(&dir).unwrap(), dir, sequence, time };
    while fixture.store.load_next_filter().unwrap() {}
    let error = loop {
        if let Err(error) = fixture.store.merge_step(10) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(!fixture.store.merge_step(10).unwrap());
    assert_eq!((fixture.store.view().runs(), fixture.dir.run_files().len()), (4, 4));
    assert!((300..1200).all(|number| fixture.response(number).unwrap() == b"x"));
    fixture.fold_completed(2000..2010, 5_000, b"y");
    assert_eq!(fixture.response(2003).unwrap(), b"y");
}

#[test]
fn decoders_meet_noise_without_a_panic() {
    let mut noise = Noise::new(5);
    let meta =
        RunMeta { id: 1, bucket_end: 5, entries: 7, end: 8192, blocks: 1, lines: 1, level: 0 };
    let state = new_state().encode();
    let (row, _) = meta.encode(1);
    for len in 0..400 {
        let bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8).collect();
        assert!(run::Block::decode(bytes.clone(), &meta, 0, 1).is_err());
        assert!(record_codec::decode(&SharedBytes::copy_of(&bytes), 1).is_err());
        assert!(RunMeta::decode(&bytes, 1, 1).is_err());
        assert!(StoreState::decode(&bytes).is_err());
        assert!(len >= state.len() || StoreState::decode(&state[..len]).is_err());
        assert!(len >= row.len() || RunMeta::decode(&row[..len], 1, 1).is_err());
    }
    assert_eq!(RunMeta::decode(&row, 1, 1).unwrap().0, meta);
    assert!(RunMeta::decode(&row, 1, 2).is_err());
    assert_eq!(StoreState::decode(&state).unwrap(), new_state());
}

#[test]
fn a_damaged_record_stops_a_copy_and_leaves_none() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..300, 5_000, &[3; 2000]);
    let damaged = fixture.tamper_records(|bytes| bytes[300_000] ^= 1).unwrap();
    let target = Dir::new();
    let error = copy(&damaged.store, &target, |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(!Store::exists(&*target.handle()).unwrap());
}

fn is_sound(dir: &Dir) -> bool {
    let mut found = Verification::default();
    Store::verify(&dir.handle(), CACHE, OPEN_FILES, &mut found).is_ok() && found.is_sound()
}

/// Answers are right or errors, whatever happens to single pages of the store file or of a run: a
/// page of noise, one flipped bit, a page in the place of another.
#[test]
fn rot_gives_errors_or_right_answers_and_refused_files_stay_untouched() {
    let mut fixture = Fixture::new();
    for round in 0..6 {
        fixture.fold_completed(
            round * 100..round * 100 + 150,
            5_000 + round % 2 * 4_000,
            &[5; 300],
        );
    }
    fixture.store.merge_step(1000).unwrap();
    let claims = (900..950).map(|number| (key(number), Some(in_flight(&key(number), 1))));
    fixture.fold(claims.collect());
    let expected: Vec<_> = (0..1000).map(|number| fixture.get(number)).collect();
    let unclean = std::fs::read(fixture.dir.file()).unwrap();
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let clean = std::fs::read(dir.file()).unwrap();
    for whole in [&unclean, &clean] {
        std::fs::write(dir.file(), whole).unwrap();
        assert!(is_sound(&dir));
        assert!(*whole == std::fs::read(dir.file()).unwrap());
    }

    let mut noise = Noise::new(11);
    let mut outcomes = [0; 3];
    let run = dir.run_files()[0].clone();
    let sound_run = std::fs::read(&run).unwrap();
    for trial in 0..150 {
        let (path, whole) =
            [(dir.file(), &clean), (dir.file(), &unclean), (run.clone(), &sound_run)][trial % 3]
                .clone();
        std::fs::write(dir.file(), &clean).unwrap();
        std::fs::write(&run, &sound_run).unwrap();
        let mut damaged = whole.clone();
        // A run as small as this one has less than a page.
        let len = if path == run { 128 } else { 4096 };
        let pages = damaged.len() / len;
        let mut page = || noise.next() as usize % pages * len;
        let (from, to) = (page(), page());
        match trial / 3 % 3 {
            0 => damaged[to..to + len].fill_with(|| noise.next() as u8),
            1 => damaged.copy_within(from..from + len, to),
            _ => damaged[to + noise.next() as usize % len] ^= 1 << (noise.next() % 8),
        }
        std::fs::write(&path, &damaged).unwrap();
        let verified = is_sound(&dir);
        let Ok(store) = open(&dir) else {
            assert!(!verified, "trial {trial}");
            assert!(damaged == std::fs::read(&path).unwrap(), "trial {trial} touched the file");
            outcomes[0] += 1;
            continue;
        };
        let view = store.view();
        let right = (0..1000).zip(&expected).all(|(number, expected)| {
            match view.get(hash(&key(number)), &key(number)) {
                Ok(found) => {
                    let found = found.and_then(|versioned| versioned.record);
                    assert_eq!(found.as_deref(), expected.as_ref(), "key {number}, trial {trial}");
                    true
                }
                Err(_) => false,
            }
        });
        assert!(right || !verified, "trial {trial}");
        outcomes[if right { 2 } else { 1 }] += 1;
        drop(store);
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}
