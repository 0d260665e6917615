//! The common case in one call: execute once and record, or return the reason why not.

use std::fmt;

use crate::api::begin::{Begin, InFlight, Mismatch, Recorded};
use crate::api::claim::Claim;
use crate::api::engine::Engine;
use crate::api::orphan::Orphan;
use crate::base::error::{Error, ErrorKind};
use crate::semantics::fingerprint::Fingerprint;
use crate::semantics::key::Key;

/// The outcome of a [`run`](Engine::run). All but the first are those of [`Begin`].
#[derive(Debug)]
#[must_use = "all but `Executed` say that nothing was executed"]
pub enum Run<R> {
    /// The operation was executed by this call, and its response is recorded.
    Executed(R),
    /// The operation was completed before: send this response.
    Replay(Recorded),
    /// Another caller is executing it.
    Locked(InFlight),
    /// The key was used with a different request.
    Mismatch(Mismatch),
    /// An earlier attempt died, and its outcome is unknown.
    Orphaned(Orphan),
}

impl Engine {
    /// Executes `work` if the key is new, and records the bytes that it returns. Otherwise returns
    /// the reason.
    ///
    /// A failure that the client must see is a response, too: a retry gets the same. Use
    /// [`begin`](Self::begin) for work that can report that nothing happened, that saves
    /// checkpoints, or that needs its token.
    ///
    /// The first poll begins. If the future is dropped before `work` was polled, nothing is
    /// executed and the key is free. From then on a drop, or a panic of `work`, leaves an orphan,
    /// because the operation may have happened. A server whose clients hang up spawns this future.
    ///
    /// ```
    /// use oncekey::{Engine, Fingerprint, Key, Run};
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut future = std::pin::pin!(future);
    /// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     loop {
    /// #         if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) { return output; }
    /// #         std::thread::yield_now();
    /// #     }
    /// # }
    /// # block_on(async {
    /// # let dir = std::env::temp_dir().join(format!("oncekey-doc-run-{}", std::process::id()));
    /// # let engine = Engine::open(&dir)?;
    /// let key = Key::new("tenant-7", "order-1")?;
    /// let request = || Fingerprint::builder().part("amount", "20 EUR").finish();
    ///
    /// let first = engine.run(&key, request(), async { "charged 20 EUR" }).await?;
    /// assert!(matches!(first, Run::Executed("charged 20 EUR")));
    ///
    /// let retry = engine.run(&key, request(), async { unreachable!("it ran already") as &str });
    /// match retry.await? {
    ///     Run::Executed(response) => println!("executed: {response}"),
    ///     Run::Replay(recorded) => assert_eq!(recorded.response(), Some(&b"charged 20 EUR"[..])),
    ///     Run::Locked(in_flight) => println!("try again in {:?}", in_flight.retry_after()),
    ///     Run::Mismatch(mismatch) => println!("another request: {:?} differ", mismatch.parts()),
    ///     Run::Orphaned(orphan) => println!("attempt {}: outcome unknown", orphan.attempt()),
    /// }
    /// # engine.close()?;
    /// # std::fs::remove_dir_all(&dir).ok();
    /// # Ok::<(), oncekey::Error>(())
    /// # })?;
    /// # Ok::<(), oncekey::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin): nothing was executed. Those of [`Claim::complete`]: the work was
    /// executed, and [`RunError::executed`] gives its response and the claim back, if that is still held.
    pub async fn run<R: AsRef<[u8]>>(
        &self,
        key: &Key,
        fingerprint: Fingerprint,
        work: impl Future<Output = R>,
    ) -> Result<Run<R>, RunError<R>> {
        let begun = self.begin(key, fingerprint).await;
        let claim = match begun.map_err(|error| RunError { error, executed: None })? {
            Begin::Claimed(claim) => claim,
            Begin::Replay(recorded) => return Ok(Run::Replay(recorded)),
            Begin::Locked(in_flight) => return Ok(Run::Locked(in_flight)),
            Begin::Mismatch(mismatch) => return Ok(Run::Mismatch(mismatch)),
            Begin::Orphaned(orphan) => return Ok(Run::Orphaned(orphan)),
        };
        // From here to the end of the work the claim's drop makes an orphan.
        let response = work.await;
        match claim.complete(response.as_ref()).await {
            Ok(_) => Ok(Run::Executed(response)),
            Err(failed) => Err(RunError {
                error: failed.error().clone(),
                executed: Some((response, failed.into_handle())),
            }),
        }
    }
}

/// Why a [`run`](Engine::run) failed, with the response of work that was executed all the same.
pub struct RunError<R> {
    error: Error,
    executed: Option<(R, Option<Claim>)>,
}

impl<R> RunError<R> {
    /// The error.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The kind of the error, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The response of work that was executed but not recorded, with its claim, unless that is spent:
    /// [complete](Claim::complete) it again after [`reopen`](Engine::reopen). `None`: nothing was executed.
    pub fn executed(self) -> Option<(R, Option<Claim>)> {
        self.executed
    }
}

impl<R> From<RunError<R>> for Error {
    fn from(failed: RunError<R>) -> Self {
        failed.error
    }
}

impl<R> fmt::Display for RunError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.executed {
            Some(_) => "the operation was executed, its response was not recorded",
            None => "the operation was not executed",
        })
    }
}

/// The response is not printed: it may be secret.
impl<R> fmt::Debug for RunError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunError")
            .field("error", &self.error)
            .field("executed", &self.executed.is_some())
            .finish_non_exhaustive()
    }
}

impl<R> std::error::Error for RunError<R> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
