//! The common part of claims and orphans, and the result of a call that consumes one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::api::pending::Pending;
use crate::backend::Backend;
use crate::backend::operation::Request;
use crate::base::bytes::SharedBytes;
use crate::base::error::{Error, ErrorKind, Result};
use crate::semantics::command::{Command, Reply};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::token::Token;

/// The common part of a claim and an orphan: a key, and the attempt that they stand for.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) key: Key,
    pub(crate) hash: KeyHash,
    pub(crate) token: Token,
    pub(crate) attempt: u32,
}

impl Handle {
    /// `None` when the record is completed, which has no attempt.
    pub(crate) fn new(backend: &Arc<dyn Backend>, hash: KeyHash, record: &Record) -> Option<Self> {
        let attempt = record.attempt()?;
        Some(Self {
            backend: backend.clone(),
            key: record.key.clone(),
            hash,
            token: attempt.token,
            attempt: attempt.number,
        })
    }

    /// Submits a command that consumes `owner`; a failure that can be tried again gives it back.
    pub(crate) fn finish<T: Send + 'static, H: Owner>(
        self,
        owner: H,
        command: Command,
        answer: impl FnOnce(Option<&Record>) -> Option<T> + Send + 'static,
    ) -> Pending<T, Failed<H>> {
        let Self { backend, key, hash, .. } = self;
        let request = Request { key, hash, command, wait: None };
        let (op, pending) = Pending::asked(request, move |outcome| match outcome {
            Err(error) => Err(Failed::giving_back(error, owner)),
            Ok((reply, record, _)) => {
                owner.spent();
                Some(&reply)
                    .filter(|reply| matches!(reply, Reply::Done | Reply::Claimed))
                    .and_then(|_| answer(record.as_deref()))
                    .ok_or_else(|| Failed { error: refusal(&reply), handle: None })
            }
        });
        backend.submit(op);
        pending
    }

    /// Completes the attempt. A response beyond the limit of the store is not kept.
    pub(crate) fn complete_command(
        &self,
        response: Option<&[u8]>,
        ttl: Option<Duration>,
    ) -> Command {
        let limit = self.backend.settings().max_response;
        let kept = response.filter(|response| response.len() <= limit);
        Command::Complete { token: self.token, response: kept.map(SharedBytes::copy_of), ttl }
    }

    pub(crate) fn last_checkpoint(&self) -> Result<Option<SharedBytes>> {
        self.backend.checkpoint(&self.key, self.hash, self.token)
    }

    pub(crate) fn request(&self, command: Command) -> Request {
        Request { key: self.key.clone(), hash: self.hash, command, wait: None }
    }
}

/// A handle that ends when an answer has used up its token.
pub(crate) trait Owner: Send + 'static {
    fn spent(self);
}

pub(crate) fn refusal(reply: &Reply) -> Error {
    let kind = match reply {
        Reply::AlreadyCompleted => ErrorKind::AlreadyCompleted,
        _ => ErrorKind::Fenced,
    };
    Error::new(kind, "")
}

/// A failed call on a handle that it consumed, with the handle where the call can be tried again.
pub struct Failed<H> {
    error: Error,
    handle: Option<H>,
}

impl<H> Failed<H> {
    pub(crate) fn giving_back(error: Error, handle: H) -> Self {
        Self { error, handle: Some(handle) }
    }

    /// The error.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The kind of the error, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// The handle, unless the token is spent (`Fenced`, `AlreadyCompleted`).
    pub fn into_handle(self) -> Option<H> {
        self.handle
    }

    /// Both parts.
    pub fn into_parts(self) -> (Error, Option<H>) {
        (self.error, self.handle)
    }
}

impl<H> From<Error> for Failed<H> {
    fn from(error: Error) -> Self {
        Self { error, handle: None }
    }
}

/// Drops the handle: a claim inside becomes an orphan.
impl<H> From<Failed<H>> for Error {
    fn from(failed: Failed<H>) -> Self {
        failed.error
    }
}

impl<H> fmt::Debug for Failed<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl<H> fmt::Display for Failed<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<H> std::error::Error for Failed<H> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}
