//! The state machine: one pure function decides every command, and one applies the decision. No
//! I/O, no clock, no lock: the rest of the crate brings the inputs and carries the outputs away.
//!
//! | state \ command | begin, same fingerprint | begin, other | complete(token) | abort(token) | checkpoint(token) | owner gone | take over, release (token) |
//! |---|---|---|---|---|---|---|---|
//! | absent, expired | in flight → Claimed | in flight → Claimed | Fenced | Fenced | Fenced | Fenced | Fenced |
//! | in flight | Locked | Mismatch | completed → Done | attempt 1: absent, later: orphan → Done | in flight → Done | orphan → Done | Fenced |
//! | orphan | Orphaned | Mismatch | completed → Done | as in flight | in flight by deadline only → Done | orphan → Done | in flight, attempt + 1 → Claimed; absent → Done |
//! | completed, live | Replay | Mismatch | same token and response: Done; else AlreadyCompleted | AlreadyCompleted | AlreadyCompleted | AlreadyCompleted | AlreadyCompleted |
//!
//! A command whose token is not the record's gets Fenced, or AlreadyCompleted from a completed
//! record. A claim past its deadline (`max_execution`) counts as an orphan since that deadline,
//! although nothing was written: the state is decided on read.

use std::time::Duration;

use crate::base::bytes::SharedBytes;
use crate::semantics::command::{Change, Command, Reply};
use crate::semantics::fingerprint::KeyedFingerprint;
use crate::semantics::key::Key;
use crate::semantics::record::{Attempt, Checkpoint, Completed, Effective, Record, State};
use crate::semantics::time::Time;
use crate::semantics::token::Token;

/// Decides a command: the change it makes, if any, and the answer. Pure and total.
pub(crate) fn transition(
    record: Option<&Record>,
    command: &Command,
    key: &Key,
    now: Time,
) -> (Option<Change>, Reply) {
    let effective = record.map_or(Effective::Absent, |record| record.effective(now));
    // An orphan keeps its date: its TTL counts from the moment it became one.
    let since = record.and_then(|record| record.orphaned_since(now)).unwrap_or(now);
    match command {
        Command::Begin { fingerprint, ttl, max_execution } => {
            let Some(record) = record.filter(|_| !matches!(effective, Effective::Absent)) else {
                let change = Change::Claim {
                    key: key.clone(),
                    fingerprint: fingerprint.to_stored(),
                    ttl: *ttl,
                    deadline: max_execution.map(|limit| now.after(limit)),
                };
                return (Some(change), Reply::Claimed);
            };
            (None, meet(&effective, record, fingerprint))
        }
        Command::Complete { token, response, ttl } => {
            complete(&effective, *token, response.as_ref(), *ttl, now)
        }
        Command::Abort { token } => owned(&effective, *token, |attempt| {
            // A later attempt does not know how far the earlier ones got.
            if attempt.number == 1 { Change::Remove } else { Change::Orphan { since } }
        }),
        Command::Checkpoint { token, data } => match record.map(|record| &record.state) {
            Some(State::Orphan { .. }) => refused(&effective),
            _ => owned(&effective, *token, |_| Change::Checkpoint { data: data.clone() }),
        },
        Command::OwnerGone { token } => match record.map(|record| &record.state) {
            Some(State::Orphan { attempt, .. }) if attempt.token == *token => (None, Reply::Done),
            _ => owned(&effective, *token, |_| Change::Orphan { since }),
        },
        Command::TakeOver { token, max_execution } => orphaned(&effective, *token, || {
            let deadline = max_execution.map(|limit| now.after(limit));
            (Change::TakeOver { deadline }, Reply::Claimed)
        }),
        Command::Release { token } => {
            orphaned(&effective, *token, || (Change::Remove, Reply::Done))
        }
    }
}

/// The answer to a begin that finds a record. Another fingerprint learns nothing of the state:
/// Mismatch is decided first.
fn meet(effective: &Effective<'_>, record: &Record, fingerprint: &KeyedFingerprint) -> Reply {
    if !fingerprint.matches(&record.fingerprint) {
        return Reply::Mismatch(fingerprint.differences(&record.fingerprint));
    }
    match effective {
        Effective::InFlight(_) => Reply::Locked,
        Effective::Orphan(_) => Reply::Orphaned,
        Effective::Completed(_) | Effective::Absent => Reply::Replay,
    }
}

