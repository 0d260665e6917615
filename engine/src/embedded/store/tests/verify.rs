//! Verification: its counts, the keys that it names, and the damage that stops a copy.

use super::damage::{alter, remove_all};
use super::*;
use crate::backend::reports::Verification;
use crate::base::bytes::SharedBytes;
use crate::embedded::store::schema::CHECKPOINTS;
use crate::semantics::record::Checkpoint;

#[test]
fn verification_counts_what_is_whole_and_names_what_is_not() {
    let filled = || {
        let mut fixture = Fixture::new();
        fixture.fold_completed(0..20, 5_000, &[3; 9000]);
        fixture.fold(vec![
            (key(1000), Some(in_flight(&key(1000), 1))),
            (key(1001), Some(orphan(&key(1001), 2, 7))),
        ]);
        fixture
    };
    let verified = |fixture: Fixture| {
        let Fixture { dir, store, .. } = fixture;
        store.close().unwrap();
        let mut found = Verification::default();
        let state = Store::verify(&dir.handle(), CACHE, OPEN_FILES, &mut found).unwrap();
        assert_eq!(state.map(|(state, _)| state.identity), Some(99));
        let mut keys: Vec<_> =
            found.damage().iter().filter_map(|damage| damage.key().cloned()).collect();
        keys.sort_by_key(|key| key.identity().to_vec());
        (found.records(), found.damage().len(), keys)
    };
    let last = |bytes: &[u8]| bytes.len() - 1;
    assert_eq!(verified(filled()), (22, 0, vec![]));

    // Each damaged record is reported with its key.
    let (records, damages, keys) = verified(
        filled()
            .tamper_records(|bytes| [8_000, 25_000].iter().for_each(|at| bytes[*at] ^= 1))
            .unwrap(),
    );
    assert_eq!((records, damages, keys), (20, 2, vec![key(0), key(2)]));
    // No key is left to report.
    let (records, damages, keys) =
        verified(filled().tamper_records(|bytes| bytes.truncate(100)).unwrap());
    assert_eq!((records, damages, keys), (2, 20, vec![]));
    // One block, then the starts, then the filter. A block to which no start leads counts as
    // damaged.
    let block = 28 + 20 * 24;
    for (damaged, expected) in
        [(block - 1, (2, 1)), (block + 3, (22, 1)), (block + 16, (2, 2)), (block + 30, (22, 1))]
    {
        let fixture = filled().tamper_runs(|bytes| bytes[damaged] ^= 1).unwrap();
        let (records, damages, _) = verified(fixture);
        assert_eq!((records, damages), expected, "{damaged}");
    }

    // Open fails, and the damaged records are named all the same.
    let Fixture { dir, store, .. } = filled();
    store.close().unwrap();
    dir.tamper(|rows| alter(rows, OPEN, last));
    let mut found = Verification::default();
    assert!(Store::verify(&dir.handle(), CACHE, OPEN_FILES, &mut found).unwrap().is_some());
    let mut keys: Vec<_> = found.damage().iter().map(|damage| damage.key().cloned()).collect();
    keys.sort_by_key(|key| key.as_ref().map(|key| key.identity().to_vec()));
    assert_eq!(keys, [Some(key(1000)), Some(key(1001))]);
}

/// The numbers of records and of damages that a verification finds, or its error.
fn found(fixture: Fixture) -> Result<(u64, usize)> {
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    found_in(&dir)
}

fn found_in(dir: &Dir) -> Result<(u64, usize)> {
    let mut found = Verification::default();
    Store::verify(&dir.handle(), CACHE, OPEN_FILES, &mut found)?;
    Ok((found.records(), found.damage().len()))
}

fn copied(fixture: &Fixture) -> Result<()> {
    let target = Dir::new();
    let copied = copy(&fixture.store, &target, |_| ());
    assert_eq!(Store::exists(&*target.handle()).unwrap(), copied.is_ok());
    copied
}

#[test]
fn a_missing_file_or_block_is_found() {
    let filled = || {
        let mut fixture = Fixture::new();
        fixture.fold_completed(0..20, 5_000, b"x");
        fixture.fold_completed(20..30, 9_000, b"x");
        fixture
    };
    assert_eq!(found(filled()).unwrap(), (30, 0));
    copied(&filled()).unwrap();
    let fixture = filled().tamper_runs(|bytes| bytes.truncate(100)).unwrap();
    assert_eq!(copied(&fixture).unwrap_err().kind(), ErrorKind::Corrupted);
    // Of each run: block, starts, filter.
    assert_eq!(found(fixture).unwrap(), (0, 6));
    for files in [Dir::run_files, Dir::record_files] {
        let Fixture { dir, store, .. } = filled();
        store.close().unwrap();
        std::fs::remove_file(&files(&dir)[1]).unwrap();
        assert_eq!(found_in(&dir).unwrap(), (20, 1));
    }
}

#[test]
fn a_record_under_another_key_is_found() {
    let mut fixture = Fixture::new();
    let mut wrong = completed(&key(1), 1, 5_000, b"x");
    wrong.key = key(2);
    fixture.fold(vec![(key(1), Some(wrong))]);
    assert_eq!(copied(&fixture).unwrap_err().kind(), ErrorKind::Corrupted);
    assert_eq!(found(fixture).unwrap(), (0, 1));
}

