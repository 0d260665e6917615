//! The settings and counters that every request of one engine shares, and the decisions that depend on them:
//! which requests take part, how the outcome of `begin` is answered, how a claim ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oncekey::{Begin, Claim, Engine, Error, ErrorKind, Fingerprint, Key, Recorded};

use crate::attempt::Attempt;
use crate::contract::Contract;
use crate::key;
use crate::log;
use crate::policy::{Policy, Recovery};
use crate::reading::Intake;
use crate::recorded::StoredResponse;
use crate::rejection::Rejection;
use crate::running::Running;
use crate::stats::Counters;

/// How often a request tries to take over an orphan that other requests resolve first. After a failed try
/// another caller has made progress, so the next begin usually has another outcome.
const TAKE_OVER_TRIES: usize = 3;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) engine: Engine,
    pub(crate) contract: Contract,
    pub(crate) policy: Arc<Policy>,
    pub(crate) intake: Intake,
    pub(crate) counters: Arc<Counters>,
    pub(crate) running: Running,
}

/// The next step after `begin`, unless the request is refused.
#[derive(Debug)]
pub(crate) enum Begun {
    Claimed(Claim),
    Completed(Recorded),
}

/// The end of a claim, decided by the answer of the handler.
pub(crate) enum Verdict {
    Store(Bytes),
    NotStored,
    NotExecuted,
    /// Holds the reason, for the log.
    Unknown(&'static str),
    /// The handler completed the operation in a transaction of its own.
    Completed,
}

impl Config {
    /// The key of a request that takes part, before its body is read; `None` lets it pass.
    pub(crate) fn admit(&self, request: &http::request::Parts) -> Result<Option<Key>, Rejection> {
        let Self { contract, policy, .. } = self;
        if !contract.methods.contain(&request.method) {
            return Ok(None);
        }
        let outer = request.extensions.get::<Attempt>();
        let rejection = match key::parse(&request.headers, &contract.headers, contract.key_form) {
            Ok(Some(key)) => {
                let scope = policy.scope.as_ref().map(|scope| scope(request)).unwrap_or_default();
                match Key::new(scope, key) {
                    // The same key is held by a layer outside of this one, so a begin here would find it
                    // locked. A different key belongs to a request that a handler makes.
                    Ok(key) if outer.is_some_and(|outer| outer.is_under(&key)) => return Ok(None),
                    Ok(key) => {
                        self.look_for_unscoped_cookie(request);
                        return Ok(Some(key));
                    }
                    Err(error) => Rejection::InvalidInput(error.to_string()),
                }
            }
            Ok(None) if !policy.required || outer.is_some() => return Ok(None),
            Ok(None) => Rejection::MissingKey(contract.headers.first().cloned()),
            Err(invalid) => Rejection::InvalidKey(invalid),
        };
        self.counters.key_refused.add();
        Err(rejection)
    }

    /// Warns once when requests carry cookies and the policy has no scope: a cookie may identify a user, and
    /// the fingerprint does not include it.
    fn look_for_unscoped_cookie(&self, request: &http::request::Parts) {
        if self.policy.scope.is_none()
            && request.headers.contains_key(http::header::COOKIE)
            && self.counters.unscoped_cookies.add_first()
        {
            log::unscoped_cookie();
        }
    }

    /// Begins with the fingerprint that the closure computes. The closure runs again only when an orphan is
    /// contended for.
    pub(crate) async fn begin(
        &self,
        key: &Key,
        fingerprint: impl Fn() -> Fingerprint,
    ) -> Result<Begun, Rejection> {
        for _ in 0..TAKE_OVER_TRIES {
            let begun = match self.policy.wait {
                Some(wait) => self.engine.begin_waiting(key, fingerprint(), wait),
                None => self.engine.begin(key, fingerprint()),
            };
            let orphan = match begun.await {
                Ok(Begin::Claimed(claim)) => return Ok(Begun::Claimed(claim)),
                Ok(Begin::Replay(recorded)) => return Ok(Begun::Completed(recorded)),
                Ok(Begin::Locked(in_flight)) => {
                    let retry_after = in_flight.retry_after();
                    return Err(Rejection::Locked { retry_after });
                }
                Ok(Begin::Mismatch(mismatch)) => {
                    let parts = mismatch.parts().to_vec();
                    return Err(Rejection::Mismatch { parts });
                }
                Ok(Begin::Orphaned(orphan)) => orphan,
                Err(error) => return Err(self.begin_failed(&error)),
            };
            if self.policy.recovery == Recovery::Hold {
                return Err(Rejection::OutcomeUnknown);
            }
            match orphan.take_over().await {
                Ok(claim) => return Ok(Begun::Claimed(claim)),
                Err(failed) => match failed.kind() {
                    // Another caller resolved it first: begin again.
                    ErrorKind::Fenced | ErrorKind::AlreadyCompleted => {}
                    _ => return Err(self.begin_failed(failed.error())),
                },
            }
        }
        Err(Rejection::OutcomeUnknown)
    }

