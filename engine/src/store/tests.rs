use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::ReadableTable;

use super::schema::{RunMeta, value_of_page};
use super::*;
use crate::clock::Time;
use crate::disk::OsDisk;
use crate::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::journal::Position;
use crate::key::{Key, KeyHash, Secret};
use crate::recent::Versioned;
use crate::transition::{Attempt, Completed, Record, State, Token};

const SECRET: Secret = Secret([7; 32]);
const CACHE: usize = 16 << 20;
/// Bucket width of the tests, in ms.
const WIDTH: u64 = 1000;

/// Repeatable noise: splitmix64.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn hash(&mut self) -> KeyHash {
        KeyHash(u128::from(self.next()) << 64 | u128::from(self.next()))
    }
}

pub(super) fn key(number: u64) -> Key {
    Key::new("scope", format!("key-{number}")).unwrap()
}

fn hash(key: &Key) -> KeyHash {
    KeyHash::of(key, &SECRET)
}

fn record(key: &Key, state: State) -> Record {
    let fingerprint = Fingerprint::builder().part("body", key.key()).finish();
    let fingerprint = KeyedFingerprint::new(fingerprint, &SECRET).to_stored();
    Record { key: key.clone(), fingerprint, state }
}

fn token(sequence: u64) -> Token {
    Token { incarnation: 1, epoch: 1, sequence }
}

fn attempt(sequence: u64) -> Attempt {
    Attempt {
        token: token(sequence),
        number: 1,
        started_at: Time(5),
        deadline: None,
        ttl: Duration::from_millis(500),
        checkpoint: None,
    }
}

pub(super) fn completed(key: &Key, sequence: u64, expires_at: u64, response: &[u8]) -> Record {
    record(
        key,
        State::Completed(Completed {
            token: token(sequence),
            completed_at: Time(6),
            expires_at: Time(expires_at),
            response: Some(response.into()),
        }),
    )
}

pub(super) fn in_flight(key: &Key, sequence: u64) -> Record {
    record(key, State::InFlight(attempt(sequence)))
}

/// Expires 500 ms after `since`.
pub(super) fn orphan(key: &Key, sequence: u64, since: u64) -> Record {
    record(key, State::Orphan { attempt: attempt(sequence), since: Time(since) })
}

/// A directory that is removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("oncekey-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn disk() -> Arc<dyn Disk> {
    Arc::new(OsDisk)
}

fn new_state() -> StoreState {
    StoreState::new(99, SECRET, Position { segment: 0, offset: 0 }, Time(10))
}

fn open(dir: &Dir) -> Result<Store> {
    Store::open(&disk(), &dir.0, CACHE)
}

/// A store, and the sequence of its next fold.
struct Fixture {
    dir: Dir,
    store: Store,
    sequence: u64,
    time: u64,
}

impl Fixture {
    fn new() -> Self {
        let dir = Dir::new();
        Store::create(&disk(), &dir.0, CACHE, &new_state()).unwrap();
        let store = open(&dir).unwrap();
        Self { dir, store, sequence: 0, time: 10 }
    }

    fn reopen(self) -> Self {
        let Self { dir, store, sequence, time } = self;
        store.close().unwrap();
        let store = open(&dir).unwrap();
        Self { dir, store, sequence, time }
    }

    fn fold(&mut self, records: Vec<(Key, Option<Record>)>) -> FoldReport {
        let entries = records.into_iter().map(|(key, record)| {
            self.sequence += 1;
            let versioned = Versioned { sequence: self.sequence, record: record.map(Arc::new) };
            (hash(&key), versioned)
        });
        let entries = entries.collect();
        let fold = Fold {
            through: self.sequence,
            replay_from: Position { segment: 3, offset: 4096 },
            epoch: 2,
            time: Time(self.time),
            bucket_width: Duration::from_millis(WIDTH),
            entries,
        };
        self.store.fold(fold).unwrap()
    }

    fn fold_completed(&mut self, keys: std::ops::Range<u64>, expires_at: u64, response: &[u8]) {
        let records = keys.map(|number| {
            let key = key(number);
            let record = completed(&key, number, expires_at, response);
            (key, Some(record))
        });
        self.fold(records.collect());
    }

    fn get(&self, number: u64) -> Option<Record> {
        self.try_get(number).unwrap()
    }

