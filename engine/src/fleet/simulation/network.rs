//! Requests on their way to the store, and answers on their way back.

use super::*;

impl World {
    /// A message arrives.
    pub(super) fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let which = self.below(self.messages.len() as u64) as usize;
        let (at, life, message) = self.messages.swap_remove(which);
        let lives = self.processes[at].life == life;
        match message {
            Message::Answer(_) if !lives => {}
            Message::Answer(event) if self.processes[at].paused => {
                self.messages.push((at, life, Message::Answer(event)));
            }
            Message::Answer(Event::GroupDone(lane, Ok(answer))) if self.plan.reads_later => {
                let answer = self.read_later(at, lane, answer);
                self.handle(at, Some(Event::GroupDone(lane, Ok(answer))));
            }
            Message::Answer(event) => self.handle(at, Some(event)),
            Message::Stray(group) => drop(self.group(life, &group)),
            Message::Request(action) => self.request(at, life, action),
        }
    }

    /// The answer of a store that carries a group out first and then reads the rows that it met.
    fn read_later(&self, at: usize, lane: usize, mut answer: GroupAnswer) -> GroupAnswer {
        let met: Vec<_> = answer.found.rows.iter().map(|row| row.hash).collect();
        answer.found = self.store.read(&met);
        if let Some(group) = &self.processes[at].machine.groups[lane] {
            answer.ended |= self.store.has_ended(group.instance);
        }
        answer
    }

    fn request(&mut self, at: usize, life: usize, action: Action) {
        let fate = if self.calm { 99 } else { self.below(100) };
        let lost = self.plan.lost;
        let unknown = || Failure::Unknown(Error::new(ErrorKind::Unavailable, "lost"));
        let refused = || Failure::NotCarriedOut(Error::new(ErrorKind::Unavailable, "not now"));
        if let Action::Group(group) = &action
            && fate < 2 * lost
        {
            if fate < lost {
                // It may still arrive, within its time.
                self.messages.push((at, life, Message::Stray(group.clone())));
            } else {
                self.execute(life, &action);
            }
            let answer = Event::GroupDone(group.lane, Err(unknown()));
            self.messages.push((at, life, Message::Answer(answer)));
            return;
        }
        let event = match fate < 3 * lost {
            true => match &action {
                Action::Group(group) => Event::GroupDone(group.lane, Err(refused())),
                Action::Read(..) => Event::ReadDone(Err(refused())),
                Action::Renew(_) => Event::Renewed(Err(refused())),
                Action::Register(_) => Event::Registered(Err(refused())),
                Action::End(..) => Event::Ended,
                Action::Upkeep(_) | Action::Answer(_) => return,
            },
            false => match self.execute(life, &action) {
                Some(event) => event,
                None => return,
            },
        };
        self.messages.push((at, life, Message::Answer(event)));
    }

    /// Carries a group out. A claim that is never told is a begin that may have happened, and an
    /// abort.
    fn group(&mut self, life: usize, group: &Group) -> Option<GroupAnswer> {
        let hashes: Vec<_> = group.images.iter().map(|image| image.hash).collect();
        let before = self.store.read(&hashes);
        let answer = self.store.group(group)?;
        for applied in &answer.applied {
            let image = group.images.iter().find(|image| image.hash == applied.hash).unwrap();
            let number = (0..KEYS).find(|n| hash(&key(*n)) == KeyHash(applied.hash)).unwrap();
            if image.grants && image.attempt == 1 {
                let stored = image.fingerprint.clone().unwrap();
                let body = u8::from(stored != fingerprint(0).to_stored().shared_bytes());
                let begin = self.history.call(number, Call::Begin { body });
                let untold = Untold { life, key: number, begin, answered: false };
                self.untold.insert(token(1, applied.version), untold);
            }
            let row = before.rows.iter().find(|row| row.hash == applied.hash);
            if let Some(row) = row
                && !image.grants
                && row.writer == image.writer
                && matches!(image.state, RowState::Free | RowState::Orphan)
            {
                // The claim was told to no caller, or to callers that met it as an orphan.
                self.history.call(number, Call::Withdraw);
                let token = token(1, row.token);
                if self.untold.remove(&token).is_some() || self.forgotten.remove(&token) {
                    self.history.call(number, Call::Abort { token });
                }
            }
        }
        Some(answer)
    }

    fn execute(&mut self, life: usize, action: &Action) -> Option<Event> {
        Some(match action {
            Action::Group(group) => {
                self.store.locked = match self.noise.next() % 10 {
                    0 if !self.calm => group.images.first().map(|image| image.hash),
                    _ => None,
                };
                let late = || Failure::NotCarriedOut(Error::new(ErrorKind::Unavailable, "late"));
                Event::GroupDone(group.lane, self.group(life, group).ok_or_else(late))
            }
            Action::Read(_, hashes) => Event::ReadDone(Ok(self.store.read(hashes))),
            Action::Renew(id) => Event::Renewed(Ok(self.store.renew(*id))),
            Action::Register(NewInstance { name, lease, .. }) => {
                let lease = lease.as_millis() as u64;
                Event::Registered(Ok(self.store.register(name, lease)))
            }
            Action::End(by, others) => {
                let ended = self.store.end(*by, others);
                for owner in &ended {
                    self.count("declared");
                    for held in self.store.held_by(*owner) {
                        let number = (0..KEYS).find(|n| hash(&key(*n)) == KeyHash(held)).unwrap();
                        let id = self.history.call(number, Call::Lapse);
                        self.history.answer(id, Answer::Done);
                    }
                }
                Event::Ended
            }
            Action::Upkeep(_) | Action::Answer(_) => return None,
        })
    }
}
