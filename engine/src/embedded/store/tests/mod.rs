//! Helpers of the store's tests.

mod answers;
mod damage;
mod faults;
mod refusals;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::embedded::disk::{Disk, OsDisk};
use crate::embedded::journal::Position;
use crate::semantics::key::Key;
use crate::semantics::record::Versioned;
use crate::semantics::record::{Record, State};
use crate::semantics::samples::*;

const CACHE: usize = 16 << 20;
const OPEN_FILES: usize = 8;
/// Bucket width of the tests, in ms.
const WIDTH: u64 = 1000;

/// A directory that is removed at the end.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("oncekey-store-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn handle(&self) -> Arc<dyn Directory> {
        OsDisk.open_dir(&self.0).unwrap()
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    fn record_files(&self) -> Vec<PathBuf> {
        self.files(|name| matches!(name, FileName::Records(_)))
    }

    fn run_files(&self) -> Vec<PathBuf> {
        self.files(|name| matches!(name, FileName::Run(_)))
    }

    /// In order of their names.
    fn files(&self, wanted: impl Fn(&FileName) -> bool) -> Vec<PathBuf> {
        let names = self.handle().list().unwrap();
        let names: BTreeSet<_> = names.iter().filter_map(|name| FileName::parse(name)).collect();
        names.iter().filter(|name| wanted(name)).map(|name| self.0.join(name.to_string())).collect()
    }

    /// Changes the file behind the store's back, as rot would, but for redb's own checksums.
    fn tamper(&self, change: impl FnOnce(&WriteTransaction)) {
        let database = ::redb::Database::open(self.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
        database.close().unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn new_state() -> StoreState {
    StoreState::new(99, SECRET, Position { segment: 0, offset: 0 }, Time(10))
}

fn open(dir: &Dir) -> Result<Store> {
    open_on(&dir.handle(), CACHE)
}

/// Everything that an open does with a store whose journal is complete.
fn open_on(dir: &Arc<dyn Directory>, cache_bytes: usize) -> Result<Store> {
    let mut inspected = Store::inspect(dir, cache_bytes, OPEN_FILES)?;
    let leftovers = inspected.leftovers(u64::MAX)?;
    let reached = inspected.state().reached;
    inspected.state_reached(reached)?;
    let store = inspected.settle()?;
    leftovers.remove(&**dir)?;
    Ok(store)
}

/// Copies the store, as a backup does.
fn copy(store: &Store, target: &Dir, change: impl FnOnce(&mut StoreState)) -> Result<()> {
    store.view().copy_to(&target.handle(), &mut |_| Ok(()), |state| {
        change(state);
        Ok(())
    })
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
        Store::create(&dir.handle(), CACHE, &new_state()).unwrap();
        let store = open(&dir).unwrap();
        Self { dir, store, sequence: 0, time: 10 }
    }

    fn reopen(self) -> Self {
        let Self { dir, store, sequence, time } = self;
        store.close().unwrap();
        let store = open(&dir).unwrap();
        Self { dir, store, sequence, time }
    }

    fn fold(&mut self, records: Vec<(Key, Option<Record>)>) {
        let entries = records.into_iter().map(|(key, record)| {
            self.sequence += 1;
            let versioned = Versioned { sequence: self.sequence, record: record.map(Arc::new) };
            (hash(&key), versioned)
        });
        let entries = entries.collect();
        let fold = Fold {
            through: self.sequence,
            replay_from: Position { segment: 3, offset: 4096 },
            incarnation: 5,
            epoch: 2,
            time: Time(self.time),
            bucket_width: Duration::from_millis(WIDTH),
            entries,
        };
        let appended = self.store.append(&fold, &mut |_| {}).unwrap();
        self.store.fold(appended).unwrap();
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

    fn sweep(&mut self) -> u64 {
        let completed = self.store.sweep(Time(self.time)).unwrap();
        self.give_back();
        completed
    }

    fn give_back(&mut self) {
        while self.store.give_back_removed().unwrap().is_some() {}
    }

    /// Changes the bytes of the record files behind the store's back, as rot would.
    fn tamper_records(self, change: impl Fn(&mut Vec<u8>)) -> Result<Self> {
        self.tamper_files(Dir::record_files, change)
    }

    /// The same with the files of runs.
    fn tamper_runs(self, change: impl Fn(&mut Vec<u8>)) -> Result<Self> {
        self.tamper_files(Dir::run_files, change)
    }

    fn tamper_files(
        self,
        files: impl Fn(&Dir) -> Vec<PathBuf>,
        change: impl Fn(&mut Vec<u8>),
    ) -> Result<Self> {
        let Self { dir, store, sequence, time } = self;
        store.close().unwrap();
        for path in files(&dir) {
            let mut bytes = std::fs::read(&path).unwrap();
            change(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        let store = open(&dir)?;
        Ok(Self { dir, store, sequence, time })
    }

    /// As [`Dir::tamper`], between closing and opening.
    fn tamper(self, change: impl FnOnce(&WriteTransaction)) -> Result<Self> {
        let Self { dir, store, sequence, time } = self;
        store.close().unwrap();
        dir.tamper(change);
        let store = open(&dir)?;
        Ok(Self { dir, store, sequence, time })
    }
}