    fn try_get(&self, number: u64) -> Result<Option<Record>> {
        let key = key(number);
        let found = self.store.view().get(hash(&key), &key)?;
        Ok(found.and_then(|versioned| versioned.record).map(|record| (*record).clone()))
    }

    fn response(&self, number: u64) -> Option<Vec<u8>> {
        self.get(number).map(|record| match record.state {
            State::Completed(completed) => completed.response.unwrap().to_vec(),
            _ => panic!("not completed"),
        })
    }

    fn sweep(&mut self) -> SweepReport {
        let mut total = SweepReport::default();
        loop {
            let step = self.store.sweep_step(Time(self.time), 10).unwrap();
            total.chunks += step.chunks;
            total.runs += step.runs;
            total.completed += step.completed;
            total.orphans += step.orphans;
            if !step.more {
                return total;
            }
        }
    }

    /// Changes the file behind the store's back, as rot would, but for redb's own checksums.
    fn tamper(self, change: impl FnOnce(&WriteTransaction)) -> Result<Self> {
        let Self { dir, store, sequence, time } = self;
        store.close().unwrap();
        let database = redb::Database::open(dir.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
        database.close().unwrap();
        let store = open(&dir)?;
        Ok(Self { dir, store, sequence, time })
    }
}

fn altered(mut bytes: Vec<u8>, index: usize) -> Vec<u8> {
    bytes[index] ^= 0x10;
    bytes
}

/// Flips a bit of byte `index` of every value of a table.
fn alter<K: redb::Key + 'static>(
    transaction: &WriteTransaction,
    definition: redb::TableDefinition<'_, K, schema::Bytes>,
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

fn remove_all<K: redb::Key + 'static>(
    transaction: &WriteTransaction,
    definition: redb::TableDefinition<'_, K, schema::Bytes>,
) {
    transaction.open_table(definition).unwrap().retain(|_, _| false).unwrap();
}

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
    let report = fixture.fold(mixed.collect());
    assert_eq!((report.completed, report.expired, report.open), (300, 0, 0));
    assert_eq!(report.runs, 7);

    let state = fixture.store.state();
    assert_eq!((state.folded_through, state.epoch), (1300, 2));
    assert_eq!(state.replay_from, Position { segment: 3, offset: 4096 });
    for reopened in [false, true] {
        if reopened {
            fixture = fixture.reopen();
            assert_eq!(fixture.store.state(), state);
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
    // A record that had expired when it was folded is not stored, but ends the open one.
    fixture.fold(vec![(key(3), Some(in_flight(&key(3), 50)))]);
    fixture.time = 6_000;
    let report = fixture.fold(vec![(key(3), Some(completed(&key(3), 50, 6_000, b"late")))]);
    assert_eq!((report.completed, report.expired), (0, 1));
    assert_eq!(fixture.store.view().open_count(), 0);
}

#[test]
fn open_records_live_until_they_end() {
    let mut fixture = Fixture::new();
    let keys: Vec<_> = (0..5).map(key).collect();
    let claims = keys.iter().map(|key| (key.clone(), Some(in_flight(key, 1))));
    assert_eq!(fixture.fold(claims.collect()).open, 5);
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
        assert_eq!(view.open_count(), 3);
        let mut open = view.open_records().unwrap();
        open.sort_by_key(|(_, versioned)| versioned.sequence);
        let hashes: Vec<_> = open.iter().map(|(hash, _)| *hash).collect();
        assert_eq!(hashes, [hash(&keys[3]), hash(&keys[4]), hash(&keys[2])]);
    }
    // Only the orphan expires.
    fixture.time = 1_000_000;
    assert_eq!(fixture.sweep().orphans, 1);
    assert_eq!(fixture.get(2), None);
    assert_eq!(fixture.get(3), Some(in_flight(&keys[3], 1)));
    assert_eq!(fixture.store.view().open_count(), 2);
    assert_eq!(fixture.reopen().store.view().open_count(), 2);
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
    let chunks = fixture.sweep();
    assert_eq!((chunks.chunks, chunks.completed), (0, 0));
    fixture = fixture.reopen();
    assert_eq!(all_answers(&fixture, 1100), before);
    while fixture.store.load_next_filter().unwrap() {}
    assert_eq!(all_answers(&fixture, 1100), before);
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
    // As a crash leaves it: the file of a store that is still open.
    let crashed = Dir::new();
    std::fs::copy(fixture.dir.file(), crashed.file()).unwrap();
    let mut fixture = Fixture { store: open(&crashed).unwrap(), dir: crashed, ..fixture };
    assert_eq!(all_answers(&fixture, 800), before);
    assert_eq!(fixture.store.catalog.runs.len(), 9);
    assert_eq!(fixture.sweep().runs, 1);
    assert_eq!(fixture.store.catalog.runs.len(), 8);
    while fixture.store.merge_step(50).unwrap() {}
    assert_eq!(fixture.sweep().runs, 8);
    assert_eq!(fixture.store.view().runs(), 1);
    assert_eq!(all_answers(&fixture, 800), before);

    // A bucket that expires takes its merge along.
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
        let report = fixture.sweep();
        assert_eq!((report.completed, report.chunks), (1000, 100), "{report:?}");
        let view = fixture.store.view();
        assert_eq!((view.runs(), view.entries()), (0, 0));
        assert!(fixture.get(cycle * 1000).is_none());
        assert_eq!(fixture.store.state().time, Time(fixture.time));
        for (table, rows) in [
            ("chunks", redb::ReadableTableMetadata::len(&view.tables.chunks)),
            ("runs", redb::ReadableTableMetadata::len(&view.tables.runs)),
            ("blocks", redb::ReadableTableMetadata::len(&view.tables.blocks)),
            ("filters", redb::ReadableTableMetadata::len(&view.tables.filters)),
        ] {
            assert_eq!(rows.unwrap(), 0, "{table}");
        }
    }
    assert!(sizes[11] <= sizes[1], "{sizes:?}");
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

    let fixture = filled().tamper(|rows| alter(rows, BLOCKS, |bytes| bytes.len() / 2)).unwrap();
    corrupted(fixture.try_get(5));
    corrupted(fixture.try_get(5_000));
    let fixture = filled().tamper(|rows| remove_all(rows, BLOCKS)).unwrap();
    corrupted(fixture.try_get(5));
    corrupted(fixture.try_get(5_000));
    let fixture = filled().tamper(|rows| alter(rows, CHUNKS, |_| 100)).unwrap();
    assert!((0..300).any(|number| fixture.try_get(number).is_err()));
    assert_eq!(fixture.get(5_000), None);
    let fixture = filled().tamper(|rows| remove_all(rows, CHUNKS)).unwrap();
    corrupted(fixture.try_get(5));

    // A filter costs reads, no answer.
    let damage: [fn(&WriteTransaction); 2] =
        [|rows| alter(rows, FILTERS, |_| 60), |rows| remove_all(rows, FILTERS)];
    for damage in damage {
        let mut fixture = filled().tamper(damage).unwrap();
        while fixture.store.load_next_filter().unwrap() {}
        assert!((0..300).all(|number| fixture.response(number).unwrap() == b"response"));
        assert_eq!(fixture.get(5_000), None);
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
    assert_eq!(
        fixture.store.view().open_records().unwrap_err().kind(),
        ErrorKind::Corrupted
    );
}