    pub(crate) fn count_body_refused(&self, rejection: &Rejection) {
        match rejection {
            Rejection::BodiesOverBudget => self.counters.body_overloaded.add(),
            _ => self.counters.body_refused.add(),
        }
    }

    fn begin_failed(&self, error: &Error) -> Rejection {
        if error.kind() == ErrorKind::InvalidInput {
            self.counters.key_refused.add();
            return Rejection::InvalidInput(error.to_string());
        }
        self.counters.store_unavailable.add();
        log::begin_failed(error);
        Rejection::StoreUnavailable
    }

    /// The response of a completed operation, with the marker of a replay.
    pub(crate) fn replay(&self, recorded: Recorded) -> Result<StoredResponse, Rejection> {
        let Some(bytes) = recorded.into_response() else {
            return Err(Rejection::ResponseNotStored);
        };
        match StoredResponse::decode(Bytes::from_owner(bytes)) {
            Ok(stored) => Ok(match &self.contract.replay_marker {
                Some((name, value)) => stored.with_header(name.clone(), value.clone()),
                None => stored,
            }),
            // The engine guarantees that it returns the bytes that were stored, so another program wrote
            // them. The operation is completed and must not run again.
            Err(error) => {
                self.counters.undecodable.add();
                log::undecodable(error);
                Err(Rejection::ResponseNotStored)
            }
        }
    }

    /// Ends a claim according to the verdict. A failure here is counted and logged; the client still gets its
    /// answer.
    pub(crate) async fn settle(&self, claim: Claim, verdict: Verdict, ttl: Option<Duration>) {
        let recorded = match verdict {
            Verdict::Store(bytes) => claim.complete_with(Some(&bytes), ttl).await,
            Verdict::NotStored => claim.complete_with(None, ttl).await,
            Verdict::NotExecuted => {
                match claim.abort().await {
                    Ok(()) => self.counters.not_executed.add(),
                    Err(failed) => self.complete_failed(failed.error()),
                }
                return;
            }
            Verdict::Unknown(reason) => return self.give_up(claim, Some(reason)).await,
            Verdict::Completed => return self.give_up(claim, None).await,
        };
        match recorded {
            Ok(completion) if completion.response_kept() => {}
            Ok(_) => self.counters.not_stored.add(),
            // The claim comes back in the error and is dropped. After `reopen` the operation is completed if
            // its group reached the disk, and an orphan if not.
            Err(failed) => self.complete_failed(failed.error()),
        }
    }

    fn complete_failed(&self, error: &oncekey::Error) {
        self.counters.complete_failed.add();
        log::complete_failed(error);
    }

    pub(crate) fn count_abandoned(&self, reason: &str) {
        self.counters.abandoned.add();
        log::abandoned(reason);
    }

    /// Gives up a claim: for a reason, or because the operation was completed elsewhere. A client that sees
    /// the answer may retry at once, in any process. ORDER: return only when the end is durable, so that the
    /// answer is sent after it.
    async fn give_up(&self, claim: Claim, reason: Option<&str>) {
        let ended = claim.abandon().await;
        if let Some(reason) = reason {
            self.count_abandoned(reason);
        }
        if let Err(error) = ended {
            self.complete_failed(&error);
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("engine", &self.engine)
            .field("contract", &self.contract)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Idempotency, Policy};
    use oncekey_testing::SimDisk;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Both learn of the orphan before one of them takes it over.
    #[tokio::test]
    async fn of_two_that_take_over_at_once_one_executes_and_one_is_locked() {
        let options = oncekey::Options::new().segment_bytes(4 << 20);
        let engine = options.disk(Arc::new(SimDisk::new())).open("/store").unwrap();
        let retry = Policy::new().recovery(Recovery::Retry);
        let idempotency = Idempotency::new(engine).policy(retry);
        let config = idempotency.config();
        for round in 0..100 {
            let key = Key::new("", format!("k-{round}")).unwrap();
            let fingerprint = || Fingerprint::builder().finish();
            let begin = config.engine.begin(&key, fingerprint()).await;
            let Ok(Begin::Claimed(claim)) = begin else { panic!("the key is new: {begin:?}") };
            // Both begins wait for the end of the claim and are then answered together.
            drop(claim);
            let mut one = pin!(config.begin(&key, fingerprint));
            let mut two = pin!(config.begin(&key, fingerprint));
            let mut context = Context::from_waker(Waker::noop());
            if one.as_mut().poll(&mut context).is_ready()
                || two.as_mut().poll(&mut context).is_ready()
            {
                // The claim ended before both could wait for it.
                continue;
            }
            // Polls the two in turn, instead of one to its end.
            let both = async { tokio::join!(one, two) };
            match both.await {
                (Ok(Begun::Claimed(_claim)), Err(Rejection::Locked { .. }))
                | (Err(Rejection::Locked { .. }), Ok(Begun::Claimed(_claim))) => {}
                (one, two) => panic!("round {round}: {one:?} and {two:?}"),
            }
        }
    }
}
