//! From a store directory to the records as they were acknowledged: what the store file carries,
//! then the journal's changes on top of it, then a new epoch.

use crate::base::error::{Error, Result};
use crate::embedded::clock::EngineClock;
use crate::embedded::directory::{self, StoreDirectory};
use crate::embedded::journal::{self, Entry, Group, Journal, JournalId, Room, Start};
use crate::embedded::options::Options;
use crate::embedded::store::Store;
use crate::semantics::command::Change;
use crate::semantics::key::{HashMap, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::record::Versioned;
use crate::semantics::time::Time;
use crate::semantics::token::Token;
use crate::semantics::transition::apply;

/// The state of a store after recovery; its epoch is durable.
pub(crate) struct Recovered {
    pub(crate) journal: Journal,
    /// Records newer than the store file.
    pub(crate) records: HashMap<Versioned>,
    pub(crate) clock: EngineClock,
    pub(crate) epoch: u64,
    pub(crate) time: Time,
}

pub(crate) fn recover(
    options: &Options,
    home: &StoreDirectory,
    store: &Store,
) -> Result<Recovered> {
    let state = store.state();
    let mut rebuild = Rebuild {
        incarnation: state.incarnation,
        carried: store.view().open_records()?.into_iter().collect(),
        records: HashMap::default(),
        epoch: state.epoch,
        time: state.time,
    };
    let start = Start {
        position: state.replay_from,
        next_sequence: state.folded_through + 1,
        epoch: state.epoch,
    };
    let mut journal = journal::recover(
        &home.handle,
        JournalId::new(state.incarnation, &state.secret),
        options.segment_bytes,
        start,
        &mut |header, sequence, entry| rebuild.replay(header.epoch, header.time, sequence, entry),
    )?;

    let max_gap = (!options.accept_clock_jump).then_some(options.max_clock_gap);
    let clock = EngineClock::start(options.clock.clone(), Some(rebuild.time), max_gap)?;
    let (epoch, time) = (rebuild.epoch + 1, clock.now().max(rebuild.time));
    let sequence = journal.next_sequence();
    let ended = rebuild.time;
    if epoch == 1 {
        directory::make_names_durable(&options.disk, &home.path)?;
    }
    begin_epoch(&mut journal, epoch, time, ended)?;
    rebuild.replay(epoch, time, sequence, Entry::Epoch { ended })?;
    Ok(Recovered { journal, records: rebuild.records, clock, epoch, time })
}

/// Makes the new epoch durable: only then may a token of it be issued.
fn begin_epoch(journal: &mut Journal, epoch: u64, time: Time, ended: Time) -> Result<()> {
    let mut group = Group::default();
    group.clear();
    group.push_epoch(ended);
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
    incarnation: u64,
    /// In flight or orphaned, as the last fold wrote them.
    carried: HashMap<Versioned>,
    records: HashMap<Versioned>,
    epoch: u64,
    /// The last time that the store holds.
    time: Time,
}

impl Rebuild {
    fn replay(&mut self, epoch: u64, time: Time, sequence: u64, entry: Entry) -> Result<()> {
        match entry {
            Entry::Epoch { ended } => self.orphan_all(epoch, sequence, ended)?,
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

    /// In flight with an older epoch is an orphan, dated by that epoch's end.
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
