//! All interleavings, up to a number of preemptions, of the smallest concurrent parts, under loom.
//!
//! A model fails at an assertion, or when all its threads sleep.
#![allow(clippy::unwrap_used)]

mod answers;

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use self::answers::{guarded, poll};
use crate::admission::limits::Limits;
use crate::admission::queue::{Batch, Queue, Taken};
use crate::admission::slot::{Admission, FollowUp};
use crate::backend::operation::{Operation, Outcome, Queued, Request, Wait};
use crate::base::error::Error;
use crate::base::sync::Instant;
use crate::embedded::session::shards::Shards;
use crate::semantics::command::{Command, Reply};
use crate::semantics::fingerprint::{Fingerprint, KeyedFingerprint};
use crate::semantics::key::{Key, KeyHash};
use crate::semantics::record::Record;
use crate::semantics::record::Versioned;
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;
use crate::semantics::token::Token;
use crate::semantics::transition::{apply, transition};

const HASH: KeyHash = KeyHash(7);
const NOW: Time = Time(1);
const TOKEN: Token = Token { incarnation: 1, epoch: 1, sequence: 1 };

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(model);
}

/// A lock of std, not of loom: the values in it are only observed, and are no part of a model.
type Seen<T> = Arc<std::sync::Mutex<Vec<T>>>;

fn begin() -> Command {
    let fingerprint =
        KeyedFingerprint::new(Fingerprint::builder().finish(), &Secret([1; Secret::LEN]));
    Command::Begin { fingerprint, ttl: Duration::from_secs(1), max_execution: None }
}

fn request(command: Command) -> Request {
    Request { key: Key::new("", "k").unwrap(), hash: HASH, command, wait: None }
}

fn op(command: Command, replies: &Seen<Reply>) -> Operation {
    let replies = replies.clone();
    let reply = move |outcome: Outcome| replies.lock().unwrap().push(outcome.unwrap().0);
    Operation::telling(request(command), reply)
}

fn queued(command: Command) -> Queued {
    Queued { op: op(command, &Seen::default()), base: None }
}

fn queue() -> Arc<Queue> {
    Arc::new(Queue::new(Arc::new(Limits::unbounded())))
}

fn take(queue: &Queue, batch: &mut Batch) -> (Taken, usize) {
    let taken = queue.take(batch, true, None);
    let mut count = 0;
    while batch.pop().is_some() {
        count += 1;
    }
    (taken, count)
}

fn take_until_stopped(queue: &Queue) -> usize {
    let (mut batch, mut count) = (Batch::default(), 0);
    loop {
        let (taken, more) = take(queue, &mut batch);
        count += more;
        if taken == Taken::Stopped {
            return count;
        }
    }
}

#[test]
fn what_is_pushed_is_taken() {
    explore(|| {
        let limits = Arc::new(Limits::unbounded());
        let queue = Arc::new(Queue::new(limits.clone()));
        let pushers = [begin(), Command::Abort { token: TOKEN }].map(|command| {
            let queue = queue.clone();
            thread::spawn(move || assert!(queue.push(queued(command)).is_none()))
        });
        let (mut batch, mut count) = (Batch::default(), 0);
        while count < 2 {
            count += take(&queue, &mut batch).1;
        }
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        assert_eq!(limits.queued(), 0);
    });
}

#[test]
fn a_nudge_is_noticed() {
    explore(|| {
        let queue = queue();
        let other = queue.clone();
        let nudger = thread::spawn(move || other.nudge());
        assert_eq!(take(&queue, &mut Batch::default()), (Taken::Work, 0));
        nudger.join().unwrap();
    });
}

#[test]
fn a_stopped_queue_hands_out_what_it_accepted_and_ends() {
    explore(|| {
        let queue = queue();
        let (other, third) = (queue.clone(), queue.clone());
        let pusher = thread::spawn(move || usize::from(other.push(queued(begin())).is_none()));
        let stopper = thread::spawn(move || third.stop());
        let count = take_until_stopped(&queue);
        stopper.join().unwrap();
        assert_eq!(pusher.join().unwrap(), count);
    });
}

