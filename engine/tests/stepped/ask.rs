//! The calls of callers, which wait for no answer and drop some of them.

use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use oncekey::{Begin, Claim, Failed, Lookup, Orphan, Pending};
use oncekey_testing::{Answer, Call, CallId};

use super::common::caller::{Token, claimed, failed};
use super::common::{self, body};
use super::{DAY, World};

/// The handle that an answer carries.
pub(crate) enum Handle {
    Claim(Claim),
    Orphan(Orphan),
    None,
}

pub(crate) type Told = (Answer<Token>, Handle);

/// A call under way.
pub(crate) struct Asked {
    pub(crate) key: u8,
    pub(crate) id: CallId,
    pub(crate) begins: bool,
    pub(crate) poll: Box<dyn FnMut() -> Option<Told>>,
}

fn poll<T, E: From<oncekey::Error>>(pending: &mut Pending<T, E>) -> Option<Result<T, E>> {
    match Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn ended<T, H>(result: Result<T, Failed<H>>, back: impl FnOnce(H) -> Handle) -> Told {
    match result {
        Ok(_) => (Answer::Done, Handle::None),
        Err(error) => {
            let kind = error.kind();
            (failed(kind), error.into_handle().map_or(Handle::None, back))
        }
    }
}

fn begun(result: oncekey::Result<Begin>) -> Told {
    match result {
        Ok(Begin::Claimed(claim)) => (claimed(&claim), Handle::Claim(claim)),
        Ok(Begin::Replay(recorded)) => {
            (Answer::Replay(recorded.response().unwrap()[0]), Handle::None)
        }
        Ok(Begin::Locked(_)) => (Answer::Locked, Handle::None),
        Ok(Begin::Mismatch(_)) => (Answer::Mismatch, Handle::None),
        Ok(Begin::Orphaned(orphan)) => {
            (Answer::Orphaned(orphan.token().to_bytes()), Handle::Orphan(orphan))
        }
        Err(error) => (failed(error.kind()), Handle::None),
    }
}

/// A response, short or long. Two responses differ if and only if their first bytes do.
fn body_of(response: u8) -> Vec<u8> {
    vec![response; 1 + 15 * usize::from(response)]
}

impl World<'_> {
    fn ask(
        &mut self,
        key: u8,
        call: Call<Token>,
        submit: impl FnOnce(&mut Self) -> Box<dyn FnMut() -> Option<Told>>,
    ) {
        let begins = matches!(call, Call::Begin { .. });
        let id = self.history.call(key, call);
        let poll = submit(self);
        self.asked.push(Asked { key, id, begins, poll });
        self.hear();
    }

    pub(crate) fn begin(&mut self) {
        let key = self.random.below(self.keys) as u8;
        // Few calls of a key at a time, since the search for their order is exponential in their
        // number.
        if self.asked.iter().filter(|asked| asked.key == key).count() >= 4 {
            return;
        }
        let other = self.random.below(8) == 0;
        let waits = self.random.below(4) == 0;
        self.ask(key, Call::Begin { body: u8::from(other) }, |world| {
            let (name, body) = (common::key([key]), body(if other { "b" } else { "a" }));
            let mut pending = match waits {
                true => world.engine.begin_waiting(&name, body, DAY),
                false => world.engine.begin(&name, body),
            };
            Box::new(move || poll(&mut pending).map(begun))
        });
    }

    pub(crate) fn end_claim(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let index = self.random.below(self.claims.len() as u64) as usize;
        let (key, claim) = self.claims.swap_remove(index);
        let token = claim.token().to_bytes();
        let response = self.random.below(256) as u8;
        match self.random.below(6) {
            0 => self.ask(key, Call::Abort { token }, |_| {
                let mut pending = claim.abort();
                Box::new(move || poll(&mut pending).map(|ended_as| ended(ended_as, Handle::Claim)))
            }),
            1 => {
                self.history.call(key, Call::Drop { token });
                drop(claim);
            }
            _ => self.ask(key, Call::Complete { token, response }, |_| {
                let mut pending = claim.complete(&body_of(response));
                Box::new(move || poll(&mut pending).map(|ended_as| ended(ended_as, Handle::Claim)))
            }),
        }
    }

    pub(crate) fn checkpoint(&mut self) {
        let Some((key, claim)) = self.claims.first() else { return };
        let (key, token, data) = (*key, claim.token().to_bytes(), self.random.below(256) as u8);
        self.ask(key, Call::Checkpoint { token, data }, |world| {
            let mut pending = world.claims[0].1.checkpoint(&[data]);
            Box::new(move || {
                poll(&mut pending).map(|saved| {
                    let answer = saved.map_or_else(|error| failed(error.kind()), |()| Answer::Done);
                    (answer, Handle::None)
                })
            })
        });
    }

    pub(crate) fn resolve(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let index = self.random.below(self.orphans.len() as u64) as usize;
        let (key, orphan) = self.orphans.swap_remove(index);
        let token = orphan.token().to_bytes();
        let response = self.random.below(256) as u8;
        match self.random.below(3) {
            0 => self.ask(key, Call::TakeOver { token }, |_| {
                let mut pending = orphan.take_over();
                Box::new(move || {
                    poll(&mut pending).map(|taken| match taken {
                        Ok(claim) => (claimed(&claim), Handle::Claim(claim)),
                        Err(error) => ended::<(), _>(Err(error), Handle::Orphan),
                    })
                })
            }),
            1 => self.ask(key, Call::Complete { token, response }, |_| {
                let mut pending = orphan.complete(&body_of(response));
                Box::new(move || poll(&mut pending).map(|done| ended(done, Handle::Orphan)))
            }),
            _ => self.ask(key, Call::Release { token }, |_| {
                let mut pending = orphan.release();
                Box::new(move || poll(&mut pending).map(|done| ended(done, Handle::Orphan)))
            }),
        }
    }

    pub(crate) fn get(&mut self) {
        let key = self.random.below(self.keys) as u8;
        let id = self.history.call(key, Call::Get);
        let answer = match self.engine.get(&common::key([key])) {
            Ok(Lookup::Absent) => Answer::Absent,
            Ok(Lookup::InFlight(_)) => Answer::Locked,
            Ok(Lookup::Orphaned(orphan)) => Answer::Orphaned(orphan.token().to_bytes()),
            Ok(Lookup::Completed(recorded)) => Answer::Replay(recorded.response().unwrap()[0]),
            Ok(other) => panic!("{other:?}"),
            Err(error) => failed(error.kind()),
        };
        if let Some(trace) = &mut self.trace {
            format!("{id:?} {answer:?}").hash(trace);
        }
        self.history.answer(id, answer);
    }

    /// Drops a future. Its change may still happen; a claim that no caller takes out is aborted.
    pub(crate) fn withdraw(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let index = self.random.below(self.asked.len() as u64) as usize;
        if !self.asked[index].begins {
            return;
        }
        self.met.withdrawn += 1;
        let Asked { key, id, poll, .. } = self.asked.swap_remove(index);
        self.withdrawn.push((id, self.history.call(key, Call::Withdraw)));
        drop(poll);
    }
}
