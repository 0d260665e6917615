//! One operation of a completion queue, from its submission to its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use oncekey::{Begin, Pending};

use crate::answer::Answer;
use crate::begin;
use crate::claim::{self, CLAIMS};
use crate::convert::Caller;
use crate::ending::Ending;
use crate::error::Failure;
use crate::fingerprint::{self, FINGERPRINTS};
use crate::orphan::ORPHANS;
use crate::status::ONCEKEY_CANCELLED;
use crate::submission::*;
use crate::types::Error;

const KNOWN_FLAGS: u32 = ONCEKEY_NO_RESPONSE | ONCEKEY_FREE_FINGERPRINT | ONCEKEY_FINGERPRINT_PARTS;

/// An operation that was submitted and not polled yet. Dropped, it leaves no claim behind: one that
/// was won, or would have been, is aborted.
pub(crate) struct Outstanding {
    pub(crate) user_data: u64,
    pub(crate) op: u32,
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
    Answered(Result<Answered, Failure>),
    Polled,
}

/// What an operation came to.
enum Answered {
    Begin(Begin),
    /// Whether the response is kept.
    Completed(u32),
    Done,
}

impl Outstanding {
    /// Submits an operation. Whatever is wrong with it is its answer.
    pub(crate) fn submit(
        engine: &oncekey::Engine,
        caller: &Caller,
        submission: &Submission,
    ) -> Self {
        let fingerprint = fingerprint(caller, submission);
        let progress = Progress::start(engine, caller, submission, fingerprint)
            .unwrap_or_else(|failure| Progress::Answered(Err(failure)));
        Self { user_data: submission.user_data, op: submission.op, progress }
    }

    /// Whether the answer is there; otherwise `waker` is woken when it is.
    pub(crate) fn is_answered(&mut self, waker: &Waker) -> bool {
        let mut context = Context::from_waker(waker);
        let progress = std::mem::replace(&mut self.progress, Progress::Polled);
        self.progress = progress.advance(&mut context);
        matches!(self.progress, Progress::Answered(_))
    }

    /// Ends the wait of a begin without an answer, here and in the engine.
    pub(crate) fn cancel(&mut self) {
        if matches!(self.progress, Progress::Begin(_)) {
            let cancelled = Failure::new(ONCEKEY_CANCELLED, "the begin was cancelled");
            self.progress = Progress::Answered(Err(cancelled));
        }
    }

    /// Hands the answer out, once there is one.
    pub(crate) fn completion(mut self) -> Completion {
        let mut completion = Completion {
            user_data: self.user_data,
            status: 0,
            op: self.op,
            error: Error { id: 0 },
            kept: 0,
            reserved: 0,
            answer: Answer::ABSENT,
        };
        let progress = std::mem::replace(&mut self.progress, Progress::Polled);
        let answered = match progress {
            Progress::Answered(answered) => answered,
            _ => Err(Failure::invalid("the operation has no answer yet")),
        };
        let failure = match answered {
            Ok(Answered::Begin(begin)) => match Answer::from_begin(begin) {
                Ok(answer) => {
                    completion.answer = answer;
                    return completion;
                }
                Err(failure) => failure,
            },
            Ok(Answered::Completed(kept)) => {
                completion.kept = kept;
                return completion;
            }
            Ok(Answered::Done) => return completion,
            Err(failure) => failure,
        };
        completion.status = failure.status();
        completion.error = failure.to_handle();
        completion
    }
}

impl Drop for Outstanding {
    /// A claim inside a [`Pending`] is aborted by that; one that came out of it already, here.
    fn drop(&mut self) {
        let progress = std::mem::replace(&mut self.progress, Progress::Polled);
        if let Progress::Answered(Ok(Answered::Begin(Begin::Claimed(claim)))) = progress {
            drop(claim.abort());
        }
    }
}

