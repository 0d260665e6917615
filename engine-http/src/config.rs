//! What a layer and its services share, and the decisions that depend on it: which requests take
//! part, what `begin` says of them, how a claim ends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body;
use oncekey::{Begin, Claim, Engine, Error, ErrorKind, Fingerprint, Key, Recorded};

use crate::attempt::{Attempt, Owner};
use crate::body::ResponseBody;
use crate::contract::Contract;
use crate::key;
use crate::log;
use crate::policy::{Policy, Recovery};
use crate::reading::Intake;
use crate::recorded::StoredResponse;
use crate::rejection::Rejection;
use crate::running::Running;
use crate::stats::Counters;

/// How often a request tries to take an orphan over while others resolve it first. Each time
/// another caller made progress, so that the next begin is answered otherwise.
const TAKE_OVER_TRIES: usize = 3;

/// A task that runs one handler to its end.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) engine: Engine,
    pub(crate) spawn: Arc<dyn Fn(Task) + Send + Sync>,
    pub(crate) contract: Contract,
    pub(crate) policy: Policy,
    pub(crate) intake: Intake,
    pub(crate) counters: Arc<Counters>,
    pub(crate) running: Running,
}

/// What is known of a request before its body is read.
pub(crate) enum Admission {
    PassThrough,
    Refused(Rejection),
    Keyed(Key),
}

/// What `begin` says is to be done.
#[derive(Debug)]
pub(crate) enum Ruling {
    Execute(Claim),
    Replay(Recorded),
    Refuse(Rejection),
}

/// What an answer makes of its claim.
pub(crate) enum Verdict {
    Store(Vec<u8>),
    NotStored,
    NotExecuted,
    /// With the reason, for the log.
    Unknown(&'static str),
}

impl Config {
    pub(crate) fn admit(&self, request: &http::request::Parts) -> Admission {
        let Self { contract, policy, .. } = self;
        if !contract.methods.contain(&request.method) {
            return Admission::PassThrough;
        }
        let outer = request.extensions.get::<Attempt>();
        let rejection = match key::parse(&request.headers, &contract.headers, contract.key_form) {
            Ok(Some(key)) => {
                let scope = policy.scope.as_ref().map(|scope| scope(request)).unwrap_or_default();
                match Key::new(scope, key) {
                    // A layer outside of this one holds the key already: here it would be found
                    // locked. Another key is that of a request which a handler makes.
                    Ok(key) if outer.is_some_and(|outer| *outer.key() == key) => {
                        return Admission::PassThrough;
                    }
                    Ok(key) => {
                        self.look_for_unscoped_cookie(request);
                        return Admission::Keyed(key);
                    }
                    Err(error) => Rejection::InvalidInput(error.to_string()),
                }
            }
            Ok(None) if !policy.required || outer.is_some() => return Admission::PassThrough,
            Ok(None) => Rejection::MissingKey(contract.headers.first().cloned()),
            Err(invalid) => Rejection::InvalidKey(invalid),
        };
        self.counters.key_refused.add();
        Admission::Refused(rejection)
    }

    /// Cookies tell users apart that the fingerprint does not.
    fn look_for_unscoped_cookie(&self, request: &http::request::Parts) {
        if self.policy.scope.is_none()
            && request.headers.contains_key(http::header::COOKIE)
            && self.counters.unscoped_cookies.add_first()
        {
            log::unscoped_cookie();
        }
    }

