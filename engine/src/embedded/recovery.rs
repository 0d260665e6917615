//! Recovery of the acknowledged records from a store directory: the open records of the store file,
//! then the journal's changes on top, then a new epoch.

use std::collections::BTreeMap;

use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::clock::EngineClock;
use crate::embedded::directory::{self, StoreDirectory};
use crate::embedded::journal::{self, Entry, Group, Journal, Reached, Room};
use crate::embedded::options::Options;
use crate::embedded::store::{InspectedStore, Leftovers, Store};
use crate::semantics::command::Change;
use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::record::Versioned;
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;
use crate::semantics::token::Token;
use crate::semantics::transition::apply;

/// A store after recovery; its epoch is durable.
pub(crate) struct Recovered {
    pub(crate) store: Store,
    pub(crate) journal: Journal,
    /// Records newer than the store file.
    pub(crate) records: HashMap<Versioned>,
    pub(crate) clock: EngineClock,
    pub(crate) incarnation: u64,
    pub(crate) epoch: u64,
    pub(crate) time: Time,
}

/// Recovers the store. Its secret must be `known`, if that is given.
///
/// Everything is read and verified before the first write. So a refused directory stays as it is,
/// whatever its fault, and opens once the fault is removed.
pub(crate) fn recover(
    options: &Options,
    home: &StoreDirectory,
    known: Option<&Secret>,
) -> Result<Recovered> {
    inspect(options, home, known)?.settle(options, home)
}

/// Reads the store, as [`recover`] does before it writes.
pub(crate) fn read(options: &Options, home: &StoreDirectory) -> Result<ReadStore> {
    let Inspected { store, journal: _, leftovers: _, rebuild, clock } =
        inspect(options, home, None)?;
    let Rebuild { records, time, .. } = rebuild;
    let records = records.into_iter().collect();
    Ok(ReadStore { store, records, time, clock })
}

/// A store that was read and not touched.
pub(crate) struct ReadStore {
    pub(crate) store: InspectedStore,
    /// Records newer than the store file.
    pub(crate) records: BTreeMap<KeyHash, Versioned>,
    /// The latest time in the store.
    pub(crate) time: Time,
    pub(crate) clock: EngineClock,
}

/// A directory that was read and verified, and not touched.
struct Inspected {
    store: InspectedStore,
    journal: journal::Inspected,
    leftovers: Leftovers,
    rebuild: Rebuild,
    clock: EngineClock,
}

fn inspect(options: &Options, home: &StoreDirectory, known: Option<&Secret>) -> Result<Inspected> {
    let mut store =
        Store::inspect(&home.handle, options.store_cache_bytes(), options.open_files())?;
    let state = store.state();
    if known.is_some_and(|known| *known != state.secret) {
        let message = format!("another store lies in {}; open it anew", home.path.display());
        return Err(Error::new(ErrorKind::StoreForeign, message));
    }
    let mut rebuild = Rebuild {
        incarnation: state.incarnation,
        carried: store.view().open_records()?.into_iter().collect(),
        records: HashMap::default(),
        epoch: state.epoch,
        time: state.time,
    };
    let journal = journal::inspect(
        &home.handle,
        state.journal_id(),
        options.segment_sizes(),
        state.journal_start(),
        &mut |header, sequence, entry| rebuild.replay(header.epoch, header.time, sequence, entry),
    )?;
    let leftovers = store.leftovers(journal.last_sequence())?;
    let max_gap = (!options.accept_clock_jump).then_some(options.max_clock_gap);
    let clock = EngineClock::start(options.clock.clone(), Some(rebuild.time), max_gap)?;
    // The state once the new epoch is durable.
    let sequence = journal.last_sequence() + 1;
    store.state_reached(Reached { sequence, epoch: rebuild.epoch + 1 })?;
    Ok(Inspected { store, journal, leftovers, rebuild, clock })
}