/// The fingerprint of a begin: made of its parts, or taken out of its handle, when the submission says
/// so, whatever becomes of the begin.
fn fingerprint(caller: &Caller, submission: &Submission) -> Result<oncekey::Fingerprint, Failure> {
    let id = submission.fingerprint.id;
    if submission.op != ONCEKEY_OP_BEGIN {
        Err(Failure::invalid("only a begin has a fingerprint"))
    } else if submission.flags & ONCEKEY_FINGERPRINT_PARTS != 0 {
        fingerprint::of_parts(caller, submission.parts, submission.part_count)
    } else if submission.flags & ONCEKEY_FREE_FINGERPRINT == 0 {
        FINGERPRINTS.get(id)
    } else {
        FINGERPRINTS.remove(id)?.ok_or_else(|| Failure::invalid("there is no fingerprint"))
    }
}

impl Progress {
    fn start(
        engine: &oncekey::Engine,
        caller: &Caller,
        submission: &Submission,
        fingerprint: Result<oncekey::Fingerprint, Failure>,
    ) -> Result<Self, Failure> {
        if submission.flags & !KNOWN_FLAGS != 0 {
            return Err(Failure::invalid(
                "the submission has flags that this library does not know",
            ));
        }
        let claim = submission.claim.id;
        let orphan = submission.orphan.id;
        let data = || caller.bytes(submission.data, "the data");
        Ok(match submission.op {
            ONCEKEY_OP_BEGIN => {
                let key = caller.key(submission.key)?;
                let fingerprint = fingerprint?;
                Self::Begin(begin::submit(engine, &key, fingerprint, submission.max_wait_ms))
            }
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

    fn advance(self, context: &mut Context<'_>) -> Self {
        match self {
            Self::Begin(pending) => {
                poll(pending, context, Self::Begin, |answer| Ok(Answered::Begin(answer?)))
            }
            Self::Checkpoint(pending) => poll(pending, context, Self::Checkpoint, |answer| {
                answer?;
                Ok(Answered::Done)
            }),
            Self::Complete(ending) => end(ending, context, Self::Complete, completed),
            Self::OrphanComplete(ending) => end(ending, context, Self::OrphanComplete, completed),
            Self::Abort(ending) => end(ending, context, Self::Abort, |()| Answered::Done),
            Self::Release(ending) => end(ending, context, Self::Release, |()| Answered::Done),
            Self::TakeOver(ending) => {
                end(ending, context, Self::TakeOver, |claim| Answered::Begin(Begin::Claimed(claim)))
            }
            Self::Answered(_) | Self::Polled => self,
        }
    }
}

fn completed(completion: oncekey::Completion) -> Answered {
    Answered::Completed(claim::is_kept(completion))
}

fn poll<T>(
    mut pending: Pending<T>,
    context: &mut Context<'_>,
    again: fn(Pending<T>) -> Progress,
    answer: fn(oncekey::Result<T>) -> Result<Answered, Failure>,
) -> Progress {
    match Pin::new(&mut pending).poll(context) {
        Poll::Pending => again(pending),
        Poll::Ready(answered) => Progress::Answered(answer(answered)),
    }
}

/// The same for an operation that consumes its handle.
fn end<T, H>(
    ending: Ending<T, H>,
    context: &mut Context<'_>,
    again: fn(Ending<T, H>) -> Progress,
    answer: fn(T) -> Answered,
) -> Progress {
    match ending.poll(context) {
        Err(ending) => again(ending),
        Ok(answered) => Progress::Answered(answered.map(answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Caller;
    use crate::types::Fingerprint;

    /// A claim that came out of its `Pending` while it was submitted, and that nobody polled.
    #[test]
    fn an_answered_claim_that_nobody_received_is_aborted() {
        let directory = tempfile::tempdir().unwrap();
        let engine = oncekey::Engine::open(directory.path()).unwrap();
        let parts = oncekey::Fingerprint::builder().part("body", "b").finish();
        let fingerprint = Fingerprint { id: FINGERPRINTS.insert(parts.clone()).unwrap() };
        let submission = Submission::begin(b"k", fingerprint);
        // SAFETY: the submission points to static memory.
        let caller = unsafe { Caller::new() };
        let mut operation = Outstanding::submit(&engine, &caller, &submission);
        while !operation.is_answered(Waker::noop()) {
            std::thread::yield_now();
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