/// An old version of a row that came back with a page is noticed although its checksum holds.
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
    let mut fixture = fixture
        .tamper(|transaction| {
            let mut rows = transaction.open_table(BLOCKS).unwrap();
            let value = rows.get((1, 1)).unwrap().unwrap().value().to_vec();
            rows.insert((1, 1), altered(value, 50).as_slice()).unwrap();
        })
        .unwrap();
    while fixture.store.load_next_filter().unwrap() {}
    let error = loop {
        if let Err(error) = fixture.store.merge_step(10) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(!fixture.store.merge_step(10).unwrap());
    assert_eq!(fixture.store.view().runs(), 4);
    assert!((300..1200).all(|number| fixture.response(number).unwrap() == b"x"));
    fixture.fold_completed(2000..2010, 5_000, b"y");
    assert_eq!(fixture.response(2003).unwrap(), b"y");
}

/// Opening must fail with `kind` and leave the file as it is.
fn refused(dir: &Dir, kind: ErrorKind) {
    let before = std::fs::read(dir.file()).unwrap();
    let error = open(dir).err().unwrap();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(before == std::fs::read(dir.file()).unwrap(), "the file was touched");
}

#[test]
fn what_can_not_be_opened_is_classified_and_left_untouched() {
    let dir = Dir::new();
    assert_eq!(open(&dir).err().unwrap().kind(), ErrorKind::StoreMissing);
    assert!(!Store::exists(&disk(), &dir.0).unwrap());
    let mut noise = Noise::new(8);
    let garbage: Vec<u8> = (0..50_000).map(|_| noise.next() as u8).collect();
    for (bytes, kind) in [
        (&b""[..], ErrorKind::StoreEmpty),
        (b"r", ErrorKind::StoreTruncated),
        (b"something else", ErrorKind::StoreForeign),
        (b"redb\x1a\x0a\xa9\x0d\x0a and no more", ErrorKind::StoreTruncated),
        (&garbage, ErrorKind::StoreForeign),
    ] {
        std::fs::write(dir.file(), bytes).unwrap();
        refused(&dir, kind);
    }
    std::fs::remove_file(dir.file()).unwrap();

    let foreign = redb::Database::create(dir.file()).unwrap();
    foreign.close().unwrap();
    refused(&dir, ErrorKind::StoreForeign);
    std::fs::remove_file(dir.file()).unwrap();
    let foreign = redb::Database::create(dir.file()).unwrap();
    let transaction = foreign.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &str>::new("state");
    transaction.open_table(table).unwrap().insert("a", "b").unwrap();
    transaction.commit().unwrap();
    // Not closed cleanly, so that redb repairs it on the way.
    let unclean = std::fs::read(dir.file()).unwrap();
    foreign.close().unwrap();
    refused(&dir, ErrorKind::StoreForeign);
    std::fs::write(dir.file(), unclean).unwrap();
    refused(&dir, ErrorKind::StoreForeign);
}

