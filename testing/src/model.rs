//! The state machine written a second time, as plainly as possible, to compare the engine with.

use std::collections::BTreeMap;

/// The answer of the model to a begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The right to execute, with the model's token.
    Claimed(u64),
    /// The response, `None` when it was not kept.
    Replay(Option<u8>),
    /// A claim is in flight.
    Locked,
    /// The key belongs to another request.
    Mismatch,
    /// An orphan, with the token that settles it.
    Orphaned(u64),
}

/// Why the model refuses a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The token is not the newest, or no record is stored.
    Fenced,
    /// The record was completed before.
    AlreadyCompleted,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    InFlight {
        deadline: Option<u64>,
    },
    /// `overdue`: an orphan only by its deadline; the owner lives.
    Orphan {
        since: u64,
        overdue: bool,
    },
    Completed {
        expires: u64,
        response: Option<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    body: u8,
    token: u64,
    attempt: u32,
    checkpoint: Option<u8>,
    state: State,
}

impl Entry {
    fn orphan_at(&mut self, now: u64) {
        let since = match self.state {
            State::InFlight { .. } => now,
            State::Orphan { since, .. } => since,
            State::Completed { .. } => return,
        };
        self.state = State::Orphan { since, overdue: false };
    }
}

/// The records of a store. Keys, bodies, responses and checkpoints are single bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Model {
    /// The time in milliseconds.
    pub now: u64,
    ttl: u64,
    max_execution: Option<u64>,
    tokens: u64,
    entries: BTreeMap<u8, Entry>,
}

impl Model {
    /// An empty store. The times are in milliseconds.
    pub fn new(ttl: u64, max_execution: Option<u64>) -> Self {
        Self { now: 0, ttl, max_execution, tokens: 0, entries: BTreeMap::new() }
    }

    /// The entry as it counts now: an expired one is absent, an overdue claim is an orphan. The
    /// entry stays in the map, since a restart may turn time back to the last time that was stored.
    fn entry(&mut self, key: u8) -> Option<&mut Entry> {
        let (now, ttl) = (self.now, self.ttl);
        let entry = self.entries.get_mut(&key)?;
        if let State::InFlight { deadline: Some(deadline) } = entry.state
            && now >= deadline
        {
            entry.state = State::Orphan { since: deadline, overdue: true };
        }
        let expires = match entry.state {
            State::InFlight { .. } => u64::MAX,
            State::Orphan { since, .. } => since + ttl,
            State::Completed { expires, .. } => expires,
        };
        if now >= expires { None } else { self.entries.get_mut(&key) }
    }

    fn claim(&mut self, key: u8, body: u8, attempt: u32, checkpoint: Option<u8>) -> u64 {
        self.tokens += 1;
        let deadline = self.max_execution.map(|limit| self.now + limit);
        let state = State::InFlight { deadline };
        self.entries.insert(key, Entry { body, token: self.tokens, attempt, checkpoint, state });
        self.tokens
    }

    /// See `Engine::begin`.
    pub fn begin(&mut self, key: u8, body: u8) -> Begun {
        match self.entry(key) {
            None => Begun::Claimed(self.claim(key, body, 1, None)),
            Some(entry) if entry.body != body => Begun::Mismatch,
            Some(entry) => match entry.state {
                State::InFlight { .. } => Begun::Locked,
                State::Orphan { .. } => Begun::Orphaned(entry.token),
                State::Completed { response, .. } => Begun::Replay(response),
            },
        }
    }

    /// The entry, when `token` is its newest and it is not completed.
    fn owned(&mut self, key: u8, token: u64) -> Result<&mut Entry, Refused> {
        match self.entry(key) {
            Some(Entry { state: State::Completed { .. }, .. }) => Err(Refused::AlreadyCompleted),
            Some(entry) if entry.token == token => Ok(entry),
            _ => Err(Refused::Fenced),
        }
    }

    fn orphan(&mut self, key: u8, token: u64) -> Result<&mut Entry, Refused> {
        match self.owned(key, token)? {
            entry @ Entry { state: State::Orphan { .. }, .. } => Ok(entry),
            _ => Err(Refused::Fenced),
        }
    }

