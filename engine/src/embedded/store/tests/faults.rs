//! Creation, faults of the disk, and readers beside the writer.

use super::*;
use crate::embedded::disk::Lockable;

#[test]
fn creation_replaces_leftovers_but_never_a_store() {
    let dir = Dir::new();
    std::fs::write(dir.0.join(TEMPORARY_FILE), b"half a store").unwrap();
    Store::create(&dir.handle(), CACHE, &new_state()).unwrap();
    assert!(Store::exists(&*dir.handle()).unwrap());
    assert!(!dir.0.join(TEMPORARY_FILE).exists());
    assert_eq!(open(&dir).unwrap().state().identity, 99);
    let again = Store::create(&dir.handle(), CACHE, &new_state());
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
    fixture.store.close().unwrap();
    // A closed view refuses every key, in memory or not, and never says "absent".
    for number in [7, 8, 1000] {
        let refused = old.get(hash(&key(number)), &key(number));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn a_damaged_store_is_not_closed_in_order_and_another_one_is() {
    /// Whether redb wrote its closing commit; source: redb's `docs/design.md`.
    fn in_order(dir: &Dir) -> bool {
        const FLAGS: usize = 9;
        const RECOVERY_REQUIRED: u8 = 2;
        std::fs::read(dir.file()).unwrap()[FLAGS] & RECOVERY_REQUIRED == 0
    }
    let mut damaged = Fixture::new();
    let mut sound = Fixture::new();
    for fixture in [&mut damaged, &mut sound] {
        fixture.fold_completed(0..10, 5_000, b"x");
        assert!(!in_order(&fixture.dir));
    }
    let damaged = damaged.tamper_records(|bytes| bytes.fill(9)).unwrap();
    assert_eq!(damaged.try_get(3).unwrap_err().kind(), ErrorKind::Corrupted);
    damaged.store.close().unwrap();
    sound.store.close().unwrap();
    assert!(!in_order(&damaged.dir));
    assert!(in_order(&sound.dir));
}

#[test]
fn a_swept_file_that_is_gone_already_is_fine_and_one_that_stays_is_an_error() {
    for gone in [true, false] {
        let mut fixture = Fixture::new();
        fixture.fold_completed(0..10, 5_000, b"x");
        fixture.time = 6_000;
        let file = &fixture.dir.record_files()[0];
        std::fs::remove_file(file).unwrap();
        if !gone {
            // A directory, which cannot be removed as a file.
            std::fs::create_dir(file).unwrap();
        }
        fixture.store.sweep(Time(fixture.time)).unwrap();
        assert_eq!(fixture.store.view().files.names().count(), 0);
        let removed = std::iter::from_fn(|| fixture.store.give_back_removed().transpose());
        let removed = removed.take(2).collect::<Result<Vec<_>>>();
        assert_eq!(removed.is_ok(), gone, "{removed:?}");
    }
}

#[test]
fn damage_that_a_copy_finds_is_that_of_the_original() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..10, 5_000, b"x");
    let fixture = fixture.tamper_records(|bytes| bytes.fill(9)).unwrap();
    let target = Dir::new();
    let copied = copy(&fixture.store, &target, |_| {});
    assert_eq!(copied.unwrap_err().kind(), ErrorKind::Corrupted);
    let before = std::fs::read(fixture.dir.file()).unwrap();
    fixture.store.close().unwrap();
    assert!(std::fs::read(fixture.dir.file()).unwrap() == before, "closed as by a crash");
}

/// A disk whose writes and syncs fail from a certain one on, and whose reads fail on demand.
#[derive(Debug)]
struct Failing {
    dir: Arc<dyn Directory>,
    left: Arc<AtomicU64>,
    reads_fail: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn DiskFile>,
    left: Arc<AtomicU64>,
    reads_fail: Arc<AtomicBool>,
}

fn spend(left: &AtomicU64) -> io::Result<()> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other("injected")),
    }
}

impl DiskFile for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.reads_fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected"));
        }
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        spend(&self.left)?;
        self.file.write_at(offset, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        spend(&self.left)?;
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        spend(&self.left)
    }
    fn is_named(&self) -> io::Result<bool> {
        self.file.is_named()
    }
}

impl Failing {
    fn new(dir: &Dir, writes: u64) -> Self {
        let left = Arc::new(AtomicU64::new(writes));
        Self { dir: dir.handle(), left, reads_fail: Arc::default() }
    }

    fn wrap(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let (left, reads_fail) = (self.left.clone(), self.reads_fail.clone());
        Ok(Arc::new(FailingFile { file: file?, left, reads_fail }))
    }
}

