//! Completion queues behind the handles of C.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::abi::status::ONCEKEY_OVERLOADED;
use crate::abi::submission::{Completion, Submission};
use crate::abi::types::{Engine, Error, Queue};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::boundary::failure::Failure;
use crate::boundary::handle_table::Table;
use crate::completion::completions::Completions;
use crate::objects::engine;

static QUEUES: Table<Arc<Completions>> = Table::new(7);

/// Makes a completion queue for operations of `engine`. `max_begins` is the largest number of outstanding
/// begins, submitted and not polled; 0: 1,048,576. The ends of claims are never refused.
///
/// The caller frees `queue`. Several threads may submit to and poll one queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_queue_new(
    engine: Engine,
    max_begins: usize,
    queue: *mut Queue,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let queue = caller.out(queue);
    entry(Some(caller.out(error)), || {
        let queue = queue.required("queue")?;
        let completions = Completions::new(engine::get(engine.id)?, max_begins);
        queue.id = QUEUES.insert(Arc::new(completions)).map_err(|_| Failure::too_many())?;
        Ok(())
    })
}

/// Submits `count` operations, in order. An error of one operation is reported in its completion. Does not
/// wait for syncs, though a begin may read from the disk.
///
/// `accepted` is the number of submissions that were taken. It is smaller than `count` only with OVERLOADED:
/// the begin after the accepted ones exceeds the bound of the queue. Then poll, and submit the rest again.
/// Nothing of the submissions is kept: they and the memory that they point to may be reused at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_queue_submit(
    queue: Queue,
    submissions: *const Submission,
    count: usize,
    accepted: *mut usize,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let accepted = caller.out(accepted);
    entry(Some(caller.out(error)), || {
        let accepted = accepted.required("accepted")?;
        let submissions = caller.array(submissions, count, "submissions")?;
        *accepted = QUEUES.get(queue.id)?.submit(&caller, submissions);
        if *accepted < count {
            let message = "as many begins are outstanding as the queue allows";
            return Err(Failure::new(ONCEKEY_OVERLOADED, message));
        }
        Ok(())
    })
}

/// Takes up to `capacity` completions out, in the order in which they became known. If there are none, it
/// waits for the first: up to `timeout_ms` milliseconds (0: not at all, UINT64_MAX: without limit), or until
/// oncekey_queue_wake or oncekey_queue_free. `count` gets their number; it is 0 with OK when there are none.
/// Elements beyond the count are not written.
///
/// The caller owns the errors, handles and buffers in the completions. Several threads may poll. Fails with
/// INVALID_INPUT when `capacity` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_queue_poll(
    queue: Queue,
    completions: *mut Completion,
    capacity: usize,
    timeout_ms: u64,
    count: *mut usize,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let count = caller.out(count);
    let completions = caller.uninit_array(completions, capacity);
    entry(Some(caller.out(error)), || {
        let count = count.required("count")?;
        let completions = completions.ok_or_else(|| Failure::null("completions"))?;
        if completions.is_empty() {
            return Err(Failure::invalid("there is no room for a completion"));
        }
        let queue = QUEUES.get(queue.id)?;
        let until = match timeout_ms {
            u64::MAX => None,
            ms => Instant::now().checked_add(Duration::from_millis(ms)),
        };
        *count = queue.poll(completions, until);
        Ok(())
    })
}

/// Cancels the begins of this queue that were submitted with `user_data` and wait for an owner (`max_wait_ms`
/// above 0). Each of them makes room for another waiting begin at once, and still has its completion, as
/// every submission has. The completion holds the outcome if that is known by now, else CANCELLED; a claim
/// that was on its way to a cancelled begin is aborted. Does not block.
///
/// OK also when there is no such begin, or when it has ended. Begins that do not wait, and all other
/// operations, are not affected, whatever their `user_data`.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_queue_cancel(queue: Queue, user_data: u64) -> i32 {
    entry(None, || {
        QUEUES.get(queue.id)?.cancel(user_data);
        Ok(())
    })
}

/// Makes one waiting poll return without a completion, or the next poll if none waits.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_queue_wake(queue: Queue) -> i32 {
    entry(None, || {
        QUEUES.get(queue.id)?.wake();
        Ok(())
    })
}

/// A descriptor that is readable while the queue has completions, for poll, epoll and kqueue. It belongs to
/// the queue: the caller may only wait for it to be readable. -1 on systems without such descriptors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_queue_fd(queue: Queue, fd: *mut i32, error: *mut Error) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let fd = caller.out(fd);
    entry(Some(caller.out(error)), || {
        let fd = fd.required("fd")?;
        *fd = -1;
        *fd = QUEUES.get(queue.id)?.fd()?;
        Ok(())
    })
}

/// Frees the queue and ends waiting polls. Submitted operations continue without it. A claim that a begin has
/// won, or will win, and that no poll returned is aborted. Claims and orphans in use by the queue are freed.
/// Freeing 0 has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_queue_free(queue: Queue) -> i32 {
    entry(None, || {
        if let Some(queue) = QUEUES.remove(queue.id)? {
            queue.free();
        }
        Ok(())
    })
}