    /// See `Claim::complete_with` and `Orphan::complete`.
    pub fn complete(
        &mut self,
        key: u8,
        token: u64,
        response: Option<u8>,
        ttl: Option<u64>,
    ) -> Result<(), Refused> {
        let expires = self.now + ttl.unwrap_or(self.ttl);
        if let Some(Entry { state: State::Completed { response: kept, .. }, token: by, .. }) =
            self.entry(key)
            && (*by, *kept) == (token, response)
        {
            // The same end, sent again.
            return Ok(());
        }
        self.owned(key, token)?.state = State::Completed { expires, response };
        Ok(())
    }

    /// See `Claim::abort`.
    pub fn abort(&mut self, key: u8, token: u64) -> Result<(), Refused> {
        let now = self.now;
        let entry = self.owned(key, token)?;
        entry.orphan_at(now);
        if entry.attempt == 1 {
            self.entries.remove(&key);
        }
        Ok(())
    }

    /// See `Claim::checkpoint`.
    pub fn checkpoint(&mut self, key: u8, token: u64, data: u8) -> Result<(), Refused> {
        let entry = self.owned(key, token)?;
        if matches!(entry.state, State::Orphan { overdue: false, .. }) {
            return Err(Refused::Fenced);
        }
        entry.checkpoint = Some(data);
        Ok(())
    }

    /// Does what the drop of a `Claim` does.
    pub fn owner_gone(&mut self, key: u8, token: u64) {
        let now = self.now;
        if let Ok(entry) = self.owned(key, token) {
            entry.orphan_at(now);
        }
    }

    /// Notes the end of the instance that holds the claim of `key`, if a claim is in flight. The
    /// claim counts as an orphan from now on; an owner that still lives may end it.
    pub fn lapse(&mut self, key: u8) {
        let now = self.now;
        if let Some(entry) = self.entry(key)
            && let State::InFlight { deadline } = &mut entry.state
        {
            *deadline = Some(deadline.map_or(now, |deadline| deadline.min(now)));
        }
    }

    /// See `Orphan::take_over`: the new token, the attempt, the last checkpoint.
    pub fn take_over(&mut self, key: u8, token: u64) -> Result<(u64, u32, Option<u8>), Refused> {
        let Entry { body, attempt, checkpoint, .. } = *self.orphan(key, token)?;
        Ok((self.claim(key, body, attempt + 1, checkpoint), attempt + 1, checkpoint))
    }

    /// See `Orphan::release`.
    pub fn release(&mut self, key: u8, token: u64) -> Result<(), Refused> {
        self.orphan(key, token)?;
        self.entries.remove(&key);
        Ok(())
    }

    /// Ends the process and opens the store again: every claim becomes an orphan, since `end`.
    pub fn restart(&mut self, end: u64) {
        for key in self.entries.keys().copied().collect::<Vec<_>>() {
            if let Some(entry) = self.entry(key) {
                entry.orphan_at(end);
            }
        }
    }

    /// The answer to a begin of the same request, without a change of the model.
    pub fn stored(&mut self, key: u8) -> Begun {
        let body = self.entry(key).map_or(0, |entry| entry.body);
        self.clone().begin(key, body)
    }

    /// The token of a claim in flight.
    pub fn in_flight(&mut self, key: u8) -> Option<u64> {
        self.entry(key)
            .filter(|entry| matches!(entry.state, State::InFlight { .. }))
            .map(|entry| entry.token)
    }

    /// The token of a claim that its owner may still end: in flight, or overdue while the owner
    /// lives.
    pub fn held(&mut self, key: u8) -> Option<u64> {
        self.entry(key)
            .filter(|entry| {
                matches!(entry.state, State::InFlight { .. } | State::Orphan { overdue: true, .. })
            })
            .map(|entry| entry.token)
    }

    /// Whether the record of this claim has expired and no other record took its place.
    pub fn has_expired(&self, key: u8, token: u64) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.token == token)
            && self.clone().entry(key).is_none()
    }

    /// The tokens of all orphans, by key.
    pub fn orphans(&mut self) -> BTreeMap<u8, u64> {
        let keys: Vec<_> = self.entries.keys().copied().collect();
        keys.into_iter()
            .filter_map(|key| match self.entry(key) {
                Some(Entry { state: State::Orphan { .. }, token, .. }) => Some((key, *token)),
                _ => None,
            })
            .collect()
    }
}