impl Directory for Failing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.dir.list()
    }
    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.dir.file_len(name)
    }
    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        self.wrap(self.dir.open(name, caching))
    }
    fn create(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        self.wrap(self.dir.create(name, caching))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        spend(&self.left)?;
        self.dir.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        spend(&self.left)?;
        self.dir.sync()
    }
    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        self.dir.lock(what)
    }
    fn narrow(&self, names: &[String]) -> io::Result<()> {
        self.dir.narrow(names)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.dir.free_bytes()
    }
    fn version(&self) -> io::Result<Option<u64>> {
        self.dir.version()
    }
}

/// Creation, opening and a fold, with a fault at each of their writes and syncs: a failed change is
/// never reported as done, nothing folded before is lost, and the file opens again.
#[test]
fn a_fault_at_any_write_loses_nothing_that_was_claimed() {
    let mut outcomes = [0; 4];
    for faults_from in 0.. {
        let dir = Dir::new();
        let failing: Arc<dyn Directory> = Arc::new(Failing::new(&dir, faults_from));
        if Store::create(&failing, CACHE, &new_state()).is_err() {
            outcomes[0] += 1;
            if Store::exists(&*dir.handle()).unwrap() {
                open(&dir).unwrap();
            }
            continue;
        }
        let Ok(store) = open_on(&failing, CACHE) else {
            outcomes[1] += 1;
            open(&dir).unwrap();
            continue;
        };
        let mut claimed = 0;
        let mut fixture = Fixture { dir, store, sequence: 0, time: 10 };
        let mut failed = false;
        for round in 0..3 {
            let entries = (round * 100..round * 100 + 100).map(|number| {
                let record = completed(&key(number), number, 5_000, &[1; 900]);
                let record = Some(Arc::new(record));
                (hash(&key(number)), Versioned { sequence: number + 1, record })
            });
            let fold = Fold {
                through: round * 100 + 100,
                replay_from: Position { segment: round, offset: 0 },
                incarnation: 5,
                epoch: 1,
                time: Time(10),
                bucket_width: Duration::from_millis(WIDTH),
                entries: entries.collect(),
            };
            let store = &mut fixture.store;
            match store.append(&fold, &mut |_| {}).and_then(|appended| store.fold(appended)) {
                Ok(_) => {
                    assert!(!failed, "a fold after a failed one");
                    claimed = round * 100 + 100;
                }
                Err(_) => failed = true,
            }
        }
        outcomes[if failed { 2 } else { 3 }] += 1;
        let Fixture { dir, store, sequence, time } = fixture;
        drop(store);
        fixture = Fixture { store: open(&dir).unwrap(), dir, sequence, time };
        let folded = fixture.store.state().folded_through;
        assert!(folded == claimed || failed && folded == claimed + 100);
        assert!((0..folded).all(|number| fixture.get(number).is_some()));
        assert!((folded..300).all(|number| fixture.get(number).is_none()));
        if !failed {
            break;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn a_filter_that_can_not_be_read_is_an_error_and_no_damage() {
    let mut fixture = Fixture::new();
    fixture.fold_completed(0..300, 5_000, b"x");
    let Fixture { dir, store, .. } = fixture;
    store.close().unwrap();
    let failing = Failing::new(&dir, u64::MAX);
    let reads_fail = failing.reads_fail.clone();
    let failing: Arc<dyn Directory> = Arc::new(failing);
    let mut store = open_on(&failing, 0).unwrap();
    reads_fail.store(true, Ordering::SeqCst);
    assert_eq!(store.load_next_filter().unwrap_err().kind(), ErrorKind::Io);
    let mut filters = store.catalog.runs.values().map(|run| &run.filter);
    assert!(filters.all(|filter| matches!(filter, FilterSlot::Unloaded)));
}

#[test]
fn readers_see_whole_commits_while_the_store_is_written() {
    let mut fixture = Fixture::new();
    let views = fixture.store.views();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        let view = views.current();
                        // Each fold brings all of a hundred keys; a view has all or none.
                        let hundred = reads % 30 * 100;
                        let found = (hundred..hundred + 100)
                            .filter(|number| {
                                let key = key(*number);
                                view.get(hash(&key), &key).unwrap().is_some()
                            })
                            .count();
                        assert!(found == 0 || found == 100, "{found}");
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for round in 0..30 {
            fixture.fold_completed(round * 100..round * 100 + 100, 5_000, b"x");
            while fixture.store.merge_step(300).unwrap() {}
            fixture.store.sweep(Time(10)).unwrap();
        }
        fixture.time = 6_000;
        fixture.sweep();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert_eq!(views.current().runs(), 0);
}
