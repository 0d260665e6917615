//! One operation of a completion queue, from its submission to its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use oncekey::{Begin, Pending};

use crate::abi::answer::Answer;
use crate::abi::status::ONCEKEY_CANCELLED;
use crate::abi::submission::*;
use crate::abi::types::Error;
use crate::boundary::convert::Caller;
use crate::boundary::failure::Failure;
use crate::boundary::report;
use crate::objects::claim::{self, CLAIMS};
use crate::objects::ending::Ending;
use crate::objects::engine;
use crate::objects::fingerprint::{self, FINGERPRINTS};
use crate::objects::orphan::ORPHANS;

const KNOWN_FLAGS: u32 = ONCEKEY_NO_RESPONSE | ONCEKEY_FREE_FINGERPRINT | ONCEKEY_FINGERPRINT_PARTS;

/// A submitted operation that no poll has returned yet, or the place for one. The struct is large, so it
/// stays in its box from submission to completion. Dropping it leaves no claim behind: a claim that it won,
/// or would have won, is aborted.
pub(crate) struct Outstanding {
    pub(crate) user_data: u64,
    pub(crate) op: u32,
    /// The index of the slot, which serves one operation after the other.
    pub(crate) index: u32,
    waker: Waker,
    progress: Progress,
}

enum Progress {
    Begin(Pending<Begin>),
    Complete(Ending<oncekey::Completion, oncekey::Claim>),
    Abort(Ending<(), oncekey::Claim>),
    Checkpoint(Pending<()>),
    TakeOver(Ending<oncekey::Claim, oncekey::Orphan>),
    OrphanComplete(Ending<oncekey::Completion, oncekey::Orphan>),
    Release(Ending<(), oncekey::Orphan>),
    /// `None` after the answer was handed out.
    Answered(Option<Result<Answered, Failure>>),
}

/// The result of an operation.
enum Answered {
    Begin(Begin),
    /// 1 when the response is kept, else 0.
    Completed(u32),
    Done,
}

impl Outstanding {
    /// A place for operations. Each of them wakes `waker` when it has an answer.
    pub(crate) fn vacant(index: u32, waker: Waker) -> Self {
        Self { user_data: 0, op: 0, index, waker, progress: Progress::Answered(None) }
    }

    /// Submits an operation. If the submission is wrong, the failure becomes its answer.
    pub(crate) fn submit(
        &mut self,
        engine: &oncekey::Engine,
        caller: &Caller,
        submission: &Submission,
    ) {
        self.user_data = submission.user_data;
        self.op = submission.op;
        self.progress = Progress::start(engine, caller, submission)
            .unwrap_or_else(|failure| Progress::Answered(Some(Err(failure))));
        self.look();
    }