fn complete(
    effective: &Effective<'_>,
    token: Token,
    response: Option<&SharedBytes>,
    ttl: Option<Duration>,
    now: Time,
) -> (Option<Change>, Reply) {
    match effective {
        Effective::Completed(completed)
            if completed.token == token && completed.response.as_ref() == response =>
        {
            (None, Reply::Done)
        }
        _ => owned(effective, token, |attempt| Change::Complete {
            response: response.cloned(),
            expires_at: now.after(ttl.unwrap_or(attempt.ttl)),
        }),
    }
}

/// A command of the owner, or of a resolver that ends the orphan as its owner would have.
fn owned(
    effective: &Effective<'_>,
    token: Token,
    change: impl FnOnce(&Attempt) -> Change,
) -> (Option<Change>, Reply) {
    match effective {
        Effective::InFlight(attempt) | Effective::Orphan(attempt) if attempt.token == token => {
            (Some(change(attempt)), Reply::Done)
        }
        _ => refused(effective),
    }
}

/// A command that only an orphan accepts.
fn orphaned(
    effective: &Effective<'_>,
    token: Token,
    resolve: impl FnOnce() -> (Change, Reply),
) -> (Option<Change>, Reply) {
    match effective {
        Effective::Orphan(attempt) if attempt.token == token => {
            let (change, reply) = resolve();
            (Some(change), reply)
        }
        _ => refused(effective),
    }
}

fn refused(effective: &Effective<'_>) -> (Option<Change>, Reply) {
    match effective {
        Effective::Completed(_) => (None, Reply::AlreadyCompleted),
        _ => (None, Reply::Fenced),
    }
}

/// The change cannot have been decided on this record: the journal is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inapplicable;