#[test]
fn damage_to_a_store_is_classified_and_left_untouched() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..500, 5_000, &[5; 500]);
    let unclean = std::fs::read(fixture.dir.file()).unwrap();
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let clean = std::fs::read(dir.file()).unwrap();
    for whole in [&clean, &unclean] {
        for keep in [100, 319, 320, 4096, 10_000, whole.len() / 2, whole.len() - 1] {
            std::fs::write(dir.file(), &whole[..keep]).unwrap();
            refused(&dir, ErrorKind::StoreTruncated);
        }
    }
    std::fs::write(dir.file(), &unclean).unwrap();
    assert_eq!(open(&dir).unwrap().view().entries(), 500);

    // Any page of noise: an error or whole answers, never a panic; refused files are untouched.
    let mut noise = Noise::new(11);
    let mut refusals = 0;
    for page in 0..clean.len() / 4096 {
        let mut damaged = if page % 2 == 0 { clean.clone() } else { unclean.clone() };
        let end = ((page + 1) * 4096).min(damaged.len());
        damaged[page * 4096..end].fill_with(|| noise.next() as u8);
        std::fs::write(dir.file(), &damaged).unwrap();
        match open(&dir) {
            Err(_) => {
                refusals += 1;
                assert!(damaged == std::fs::read(dir.file()).unwrap());
            }
            Ok(store) => {
                let view = store.view();
                for number in 0..500 {
                    let found = view.get(hash(&key(number)), &key(number));
                    assert!(!matches!(found, Ok(None)), "key {number} lost with page {page}");
                }
            }
        }
    }
    assert!(refusals > 0);
}