    /// Stores the answer if there is one. If not, the waker is woken later.
    pub(crate) fn look(&mut self) {
        if let Poll::Ready(answered) = self.poll() {
            self.progress = Progress::Answered(Some(answered));
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        matches!(self.progress, Progress::Answered(Some(_)))
    }

    /// Ends the wait of a begin that has no answer, here and in the engine.
    pub(crate) fn cancel(&mut self) {
        if matches!(self.progress, Progress::Begin(_)) {
            let cancelled = Failure::new(ONCEKEY_CANCELLED, "the begin was cancelled");
            self.progress = Progress::Answered(Some(Err(cancelled)));
        }
    }

    /// Hands out the answer if there is one. If not, the waker is woken later.
    pub(crate) fn completion(&mut self) -> Option<Completion> {
        let Poll::Ready(answered) = self.poll() else { return None };
        let mut completion = Completion {
            user_data: self.user_data,
            status: 0,
            op: self.op,
            error: Error { id: 0 },
            kept: 0,
            reserved: 0,
            answer: Answer::NONE,
        };
        let filled = answered.and_then(|answered| {
            match answered {
                Answered::Begin(begin) => completion.answer = Answer::from_begin(begin)?,
                Answered::Completed(kept) => completion.kept = kept,
                Answered::Done => {}
            }
            Ok(())
        });
        if let Err(failure) = filled {
            completion.status = failure.status();
            completion.error = report::keep(&failure);
        }
        Some(completion)
    }

    fn poll(&mut self) -> Poll<Result<Answered, Failure>> {
        self.progress.poll(&mut Context::from_waker(&self.waker))
    }
}

impl Drop for Outstanding {
    /// A `Pending` aborts a claim inside it. A claim that has left its `Pending` is aborted here.
    fn drop(&mut self) {
        let progress = std::mem::replace(&mut self.progress, Progress::Answered(None));
        if let Progress::Answered(Some(Ok(Answered::Begin(Begin::Claimed(claim))))) = progress {
            drop(claim.abort());
        }
    }
}

/// The fingerprint of a begin: made from its parts, or copied from or taken out of its handle, as the flags
/// say.
fn fingerprint(caller: &Caller, submission: &Submission) -> Result<oncekey::Fingerprint, Failure> {
    let id = submission.fingerprint.id;
    if submission.flags & ONCEKEY_FINGERPRINT_PARTS != 0 {
        fingerprint::of_parts(caller, submission.parts, submission.part_count)
    } else if submission.flags & ONCEKEY_FREE_FINGERPRINT == 0 {
        FINGERPRINTS.get(id)
    } else {
        FINGERPRINTS.remove(id)?.ok_or_else(|| Failure::invalid("there is no fingerprint"))
    }
}

fn check_flags(submission: &Submission) -> Result<(), Failure> {
    if submission.flags & !KNOWN_FLAGS == 0 {
        Ok(())
    } else {
        Err(Failure::invalid("the submission has flags that this library does not know"))
    }
}

impl Progress {
    fn start(
        engine: &oncekey::Engine,
        caller: &Caller,
        submission: &Submission,
    ) -> Result<Self, Failure> {
        if submission.op == ONCEKEY_OP_BEGIN {
            // Take the fingerprint first: its handle must be freed even if the begin fails.
            let fingerprint = fingerprint(caller, submission);
            check_flags(submission)?;
            let key = caller.key(submission.key)?;
            let pending = engine::begin(engine, &key, fingerprint?, submission.max_wait_ms);
            return Ok(Self::Begin(pending));
        }
        check_flags(submission)?;
        let claim = submission.claim.id;
        let orphan = submission.orphan.id;
        let data = || caller.bytes(submission.data, "the data");
        Ok(match submission.op {
            ONCEKEY_OP_COMPLETE => {
                let kept = submission.flags & ONCEKEY_NO_RESPONSE == 0;
                let response = if kept { Some(data()?) } else { None };
                let ttl = claim::ttl(submission.ttl_ms);
                let submit = |claim: oncekey::Claim| claim.complete_with(response, ttl);
                Self::Complete(Ending::submit(&CLAIMS, claim, submit)?)
            }
            ONCEKEY_OP_ABORT => Self::Abort(Ending::submit(&CLAIMS, claim, oncekey::Claim::abort)?),
            ONCEKEY_OP_CHECKPOINT => Self::Checkpoint(claim::checkpoint(claim, data()?)?),
            ONCEKEY_OP_TAKE_OVER => {
                Self::TakeOver(Ending::submit(&ORPHANS, orphan, oncekey::Orphan::take_over)?)
            }
            ONCEKEY_OP_ORPHAN_COMPLETE => {
                let response = data()?;
                let submit = |orphan: oncekey::Orphan| orphan.complete(response);
                Self::OrphanComplete(Ending::submit(&ORPHANS, orphan, submit)?)
            }
            ONCEKEY_OP_RELEASE => {
                Self::Release(Ending::submit(&ORPHANS, orphan, oncekey::Orphan::release)?)
            }
            other => return Err(Failure::invalid(format!("there is no operation {other}"))),
        })
    }

    /// The answer, handed out once. If there is none yet, the task is woken later.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Answered, Failure>> {
        let answered = match self {
            Self::Begin(pending) => {
                ready!(Pin::new(pending).poll(context)).map(Answered::Begin).map_err(Failure::from)
            }
            Self::Checkpoint(pending) => {
                let saved = ready!(Pin::new(pending).poll(context));
                saved.map(|()| Answered::Done).map_err(Failure::from)
            }
            Self::Complete(ending) => ready!(ending.poll(context)).map(completed),
            Self::OrphanComplete(ending) => ready!(ending.poll(context)).map(completed),
            Self::Abort(ending) => ready!(ending.poll(context)).map(|()| Answered::Done),
            Self::Release(ending) => ready!(ending.poll(context)).map(|()| Answered::Done),
            Self::TakeOver(ending) => {
                ready!(ending.poll(context)).map(|claim| Answered::Begin(Begin::Claimed(claim)))
            }
            Self::Answered(answered) => {
                return answered.take().map_or(Poll::Pending, Poll::Ready);
            }
        };
        *self = Self::Answered(None);
        Poll::Ready(answered)
    }
}

fn completed(completion: oncekey::Completion) -> Answered {
    Answered::Completed(claim::is_kept(completion))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::types::Fingerprint;
    use crate::boundary::convert::Caller;

    /// A claim that left its `Pending` while it was submitted, and that no poll returned.
    #[test]
    fn an_answered_claim_that_nobody_received_is_aborted() {
        let directory = tempfile::tempdir().unwrap();
        let engine = oncekey::Engine::open(directory.path()).unwrap();
        let parts = oncekey::Fingerprint::builder().part("body", "b").finish();
        let fingerprint = Fingerprint { id: FINGERPRINTS.insert(parts.clone()).unwrap() };
        let submission = Submission::begin(b"k", fingerprint);
        // SAFETY: the submission points to static memory.
        let caller = unsafe { Caller::new() };
        let mut operation = Outstanding::vacant(0, Waker::noop().clone());
        operation.submit(&engine, &caller, &submission);
        while !operation.is_answered() {
            std::thread::yield_now();
            operation.look();
        }
        drop(operation);
        let key = oncekey::Key::new("", "k").unwrap();
        match engine.begin_waiting(&key, parts, std::time::Duration::from_secs(60)).wait().unwrap()
        {
            Begin::Claimed(claim) => assert_eq!(claim.attempt(), 1),
            other => panic!("the key is not free: {other:?}"),
        }
        assert_eq!(engine.stats().abandoned, 0);
    }
}