#[test]
fn a_drained_queue_loses_nothing_and_ends_who_takes() {
    explore(|| {
        let queue = queue();
        let (other, third) = (queue.clone(), queue.clone());
        let pusher = thread::spawn(move || usize::from(other.push(queued(begin())).is_none()));
        let drainer = thread::spawn(move || third.drain().len());
        let count = take_until_stopped(&queue) + drainer.join().unwrap();
        assert_eq!(pusher.join().unwrap(), count);
    });
}

/// The shards with a queue and a stand-in for the store file: session, committer and fold worker
/// without their errors.
struct Table {
    table: Shards,
    limits: Arc<Limits>,
    queue: Queue,
    file: loom::sync::Mutex<Option<Arc<Record>>>,
}

impl Table {
    fn new() -> Arc<Self> {
        let file = loom::sync::Mutex::new(None);
        let limits = Arc::new(Limits::unbounded());
        let queue = Queue::new(limits.clone());
        Arc::new(Self { table: Shards::new(0, 1), limits, queue, file })
    }

    fn submit(&self, op: Operation) {
        let admission = self.table.shard(HASH).admit(op, NOW, &self.limits);
        match admission {
            Admission::Answered(answer) => answer.give(),
            Admission::Parked(_) => {}
            Admission::Change(queued) => assert!(self.queue.push(queued).is_none()),
            Admission::Resolve(op) => {
                let looked_up = self.file.lock().unwrap().clone();
                let follow_up =
                    self.table.shard(HASH).resolved(op, Ok(looked_up), NOW, &self.limits);
                self.follow_up(follow_up);
            }
        }
    }

    fn follow_up(&self, follow_up: FollowUp) {
        if let Some(queued) = follow_up.queued {
            assert!(self.queue.push(queued).is_none());
        }
        follow_up.answers.into_iter().for_each(|answer| answer.give());
    }

    /// Commits one command, as the committer does.
    fn commit(&self, Queued { op, base }: Queued) {
        let (change, reply) = transition(base.as_deref(), &op.command, &op.key, NOW);
        let change = change.expect("only begins and ends of claims are queued here");
        let record = apply(base.as_deref(), &change, TOKEN, NOW).unwrap().map(Arc::new);
        let versioned = Versioned { sequence: 1, record: record.clone() };
        let (_, follow_up) =
            self.table.shard(HASH).publish(HASH, versioned, NOW, &self.limits, &mut None);
        op.tell(Ok((reply, record, NOW)));
        self.follow_up(follow_up);
    }

    fn commit_next(&self) {
        let mut batch = Batch::default();
        assert_eq!(self.queue.take(&mut batch, true, None), Taken::Work);
        while let Some(queued) = batch.pop() {
            self.commit(queued);
        }
    }

    /// Folds the key, as the fold worker does.
    fn fold(&self) {
        self.table.shard(HASH).rotate();
        let folding = self.table.shard(HASH).folding().next();
        if let Some((_, versioned)) = folding {
            *self.file.lock().unwrap() = versioned.record;
        }
        let evicted = self.table.shard(HASH).evict();
        drop(evicted);
    }
}

#[test]
fn of_two_begins_one_claims() {
    explore(|| {
        let (table, replies) = (Table::new(), Seen::default());
        let callers = [(), ()].map(|()| {
            let (table, op) = (table.clone(), op(begin(), &replies));
            thread::spawn(move || table.submit(op))
        });
        table.commit_next();
        table.fold();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(*replies.lock().unwrap(), [Reply::Claimed, Reply::Locked]);
    });
}