#[test]
fn what_is_no_damage_is_an_error_of_verification() {
    assert_eq!(found_in(&Dir::new()).unwrap_err().kind(), ErrorKind::StoreMissing);
    let dir = Dir::new();
    std::fs::write(dir.file(), b"").unwrap();
    assert_eq!(found_in(&dir).unwrap_err().kind(), ErrorKind::StoreEmpty);
    std::fs::remove_file(dir.file()).unwrap();
    ::redb::Database::create(dir.file()).unwrap().close().unwrap();
    assert_eq!(found_in(&dir).unwrap_err().kind(), ErrorKind::StoreForeign);
    let Fixture { dir, store, .. } = Fixture::new();
    store.close().unwrap();
    dir.tamper(|rows| {
        let mut row = new_state().encode();
        row[0] += 1;
        let end = row.len() - 8;
        let sealed = crate::base::codec::checksum(0x6f6e_6365_6b65_7901, &row[..end]);
        row[end..].copy_from_slice(&sealed.to_le_bytes());
        rows.open_table(STATE).unwrap().insert(STATE_KEY, row.as_slice()).unwrap();
    });
    assert_eq!(found_in(&dir).unwrap_err().kind(), ErrorKind::StoreNewerFormat);
    assert_eq!(open(&dir).err().unwrap().kind(), ErrorKind::StoreNewerFormat);
}

#[test]
fn a_catalog_that_does_not_add_up_is_one_damage() {
    let Fixture { dir, store, .. } = {
        let mut fixture = Fixture::new();
        fixture.fold_completed(0..20, 5_000, b"x");
        fixture.fold(vec![(key(1000), Some(in_flight(&key(1000), 1)))]);
        fixture
    };
    store.close().unwrap();
    let whole = std::fs::read(dir.file()).unwrap();
    let tampered = |change: fn(&WriteTransaction)| {
        std::fs::write(dir.file(), &whole).unwrap();
        dir.tamper(change);
        found_in(&dir).unwrap()
    };
    // The open record is whole. The runs are not known.
    assert_eq!(tampered(|rows| remove_all(rows, RUNS)), (1, 1));
    assert_eq!(tampered(|rows| remove_all(rows, OPEN)), (0, 1));
    // One damage: the damaged record is the reason that the records do not add up.
    assert_eq!(tampered(|rows| alter(rows, OPEN, |_| 30)), (0, 1));
    assert_eq!(tampered(|rows| alter(rows, STATE, |_| 30)), (0, 1));
}

/// A page of noise anywhere in the store file is damage, not an error.
#[test]
fn verification_survives_a_page_of_noise() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..300, 5_000, b"x");
    fixture.fold(vec![(key(1000), Some(in_flight(&key(1000), 1)))]);
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let whole = std::fs::read(dir.file()).unwrap();
    let (mut noise, mut damaged) = (Noise::new(3), 0);
    // Without the first page, which tells the kind of the file.
    for page in (4096..whole.len()).step_by(4096) {
        let used = whole[page..page + 4096].iter().any(|byte| *byte != 0);
        if used {
            let mut bytes = whole.clone();
            bytes[page..page + 4096].fill_with(|| noise.next() as u8);
            std::fs::write(dir.file(), &bytes).unwrap();
            damaged += usize::from(found_in(&dir).unwrap().1 > 0);
        }
    }
    assert!(damaged > 5, "{damaged}");
}

fn saved(key: &Key, sequence: u64, data: &[u8]) -> Record {
    let mut record = orphan(key, sequence, 7);
    if let State::Orphan { attempt, .. } = &mut record.state {
        attempt.checkpoint = Some(Checkpoint::Here(SharedBytes::copy_of(data)));
    }
    record
}

/// Checkpoints are in a table of their own, which has those of the open records and no other.
#[test]
fn a_damaged_missing_or_stray_checkpoint_is_found_by_its_key() {
    let filled = || {
        let mut fixture = Fixture::new();
        fixture.fold((0..3).map(|n| (key(n), Some(saved(&key(n), n, b"point")))).collect());
        let later = vec![
            (key(1), None),
            (key(2), Some(in_flight(&key(2), 9))),
            (key(3), Some(in_flight(&key(3), 9))),
        ];
        fixture.fold(later);
        fixture
    };
    let stored = |fixture: &Fixture| match fixture.get(0).unwrap().attempt().unwrap().checkpoint {
        Some(Checkpoint::Stored(stored)) => stored,
        ref other => panic!("{other:?}"),
    };
    let read = |fixture: &Fixture| {
        let read = fixture.store.view().checkpoint(hash(&key(0)), stored(fixture)).unwrap();
        read.map(|data| data.to_vec())
    };
    let fixture = filled();
    assert_eq!(read(&fixture).as_deref(), Some(&b"point"[..]));
    copied(&fixture).unwrap();
    assert_eq!(found(fixture).unwrap(), (3, 0));

    let damages: [fn(&WriteTransaction); 2] =
        [|rows| alter(rows, CHECKPOINTS, |_| 0), |rows| remove_all(rows, CHECKPOINTS)];
    for damage in damages {
        let fixture = filled().tamper(damage).unwrap();
        assert_eq!(read(&fixture), None);
        assert_eq!(copied(&fixture).unwrap_err().kind(), ErrorKind::Corrupted);
        let Fixture { dir, store, .. } = fixture;
        store.close().unwrap();
        let mut found = Verification::default();
        Store::verify(&dir.handle(), CACHE, OPEN_FILES, &mut found).unwrap();
        assert_eq!(found.records(), 3);
        assert_eq!(found.damage()[0].key(), Some(&key(0)));
    }
    let fixture = filled().tamper(|rows| {
        let mut table = rows.open_table(CHECKPOINTS).unwrap();
        table.insert(hash(&key(3)).0, &b"stray"[..]).unwrap();
    });
    assert_eq!(found(fixture.unwrap()).unwrap(), (3, 1));
}
