//! Runs a tower service in a task of its own that no client can cancel.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::attempt::Watch;
use crate::body::ResponseBody;
use crate::budget::Allowance;
use crate::execution::{Answer, Execution};

/// A task that runs one handler to its end.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs tasks.
pub(crate) type Spawner = Arc<dyn Fn(Task) + Send + Sync>;

pub(crate) type Panic = Box<dyn Any + Send>;

/// How an execution ended: with the handler's answer, or with the panic that ended it.
pub(crate) type Ended<R, E> = Result<Result<Response<ResponseBody<R>>, E>, Panic>;

/// A handler with its request.
pub(crate) struct Runnable<S, B> {
    pub(crate) service: S,
    pub(crate) request: Request<B>,
    /// The room of the body in the budget, held until the handler has the body.
    pub(crate) room: Allowance,
}

/// Starts an execution. Its result is sent after its claim has ended, so that the receiver finds the key in
/// its final state.
pub(crate) fn start<S, B, R>(
    spawn: &Spawner,
    mut runnable: Runnable<S, B>,
    execution: Execution,
) -> (oneshot::Receiver<Ended<R, S::Error>>, Watch)
where
    S: Service<Request<B>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Send,
{
    let (sender, receiver) = oneshot::channel();
    runnable.request.extensions_mut().insert(execution.attempt().clone());
    let watch = execution.watch();
    let task = async move {
        let ended = caught(pin!(run(runnable, &execution))).await;
        let ended = match ended {
            Ok(Ok(answer)) => {
                execution.end(answer.verdict, answer.ttl).await;
                Ok(Ok(answer.response))
            }
            Ok(Err(error)) => {
                execution.lose("the inner service failed").await;
                Ok(Err(error))
            }
            Err(panic) => {
                execution.lose("the handler panicked").await;
                Err(panic)
            }
        };
        // A client that disconnected does not receive the result.
        drop(sender.send(ended));
        drop(execution);
    };
    #[cfg(feature = "tracing")]
    let task = tracing::Instrument::in_current_span(task);
    spawn(Box::pin(task));
    (receiver, watch)
}

/// Holds neither service nor request after the call: the future is moved before it runs.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
fn run<S, B, R>(
    mut runnable: Runnable<S, B>,
    execution: &Execution,
) -> impl Future<Output = Result<Answer<R>, S::Error>>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Data = Bytes>,
{
    async move {
        // A service that fails to become ready was not called: nothing happened.
        poll_fn(|context| runnable.service.poll_ready(context)).await?;
        execution.start();
        let answer = {
            let Runnable { mut service, request, room } = runnable;
            let answer = service.call(request);
            drop(room);
            answer
        };
        Ok(execution.weigh(answer.await?).await)
    }
}

/// Runs a future to its end, or to its panic.
///
/// Unwind safety is asserted: the future is not polled again after a panic, and the panic continues in the
/// task of the connection, if that task still exists.
async fn caught<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Panic> {
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}