#[test]
fn a_newer_format_is_refused_before_anything_is_written() {
    let fixture = Fixture::new();
    let mut row = fixture.store.state().encode();
    row[0] += 1;
    let end = row.len() - 8;
    let sealed = crate::codec::checksum(0x6f6e_6365_6b65_7901, &row[..end]);
    row[end..].copy_from_slice(&sealed.to_le_bytes());
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let database = redb::Database::open(dir.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(STATE).unwrap().insert(STATE_KEY, row.as_slice()).unwrap();
    transaction.commit().unwrap();
    let unclean = std::fs::read(dir.file()).unwrap();
    database.close().unwrap();
    refused(&dir, ErrorKind::StoreNewerFormat);
    std::fs::write(dir.file(), unclean).unwrap();
    refused(&dir, ErrorKind::StoreNewerFormat);
}

#[test]
fn a_copy_has_every_answer_and_its_own_incarnation() {
    let mut fixture = Fixture::new();
    for round in 0..6 {
        fixture.fold_completed(round * 100..round * 100 + 100, 5_000 + round * 500, &[3; 2000]);
    }
    fixture.fold(vec![(key(5_000), Some(orphan(&key(5_000), 1, 5)))]);
    assert!(fixture.store.merge_step(50).is_ok());
    let target = Dir::new();
    fixture.store.copy_to(&target.0, |state| state.incarnation = 100).unwrap();
    let again = fixture.store.copy_to(&target.0, |_| ());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut copy = Fixture { store: open(&target).unwrap(), dir: target, sequence: 601, time: 10 };
    assert_eq!(copy.store.state().incarnation, 100);
    assert_eq!(copy.store.state().secret, SECRET);
    assert_eq!(all_answers(&copy, 600), all_answers(&fixture, 600));
    assert_eq!(copy.get(5_000), fixture.get(5_000));
    copy.fold_completed(1000..1100, 5_000, b"y");
    assert_eq!(copy.response(1050).unwrap(), b"y");
    assert_eq!(fixture.get(1050), None);

    let damaged = fixture.tamper(|rows| alter(rows, CHUNKS, |bytes| bytes.len() - 1)).unwrap();
    let target = Dir::new();
    let error = damaged.store.copy_to(&target.0, |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted);
    assert!(!Store::exists(&disk(), &target.0).unwrap());
}

#[test]
fn creation_replaces_leftovers_but_never_a_store() {
    let dir = Dir::new();
    std::fs::write(dir.0.join(TEMPORARY_FILE), b"half a store").unwrap();
    Store::create(&disk(), &dir.0, CACHE, &new_state()).unwrap();
    assert!(Store::exists(&disk(), &dir.0).unwrap());
    assert!(!dir.0.join(TEMPORARY_FILE).exists());
    assert_eq!(open(&dir).unwrap().state().incarnation, 99);
    let again = Store::create(&disk(), &dir.0, CACHE, &new_state());
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_old_view_keeps_its_answers_and_a_closed_store_says_so() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..200, 5_000, b"x");
    let old = fixture.store.view();
    fixture.time = 10_000;
    fixture.sweep();
    assert!(fixture.get(7).is_none());
    assert!(old.get(hash(&key(7)), &key(7)).unwrap().is_some());
    let views = fixture.store.views();
    fixture.store.close().unwrap();
    assert_eq!(views.current().get(hash(&key(7)), &key(7)).unwrap().map(|v| v.sequence), None);
    let closed = old.get(hash(&key(9)), &key(9));
    assert!(closed.is_ok_and(|found| found.is_some()) || old.open_count() == 0);
}

/// How large a value may be so that redb gives its leaf a page of 16 KiB, and one byte more.
#[test]
fn a_full_chunk_fills_its_page() {
    let dir = Dir::new();
    let pages = |len: usize| {
        let path = dir.0.join(format!("{len}.redb"));
        let database = redb::Database::create(path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut chunks = transaction.open_table(CHUNKS).unwrap();
            let value = vec![1; len];
            (0..64).for_each(|id| drop(chunks.insert((9, id), value.as_slice()).unwrap()));
        }
        transaction.commit().unwrap();
        let transaction = database.begin_write().unwrap();
        let stats = redb::ReadableTableMetadata::stats(&transaction.open_table(CHUNKS).unwrap());
        let stats = stats.unwrap();
        assert_eq!(stats.leaf_pages(), 64);
        (stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes())
            .saturating_sub(4096 * stats.branch_pages())
            / 64
    };
    assert_eq!(pages(value_of_page(16 * 1024, 16)), 16 * 1024);
    assert_eq!(pages(value_of_page(16 * 1024, 16) + 1), 32 * 1024);
    assert_eq!(chunk::CHUNK_BYTES, 16360);
}

#[test]
fn decoders_meet_noise_without_a_panic() {
    let mut noise = Noise::new(5);
    let meta = RunMeta {
        id: 1,
        bucket_end: 5,
        entries: 7,
        blocks: 1,
        lines: 1,
        level: 0,
        stage: Stage::Live,
    };
    let state = new_state().encode();
    let (row, _) = meta.encode(1);
    for len in 0..400 {
        let bytes: Vec<u8> = (0..len).map(|_| noise.next() as u8).collect();
        assert!(run::Block::decode(&bytes, &meta, 0, 1).is_err());
        assert!(record::decode(&bytes, 1).is_err());
        assert!(RunMeta::decode(&bytes, 1, 1).is_err());
        assert!(StoreState::decode(&bytes).is_err());
        assert!(chunk::verify(&bytes, 1, 1).is_err() || len == 0);
        assert!(len >= state.len() || StoreState::decode(&state[..len]).is_err());
        assert!(len >= row.len() || RunMeta::decode(&row[..len], 1, 1).is_err());
    }
    assert_eq!(RunMeta::decode(&row, 1, 1).unwrap().0, meta);
    assert!(RunMeta::decode(&row, 1, 2).is_err());
    assert_eq!(StoreState::decode(&state).unwrap(), new_state());
}