/// Applies a change and returns the new record, `None` for absent. `at` identifies the change and
/// becomes the token of a granted claim. `now` is the time of the group.
///
/// The committer and recovery call this with the same inputs, so that a replayed journal gives the
/// records that were published.
pub(crate) fn apply(
    record: Option<&Record>,
    change: &Change,
    at: Token,
    now: Time,
) -> Result<Option<Record>, Inapplicable> {
    if let Change::Claim { key, fingerprint, ttl, deadline } = change {
        let state = State::InFlight(Attempt {
            token: at,
            number: 1,
            started_at: now,
            deadline: *deadline,
            ttl: *ttl,
            checkpoint: None,
        });
        let record = Record { key: key.clone(), fingerprint: fingerprint.clone(), state };
        return Ok(Some(record));
    }
    let record = record.ok_or(Inapplicable)?;
    let attempt = record.attempt().ok_or(Inapplicable)?;
    let state = match change {
        Change::Claim { .. } | Change::Remove => return Ok(None),
        Change::TakeOver { deadline } => State::InFlight(Attempt {
            token: at,
            number: attempt.number.saturating_add(1),
            started_at: now,
            deadline: *deadline,
            ..attempt.clone()
        }),
        Change::Complete { response, expires_at } => State::Completed(Completed {
            token: attempt.token,
            completed_at: now,
            expires_at: *expires_at,
            response: response.clone(),
        }),
        Change::Checkpoint { data } => {
            let checkpoint = Some(Checkpoint::Here(data.clone()));
            State::InFlight(Attempt { checkpoint, ..attempt.clone() })
        }
        Change::Orphan { since } => State::Orphan { attempt: attempt.clone(), since: *since },
    };
    Ok(Some(Record { key: record.key.clone(), fingerprint: record.fingerprint.clone(), state }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semantics::fingerprint::Fingerprint;
    use crate::semantics::secret::Secret;

    const TTL: Duration = Duration::from_millis(1000);
    const NOW: Time = Time(10_000);
    const FIRST: Token = Token { incarnation: 1, epoch: 1, sequence: 1 };
    const SECOND: Token = Token { incarnation: 1, epoch: 1, sequence: 2 };
    const OTHER: Token = Token { incarnation: 1, epoch: 1, sequence: 9 };

    fn key() -> Key {
        Key::new("scope", "key").unwrap()
    }

    fn fingerprint(body: &str) -> KeyedFingerprint {
        let fingerprint = Fingerprint::builder().part("method", "POST").part("body", body).finish();
        KeyedFingerprint::new(fingerprint, &Secret([3; Secret::LEN]))
    }

    fn bytes(text: &str) -> SharedBytes {
        SharedBytes::copy_of(text.as_bytes())
    }

    fn begin(body: &str) -> Command {
        Command::Begin { fingerprint: fingerprint(body), ttl: TTL, max_execution: None }
    }
    fn complete(token: Token, response: &str) -> Command {
        Command::Complete { token, response: Some(bytes(response)), ttl: None }
    }
    fn checkpoint(token: Token) -> Command {
        Command::Checkpoint { token, data: bytes("step") }
    }
    fn take_over(token: Token) -> Command {
        Command::TakeOver { token, max_execution: None }
    }

    fn record(state: State) -> Record {
        Record { key: key(), fingerprint: fingerprint("a").to_stored(), state }
    }

    fn attempt(number: u32) -> Attempt {
        Attempt {
            token: if number == 1 { FIRST } else { SECOND },
            number,
            started_at: NOW,
            deadline: None,
            ttl: TTL,
            checkpoint: Some(Checkpoint::Here(bytes("saved"))),
        }
    }

    fn in_flight(number: u32) -> Record {
        record(State::InFlight(attempt(number)))
    }
    fn orphan(number: u32) -> Record {
        record(State::Orphan { attempt: attempt(number), since: NOW })
    }
    fn completed() -> Record {
        record(State::Completed(Completed {
            token: FIRST,
            completed_at: NOW,
            expires_at: NOW.after(TTL),
            response: Some(bytes("done")),
        }))
    }

    /// The command at `NOW`, carried out under the token `OTHER`: the reply and the record after.
    fn run(record: Option<&Record>, command: &Command) -> (Reply, Option<Record>) {
        run_at(record, command, NOW)
    }

    fn run_at(record: Option<&Record>, command: &Command, now: Time) -> (Reply, Option<Record>) {
        let (change, reply) = transition(record, command, &key(), now);
        match change {
            None => (reply, record.cloned()),
            Some(change) => (reply, apply(record, &change, OTHER, now).unwrap()),
        }
    }

    /// The command changes nothing and is answered with `reply`.
    fn refused(record: &Record, command: &Command, reply: Reply) {
        assert_eq!(transition(Some(record), command, &key(), NOW), (None, reply), "{command:?}");
    }

    fn all_with_token(token: Token) -> Vec<Command> {
        vec![
            complete(token, "done"),
            Command::Abort { token },
            checkpoint(token),
            Command::OwnerGone { token },
            take_over(token),
            Command::Release { token },
        ]
    }

    #[test]
    fn absent_is_claimed_and_fences_every_token() {
        let (reply, after) = run(None, &begin("a"));
        assert_eq!(reply, Reply::Claimed);
        let State::InFlight(attempt) = after.unwrap().state else { panic!("in flight") };
        assert_eq!((attempt.token, attempt.number, attempt.started_at), (OTHER, 1, NOW));
        assert_eq!((attempt.deadline, attempt.checkpoint), (None, None));
        for command in all_with_token(FIRST) {
            assert_eq!(transition(None, &command, &key(), NOW), (None, Reply::Fenced));
        }
    }

    #[test]
    fn expired_counts_as_absent_to_the_millisecond() {
        for record in [completed(), orphan(1)] {
            let last = Time(NOW.after(TTL).0 - 1);
            assert_ne!(run_at(Some(&record), &begin("a"), last).0, Reply::Claimed);
            assert!(!record.is_expired(last));
            let expired = NOW.after(TTL);
            assert!(record.is_expired(expired));
            // Another fingerprint claims it too: the key is new.
            for body in ["a", "b"] {
                let (reply, after) = run_at(Some(&record), &begin(body), expired);
                assert_eq!(reply, Reply::Claimed);
                assert_eq!(after.unwrap().attempt().unwrap().token, OTHER);
            }
            for command in all_with_token(FIRST) {
                let decided = transition(Some(&record), &command, &key(), expired);
                let nothing = match (&record.state, &command) {
                    // The owner is gone either way.
                    (State::Orphan { .. }, Command::OwnerGone { .. }) => Reply::Done,
                    _ => Reply::Fenced,
                };
                assert_eq!(decided, (None, nothing), "{command:?}");
            }
        }
    }

    #[test]
    fn a_live_claim_never_expires() {
        let (reply, _) = run_at(Some(&in_flight(1)), &begin("a"), Time(u64::MAX));
        assert_eq!(reply, Reply::Locked);
    }

    #[test]
    fn begin_meets_each_state() {
        let mismatch = Reply::Mismatch(vec!["body".to_owned()]);
        for (record, same) in [
            (in_flight(1), Reply::Locked),
            (orphan(1), Reply::Orphaned),
            (completed(), Reply::Replay),
        ] {
            refused(&record, &begin("a"), same);
            // Mismatch is decided before Locked, Orphaned and Replay.
            refused(&record, &begin("b"), mismatch.clone());
        }
    }

    #[test]
    fn the_owner_completes() {
        for (record, token) in [(in_flight(1), FIRST), (in_flight(2), SECOND)] {
            let (reply, after) = run(Some(&record), &complete(token, "done"));
            assert_eq!(reply, Reply::Done);
            let State::Completed(completed) = after.unwrap().state else { panic!("completed") };
            assert_eq!(completed.token, token);
            assert_eq!(completed.expires_at, NOW.after(TTL));
            assert_eq!(completed.response.as_deref(), Some(&b"done"[..]));
        }
    }

    #[test]
    fn a_completion_brings_its_own_ttl_or_no_response() {
        let ttl = Duration::from_millis(5);
        let command = Command::Complete { token: FIRST, response: None, ttl: Some(ttl) };
        let (_, after) = run(Some(&in_flight(1)), &command);
        let State::Completed(completed) = after.unwrap().state else { panic!("completed") };
        assert_eq!((completed.expires_at, completed.response), (NOW.after(ttl), None));
    }

    #[test]
    fn abort_frees_the_key_only_on_the_first_attempt() {
        assert_eq!(run(Some(&in_flight(1)), &Command::Abort { token: FIRST }), (Reply::Done, None));
        assert_eq!(run(Some(&orphan(1)), &Command::Abort { token: FIRST }), (Reply::Done, None));
        for record in [in_flight(2), orphan(2)] {
            let (reply, after) = run(Some(&record), &Command::Abort { token: SECOND });
            assert_eq!(reply, Reply::Done);
            let State::Orphan { attempt, since } = after.unwrap().state else { panic!("orphan") };
            assert_eq!((attempt.number, since), (2, NOW));
            assert_eq!(attempt.checkpoint, Some(Checkpoint::Here(bytes("saved"))));
        }
    }

    #[test]
    fn an_abort_of_a_later_attempt_does_not_date_its_orphan_anew() {
        let later = NOW.after(TTL / 2);
        let mut overdue = in_flight(2);
        let State::InFlight(attempt) = &mut overdue.state else { unreachable!() };
        attempt.deadline = Some(NOW);
        for record in [orphan(2), overdue] {
            let (reply, after) = run_at(Some(&record), &Command::Abort { token: SECOND }, later);
            assert_eq!(reply, Reply::Done);
            assert_eq!(after.unwrap().orphaned_since(later), Some(NOW));
        }
    }

    #[test]
    fn a_checkpoint_replaces_the_one_before_and_only_in_flight() {
        let (reply, after) = run(Some(&in_flight(1)), &checkpoint(FIRST));
        assert_eq!(reply, Reply::Done);
        let attempt = after.as_ref().unwrap().attempt().unwrap();
        assert_eq!(attempt.checkpoint, Some(Checkpoint::Here(bytes("step"))));
        assert!(after.unwrap().is_in_flight());
        refused(&orphan(1), &checkpoint(FIRST), Reply::Fenced);
    }

    #[test]
    fn an_owner_that_goes_leaves_an_orphan() {
        let (reply, after) = run(Some(&in_flight(1)), &Command::OwnerGone { token: FIRST });
        assert_eq!(reply, Reply::Done);
        assert_eq!(after.unwrap().orphaned_since(NOW), Some(NOW));
        // An orphan already: nothing is written, and its date stays.
        refused(&orphan(1), &Command::OwnerGone { token: FIRST }, Reply::Done);
    }

    #[test]
    fn an_orphan_is_taken_over_completed_or_released() {
        let (reply, after) = run(Some(&orphan(1)), &take_over(FIRST));
        assert_eq!(reply, Reply::Claimed);
        let after = after.unwrap();
        assert!(after.is_in_flight());
        let attempt = after.attempt().unwrap();
        assert_eq!((attempt.token, attempt.number), (OTHER, 2));
        assert_eq!(attempt.checkpoint, Some(Checkpoint::Here(bytes("saved"))));

        let (reply, after) = run(Some(&orphan(1)), &complete(FIRST, "found"));
        assert_eq!(reply, Reply::Done);
        assert!(matches!(after.unwrap().state, State::Completed(_)));

        assert_eq!(run(Some(&orphan(1)), &Command::Release { token: FIRST }), (Reply::Done, None));
    }

    #[test]
    fn a_claim_in_flight_is_neither_taken_over_nor_released() {
        refused(&in_flight(1), &take_over(FIRST), Reply::Fenced);
        refused(&in_flight(1), &Command::Release { token: FIRST }, Reply::Fenced);
    }

    #[test]
    fn any_other_token_is_fenced() {
        for record in [in_flight(1), orphan(1)] {
            for command in all_with_token(OTHER) {
                refused(&record, &command, Reply::Fenced);
            }
        }
        // After a take-over the token of the first attempt is an old one.
        for command in all_with_token(FIRST) {
            refused(&in_flight(2), &command, Reply::Fenced);
        }
    }

    #[test]
    fn completed_takes_the_same_completion_again_and_nothing_else() {
        refused(&completed(), &complete(FIRST, "done"), Reply::Done);
        refused(&completed(), &complete(FIRST, "other"), Reply::AlreadyCompleted);
        refused(&completed(), &complete(OTHER, "done"), Reply::AlreadyCompleted);
        let without = Command::Complete { token: FIRST, response: None, ttl: None };
        refused(&completed(), &without, Reply::AlreadyCompleted);
        for command in &all_with_token(FIRST)[1..] {
            refused(&completed(), command, Reply::AlreadyCompleted);
        }
    }

    #[test]
    fn past_its_deadline_a_claim_counts_as_an_orphan() {
        let limit = Duration::from_millis(100);
        let command =
            Command::Begin { fingerprint: fingerprint("a"), ttl: TTL, max_execution: Some(limit) };
        let record = run(None, &command).1.unwrap();
        let deadline = NOW.after(limit);
        assert_eq!(record.deadline(), Some(deadline));
        assert_eq!(run_at(Some(&record), &begin("a"), Time(deadline.0 - 1)).0, Reply::Locked);
        assert_eq!(run_at(Some(&record), &begin("a"), deadline).0, Reply::Orphaned);
        assert_eq!(record.orphaned_since(deadline), Some(deadline));

        // The slow owner's calls are accepted while no caller took over.
        for command in [complete(OTHER, "late"), checkpoint(OTHER)] {
            assert_eq!(run_at(Some(&record), &command, deadline).0, Reply::Done);
        }
        // An owner that goes after its deadline leaves an orphan that dates from the deadline.
        let gone = Command::OwnerGone { token: OTHER };
        let (_, orphan) = run_at(Some(&record), &gone, deadline.after(limit));
        assert_eq!(orphan.unwrap().orphaned_since(deadline), Some(deadline));

        let (change, reply) = transition(Some(&record), &take_over(OTHER), &key(), deadline);
        assert_eq!(reply, Reply::Claimed);
        let taken = apply(Some(&record), &change.unwrap(), SECOND, deadline).unwrap().unwrap();
        assert_eq!(taken.attempt().unwrap().started_at, deadline);
        let late = transition(Some(&taken), &complete(OTHER, "late"), &key(), deadline);
        assert_eq!(late, (None, Reply::Fenced));
        // An orphan by deadline expires when the TTL after its deadline is over.
        assert_eq!(run_at(Some(&record), &begin("b"), deadline.after(TTL)).0, Reply::Claimed);
    }

    #[test]
    fn a_change_does_not_apply_to_a_record_it_was_not_made_for() {
        let changes = [
            Change::TakeOver { deadline: None },
            Change::Complete { response: None, expires_at: NOW },
            Change::Checkpoint { data: bytes("x") },
            Change::Orphan { since: NOW },
            Change::Remove,
        ];
        for change in changes {
            assert_eq!(apply(None, &change, OTHER, NOW), Err(Inapplicable));
            assert_eq!(apply(Some(&completed()), &change, OTHER, NOW), Err(Inapplicable));
        }
    }

    #[test]
    fn a_record_weighs_itself_and_what_it_points_to() {
        let parts = key().identity().len() + fingerprint("a").to_stored().bytes().len();
        for (record, payload) in
            [(completed(), "done"), (in_flight(1), "saved"), (orphan(1), "saved")]
        {
            assert_eq!(record.weight(), size_of::<Record>() + parts + payload.len());
        }
    }
}