    pub(crate) async fn rule(&self, key: &Key, fingerprint: Fingerprint) -> Ruling {
        for _ in 0..TAKE_OVER_TRIES {
            let begun = match self.policy.wait {
                Some(wait) => self.engine.begin_waiting(key, fingerprint.clone(), wait),
                None => self.engine.begin(key, fingerprint.clone()),
            };
            let orphan = match begun.await {
                Ok(Begin::Claimed(claim)) => return Ruling::Execute(claim),
                Ok(Begin::Replay(recorded)) => return Ruling::Replay(recorded),
                Ok(Begin::Locked(in_flight)) => {
                    let retry_after = in_flight.retry_after();
                    return Ruling::Refuse(Rejection::Locked { retry_after });
                }
                Ok(Begin::Mismatch(mismatch)) => {
                    let parts = mismatch.parts().to_vec();
                    return Ruling::Refuse(Rejection::Mismatch { parts });
                }
                Ok(Begin::Orphaned(orphan)) => orphan,
                Err(error) => return Ruling::Refuse(self.begin_failed(&error)),
            };
            if self.policy.recovery == Recovery::Hold {
                return Ruling::Refuse(Rejection::OutcomeUnknown);
            }
            match orphan.take_over().await {
                Ok(claim) => return Ruling::Execute(claim),
                Err(failed) => match failed.kind() {
                    // Another caller resolved it first: begin again.
                    ErrorKind::Fenced | ErrorKind::AlreadyCompleted => {}
                    _ => return Ruling::Refuse(self.begin_failed(failed.error())),
                },
            }
        }
        Ruling::Refuse(Rejection::OutcomeUnknown)
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

    pub(crate) fn replay<R: Body<Data = Bytes>>(
        &self,
        recorded: Recorded,
    ) -> Response<ResponseBody<R>> {
        let Some(bytes) = recorded.into_response() else {
            return Rejection::ResponseNotStored.into_response(&self.contract);
        };
        match StoredResponse::decode(Bytes::from_owner(bytes)) {
            Ok(stored) => {
                let mut response = stored.into_response();
                if let Some((name, value)) = &self.contract.replay_marker {
                    response.headers_mut().insert(name.clone(), value.clone());
                }
                response
            }
            // The engine vouches for its bytes: another caller wrote them. The operation was
            // completed all the same, and must not run again.
            Err(error) => {
                self.counters.undecodable.add();
                log::undecodable(error);
                Rejection::ResponseNotStored.into_response(&self.contract)
            }
        }
    }

    /// Ends a claim as the answer says. The client gets the answer whatever comes of it.
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
            Verdict::Unknown(reason) => {
                drop(claim);
                self.count_abandoned(reason);
                return;
            }
        };
        match recorded {
            Ok(completion) if completion.response_kept() => {}
            Ok(_) => self.counters.not_stored.add(),
            // The claim comes back and is dropped: after `reopen` the operation is completed if its
            // group reached the disk, else an orphan.
            Err(failed) => self.complete_failed(failed.error()),
        }
    }

    fn complete_failed(&self, error: &oncekey::Error) {
        self.counters.complete_failed.add();
        log::complete_failed(error);
    }

    pub(crate) fn abandon(&self, owner: Owner, reason: &str) {
        drop(owner);
        self.count_abandoned(reason);
    }

    fn count_abandoned(&self, reason: &str) {
        self.counters.abandoned.add();
        log::abandoned(reason);
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
    use crate::{IdempotencyLayer, Policy};
    use oncekey_testing::SimDisk;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Both learn of the orphan before one of them takes it over.
    #[tokio::test]
    async fn of_two_that_take_over_at_once_one_executes_and_one_is_locked() {
        let options = oncekey::Options::new().segment_bytes(4 << 20);
        let engine = options.disk(Arc::new(SimDisk::new())).open("/store").unwrap();
        let retry = Policy::new().recovery(Recovery::Retry);
        let layer = IdempotencyLayer::with_spawner(engine, drop).policy(retry);
        let config = layer.config();
        for round in 0..100 {
            let key = Key::new("", format!("k-{round}")).unwrap();
            let fingerprint = Fingerprint::builder().finish();
            let begin = config.engine.begin(&key, fingerprint.clone()).await;
            let Ok(Begin::Claimed(claim)) = begin else { panic!("the key is new: {begin:?}") };
            // Begins wait for the end of the claim and are then answered together.
            drop(claim);
            let mut one = pin!(config.rule(&key, fingerprint.clone()));
            let mut two = pin!(config.rule(&key, fingerprint.clone()));
            let mut context = Context::from_waker(Waker::noop());
            if one.as_mut().poll(&mut context).is_ready()
                || two.as_mut().poll(&mut context).is_ready()
            {
                // The claim ended before both could wait for it.
                continue;
            }
            // Polled in turn, not one to its end.
            let both = async { tokio::join!(one, two) };
            match both.await {
                (Ruling::Execute(_claim), Ruling::Refuse(Rejection::Locked { .. }))
                | (Ruling::Refuse(Rejection::Locked { .. }), Ruling::Execute(_claim)) => {}
                (one, two) => panic!("round {round}: {one:?} and {two:?}"),
            }
        }
    }
}
