//! The calls of callers, and their answers.

use super::*;

impl World {
    pub(super) fn heard(&mut self, at: usize, heard: Heard) {
        let Heard { id, key, command, outcome } = heard;
        self.processes[at].open -= 1;
        let (reply, record) = match outcome {
            Ok((reply, record, _)) => (reply, record),
            Err(error) => {
                let begins = command.starts_execution();
                if begins {
                    // The claim may have been granted. Then it is given back.
                    self.history.call(key, Call::Withdraw);
                }
                self.count("failed");
                return match (error.kind(), begins) {
                    (ErrorKind::OutcomeUnknown, _) | (_, true) => {
                        self.history.answer(id, Answer::Unknown)
                    }
                    (ErrorKind::Unavailable, false) => self.history.answer(id, Answer::Refused),
                    (kind, _) => panic!("{kind:?} {error}"),
                };
            }
        };
        if command.starts_execution() && !matches!(reply, Reply::Claimed) {
            let life = self.processes[at].life;
            let of_it = self.untold.values_mut().filter(|of| (of.life, of.key) == (life, key));
            of_it.for_each(|untold| untold.answered = true);
        }
        let handles = &mut self.processes[at].handles;
        let attempt = record.as_ref().and_then(|record| record.attempt().cloned());
        let (name, answer) = match reply {
            Reply::Claimed => {
                let attempt = attempt.expect("a claim has an attempt");
                if let Some(untold) = self.untold.remove(&attempt.token) {
                    self.history.answer(untold.begin, Answer::Refused);
                }
                handles.push(Handle::Claim(key, attempt.token));
                let checkpoint = attempt.checkpoint.as_ref().map(|saved| match saved {
                    Checkpoint::Here(bytes) => bytes[0],
                    Checkpoint::Stored(_) => panic!("a row holds its checkpoint"),
                });
                (
                    "claimed",
                    Answer::Claimed {
                        token: attempt.token,
                        attempt: attempt.number,
                        checkpoint: Some(checkpoint),
                    },
                )
            }
            Reply::Orphaned => {
                let token = attempt.expect("an orphan has an attempt").token;
                handles.push(Handle::Orphan(key, token));
                ("orphaned", Answer::Orphaned(token))
            }
            Reply::Replay => match &record.expect("a replay has a record").state {
                State::Completed(completed) => {
                    ("replay", Answer::Replay(completed.response.as_ref().expect("kept")[0]))
                }
                other => panic!("{other:?}"),
            },
            Reply::Locked => ("locked", Answer::Locked),
            Reply::Mismatch(_) => ("mismatch", Answer::Mismatch),
            Reply::Done => ("done", Answer::Done),
            Reply::Fenced => ("fenced", Answer::Fenced),
            Reply::AlreadyCompleted => ("already completed", Answer::AlreadyCompleted),
        };
        self.count(name);
        self.history.answer(id, answer);
    }

    fn submit(
        &mut self,
        at: usize,
        number: u8,
        call: Call<Token>,
        command: Command,
        wait: Option<Wait>,
    ) {
        let id = self.history.call(number, call.clone());
        let (key, inbox) = (key(number), self.processes[at].inbox.clone());
        let request = Request { hash: hash(&key), key, command: command.clone(), wait };
        let op = match call {
            // No caller gets the answer.
            Call::Drop { .. } => Operation::untold(request),
            _ => {
                self.processes[at].open += 1;
                Operation::telling(request, move |outcome| {
                    inbox.lock().unwrap().push(Heard { id, key: number, command, outcome });
                })
            }
        };
        self.handle(at, Some(Event::Submit(op)));
    }

    /// A caller makes a call.
    pub(super) fn call(&mut self, at: usize) {
        if self.processes[at].open >= 3 {
            return;
        }
        let held = self.processes[at].handles.len() as u64;
        if held > 0 && self.below(2) == 0 {
            let which = self.below(held) as usize;
            let handle = self.processes[at].handles.remove(which);
            return self.use_handle(at, handle);
        }
        let (number, body) = (self.below(u64::from(KEYS)) as u8, u8::from(self.below(12) == 0));
        let ttl = Duration::from_millis(self.plan.ttl);
        let command = Command::Begin { fingerprint: fingerprint(body), ttl, max_execution: None };
        let wait = (self.below(3) == 0).then(|| {
            self.waits += 1;
            let until = self.now() + Duration::from_millis(self.noise.next() % 800);
            Wait { until, number: self.waits }
        });
        self.submit(at, number, Call::Begin { body }, command, wait);
    }

    fn use_handle(&mut self, at: usize, handle: Handle) {
        let response = (self.noise.next() % 250) as u8;
        let data = SharedBytes::copy_of(&[response]);
        let complete = |token| Command::Complete { token, response: Some(data.clone()), ttl: None };
        let (number, call, command) = match (handle.clone(), self.below(8)) {
            (Handle::Claim(number, token), 0..=3) | (Handle::Orphan(number, token), 0..=1) => {
                (number, Call::Complete { token, response }, complete(token))
            }
            (Handle::Claim(number, token), 4) => {
                (number, Call::Abort { token }, Command::Abort { token })
            }
            (Handle::Claim(number, token), 5) => {
                (number, Call::Drop { token }, Command::OwnerGone { token })
            }
            (Handle::Claim(number, token), _) => {
                self.processes[at].handles.push(handle);
                let call = Call::Checkpoint { token, data: response };
                (number, call, Command::Checkpoint { token, data: data.clone() })
            }
            (Handle::Orphan(number, token), 2..=5) => {
                let command = Command::TakeOver { token, max_execution: None };
                (number, Call::TakeOver { token }, command)
            }
            (Handle::Orphan(number, token), _) => {
                (number, Call::Release { token }, Command::Release { token })
            }
        };
        self.submit(at, number, call, command, None);
    }
}