fn _assert_shared(store: Store) -> impl Send {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&store.views());
    shared(&*store.view());
    store
}

fn _paths(_: &Path) {}
// BENCH-BEGIN
#[test]
#[ignore]
fn bench() {
    fn cpu() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }
    let mut fixture = Fixture::new();
    let response = vec![7u8; 1024];
    for round in 0..20u64 {
        let entries: Vec<_> = (round * 25_000..(round + 1) * 25_000)
            .map(|number| {
                let key = key(number);
                let record = completed(&key, number, 1_000_000, &response);
                (hash(&key), Versioned { sequence: number + 1, record: Some(Arc::new(record)) })
            })
            .collect();
        fixture.sequence += 25_000;
        let fold = Fold {
            through: fixture.sequence,
            replay_from: Position { segment: 3, offset: 4096 },
            epoch: 2,
            time: Time(10),
            bucket_width: Duration::from_millis(WIDTH),
            entries,
        };
        let (start, began) = (cpu(), std::time::Instant::now());
        fixture.store.fold(fold).unwrap();
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let ticks: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
        println!(
            "user {} sys {} minflt {} fold {round}: cpu {:.1} ms, wall {:.1} ms, file {} MB",
            ticks[12], ticks[13], ticks[8],
            (cpu() - start) as f64 / 1e6,
            began.elapsed().as_secs_f64() * 1e3,
            fixture.store.file_bytes().unwrap() >> 20
        );
    }
    let view = fixture.store.view();
    println!("runs {}", view.runs());
    let missing: Vec<_> = (1_000_000..1_200_000).map(|n| (hash(&key(n)), key(n))).collect();
    let began = std::time::Instant::now();
    for (hash, key) in &missing {
        assert!(view.get(*hash, key).unwrap().is_none());
    }
    println!("get missing, 20 runs: {:.0} ns", began.elapsed().as_nanos() as f64 / 2e5);
    let mut noise = Noise::new(1);
    let present: Vec<_> = (0..100_000)
        .map(|_| key(noise.next() % 500_000))
        .map(|key| (hash(&key), key))
        .collect();
    let began = std::time::Instant::now();
    for (hash, key) in &present {
        assert!(view.get(*hash, key).unwrap().is_some());
    }
    println!("get present: {:.0} ns", began.elapsed().as_nanos() as f64 / 1e5);
    let (start, began) = (cpu(), std::time::Instant::now());
    let mut steps = 0;
    while fixture.store.merge_step(50_000).unwrap() {
        steps += 1;
    }
    println!(
        "merge to {} runs: {steps} steps, cpu {:.1} ms, wall {:.1} ms",
        fixture.store.view().runs(),
        (cpu() - start) as f64 / 1e6,
        began.elapsed().as_secs_f64() * 1e3
    );
    let view = fixture.store.view();
    let began = std::time::Instant::now();
    for (hash, key) in &missing {
        assert!(view.get(*hash, key).unwrap().is_none());
    }
    println!("get missing, merged: {:.0} ns", began.elapsed().as_nanos() as f64 / 2e5);
    let dir = Dir::new();
    let began = std::time::Instant::now();
    fixture.store.copy_to(&dir.0, |_| ()).unwrap();
    println!("copy: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    let began = std::time::Instant::now();
    let crashed = open(&dir).unwrap();
    println!("open: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    drop(crashed);
    let (start, began) = (cpu(), std::time::Instant::now());
    let mut steps = 0;
    while fixture.store.sweep_step(Time(2_000_000), 5_000).unwrap().more {
        steps += 1;
    }
    println!(
        "sweep: {steps} steps, cpu {:.1} ms, wall {:.1} ms",
        (cpu() - start) as f64 / 1e6,
        began.elapsed().as_secs_f64() * 1e3
    );
}
// BENCH-END