impl Inspected {
    /// DURABLE: the journal as it was read comes first, then the new epoch in the journal. Then the
    /// store file is written, and only then is a file removed. After an error or a crash on the
    /// way, the next open recovers the directory.
    fn settle(self, options: &Options, home: &StoreDirectory) -> Result<Recovered> {
        let Self { store, journal, leftovers, mut rebuild, clock } = self;
        let dir = &home.handle;
        let (mut journal, unfinished) = journal.settle()?;
        let (epoch, ended) = (rebuild.epoch + 1, rebuild.time);
        let time = clock.now().max(ended);
        let random = directory::random_number(options)?;
        let incarnation = Token::incarnation_after(rebuild.incarnation, time, random);
        if epoch == 1 {
            directory::make_names_durable(&options.disk, &home.path)?;
        }
        let sequence = journal.next_sequence();
        begin_epoch(&mut journal, epoch, time, ended, incarnation)?;
        rebuild.replay(epoch, time, sequence, Entry::Epoch { ended, incarnation })?;

        let store = store.settle()?;
        let removed = [unfinished.remove(&**dir)?, leftovers.remove(&**dir)?];
        if removed.contains(&true) {
            // A power loss must not bring a removed file back when only an earlier commit explains
            // it.
            let synced = dir.sync();
            synced.map_err(|error| Error::io("removing leftover files", error))?;
        }
        let records = rebuild.records;
        Ok(Recovered { store, journal, records, clock, incarnation, epoch, time })
    }
}

/// Makes the new epoch durable: only then may a token of it be issued.
fn begin_epoch(
    journal: &mut Journal,
    epoch: u64,
    time: Time,
    ended: Time,
    incarnation: u64,
) -> Result<()> {
    let mut group = Group::default();
    group.clear();
    group.push_epoch(ended, incarnation);
    if journal.make_room(&group) == Room::None {
        journal.pool().prepare()?;
        if journal.make_room(&group) == Room::None {
            return Err(Error::corrupted("a fresh journal segment has no room for one group"));
        }
    }
    journal.append(&mut group, epoch, time)?;
    journal.sync()
}

struct Rebuild {
    /// The incarnation of the epoch that is being replayed.
    incarnation: u64,
    /// Records in flight or orphaned, as the last fold wrote them.
    carried: HashMap<Versioned>,
    records: HashMap<Versioned>,
    epoch: u64,
    /// The latest time in the store.
    time: Time,
}

impl Rebuild {
    fn replay(&mut self, epoch: u64, time: Time, sequence: u64, entry: Entry) -> Result<()> {
        match entry {
            Entry::Epoch { ended, incarnation } => {
                self.incarnation = incarnation;
                self.orphan_all(epoch, sequence, ended)?;
            }
            Entry::Change(hash, change) => {
                self.apply(
                    hash,
                    &change,
                    Token { incarnation: self.incarnation, epoch, sequence },
                    time,
                )?;
            }
        }
        self.epoch = self.epoch.max(epoch);
        self.time = self.time.max(time);
        Ok(())
    }

    /// Makes orphans of the records in flight, because their epoch is over. An orphan dates from
    /// the end of the epoch, or from its deadline if that came first.
    fn orphan_all(&mut self, epoch: u64, sequence: u64, end: Time) -> Result<()> {
        let overridden = |hash: &KeyHash| self.records.contains_key(hash);
        let in_flight: Vec<_> = self
            .carried
            .iter()
            .filter(|(hash, _)| !overridden(hash))
            .chain(&self.records)
            .filter_map(|(hash, versioned)| Some((*hash, versioned.record.as_ref()?)))
            .filter(|(_, record)| record.is_in_flight())
            .map(|(hash, record)| (hash, record.deadline().map_or(end, |d| d.min(end))))
            .collect();
        for (hash, since) in in_flight {
            let at = Token { incarnation: self.incarnation, epoch, sequence };
            self.apply(hash, &Change::Orphan { since }, at, end)?;
        }
        Ok(())
    }

    fn apply(&mut self, hash: KeyHash, change: &Change, at: Token, time: Time) -> Result<()> {
        let known = self.records.get(&hash).or_else(|| self.carried.get(&hash));
        let base: Option<&Record> = known.and_then(|versioned| versioned.record.as_deref());
        let record = apply(base, change, at, time)
            .map_err(|_| {
                let sequence = at.sequence;
                Error::corrupted(format!("journal sequence {sequence} changes a missing record"))
            })?
            .map(std::sync::Arc::new);
        self.records.insert(hash, Versioned { sequence: at.sequence, record });
        Ok(())
    }
}