#[test]
fn a_completed_key_is_replayed_while_it_is_folded() {
    explore(|| {
        let (table, replies) = (Table::new(), Seen::default());
        table.submit(op(begin(), &replies));
        table.commit_next();
        let complete = Command::Complete { token: TOKEN, response: None, ttl: None };
        table.submit(op(complete, &replies));
        let other = table.clone();
        let begin = op(begin(), &replies);
        let caller = thread::spawn(move || other.submit(begin));
        table.commit_next();
        table.fold();
        caller.join().unwrap();
        assert_eq!(*replies.lock().unwrap(), [Reply::Claimed, Reply::Done, Reply::Replay]);
    });
}

#[test]
fn an_abort_lets_one_of_those_who_wait_claim() {
    explore(|| {
        let (table, replies) = (Table::new(), Seen::default());
        table.submit(op(begin(), &replies));
        table.commit_next();
        table.submit(op(Command::Abort { token: TOKEN }, &replies));
        let callers = [(), ()].map(|()| {
            let (table, op) = (table.clone(), op(begin(), &replies));
            thread::spawn(move || table.submit(op))
        });
        table.commit_next();
        // The claim of a begin that waited, or came later.
        table.commit_next();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        let replies = replies.lock().unwrap();
        assert_eq!(replies[..2], [Reply::Claimed, Reply::Done]);
        assert_eq!(replies[2..], [Reply::Claimed, Reply::Locked], "after the abort");
    });
}

/// A waiting begin is dropped while the owner's abort hands it the key. Either it leaves, or it was
/// promoted before and its claim comes back. Never both, and never neither.
#[test]
fn a_wait_that_is_given_up_ends_once_and_makes_room() {
    for polled in [false, true] {
        explore(move || {
            let (table, replies, ends) = (Table::new(), Seen::default(), Seen::default());
            table.submit(op(begin(), &replies));
            table.commit_next();
            let (told, pending) = guarded(&ends);
            let seen = op(begin(), &replies);
            let wait = Wait { until: Instant::now() + Duration::from_millis(1), number: 1 };
            let waiting = Request { wait: Some(wait), ..request(begin()) };
            table.submit(Operation::telling(waiting, move |outcome: Outcome| {
                seen.tell(outcome.clone());
                told.tell(outcome);
            }));
            assert_eq!(table.limits.waiting(), 1);
            let other = table.clone();
            let mut pending = pending.on_giving_up(move || {
                let withdrawn = other.table.shard(HASH).slots.withdraw(HASH, wait, &other.limits);
                drop(withdrawn);
            });
            assert!(!(polled && poll(&mut pending)));
            let caller = thread::spawn(move || drop(pending));
            table.submit(op(Command::Abort { token: TOKEN }, &replies));
            table.commit_next();
            let promoted = table.limits.queued() == 1;
            if promoted {
                table.commit_next();
            }
            caller.join().unwrap();
            assert_eq!(*ends.lock().unwrap(), [false]);
            assert_eq!(table.limits.waiting(), 0);
            let claimed = if promoted { &[Reply::Claimed][..] } else { &[] };
            let replies = replies.lock().unwrap();
            assert_eq!(replies[..2], [Reply::Claimed, Reply::Done]);
            assert_eq!(&replies[2..], claimed);
        });
    }
}

#[test]
fn a_lookup_that_fails_tells_everybody() {
    explore(|| {
        let (table, answers) = (Table::new(), Seen::default());
        let callers = [(), ()].map(|()| {
            let (table, answers) = (table.clone(), answers.clone());
            let op = op(begin(), &Seen::default());
            thread::spawn(move || {
                let admission = table.table.shard(HASH).admit(op, NOW, &table.limits);
                if let Admission::Resolve(op) = admission {
                    let lost = Err(Error::corrupted(""));
                    let follow_up = table.table.shard(HASH).resolved(op, lost, NOW, &table.limits);
                    assert!(follow_up.queued.is_none());
                    let failed = follow_up.answers.iter().map(|answer| answer.parts().1.is_err());
                    answers.lock().unwrap().extend(failed);
                }
            })
        });
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(*answers.lock().unwrap(), [true, true]);
    });
}
