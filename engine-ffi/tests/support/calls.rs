// Sequences of calls that bytes choose, with handles that are live, stale, of another kind or made up.
// Shared by `tests/calls.rs`, which takes the bytes from a generator, and by the fuzz target.
//
// These must hold: no call panics, a failed call leaves its outputs zero, every status is one that
// the header names, and at most one claim of a key is not ended.

use std::collections::HashMap;
use std::mem::zeroed;
use std::path::Path;
use std::ptr;

use oncekey_ffi::*;

/// Takes numbers off the front of some bytes; 0 after their end.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn next(&mut self) -> usize {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                usize::from(*first)
            }
            None => 0,
        }
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.next() % values.len()]
    }
}

fn slice(bytes: &[u8]) -> Slice {
    Slice { ptr: bytes.as_ptr(), len: bytes.len() }
}

fn known(status: i32) -> i32 {
    let ours = [ONCEKEY_INVALID_HANDLE, ONCEKEY_BUSY, ONCEKEY_CANCELLED];
    assert!(matches!(status, 0..=22) || ours.contains(&status), "status {status}");
    status
}

/// An open engine for any number of sequences.
pub(crate) struct World {
    engine: Engine,
    sequences: u64,
}

impl World {
    /// In a directory, or in the database of a URL.
    pub(crate) fn open(place: &Path) -> Self {
        let path = place.to_str().expect("a path of text").as_bytes();
        // SAFETY: zeros are options, and all pointers are to values that outlive the call.
        let engine = unsafe {
            let mut options: Options = zeroed();
            options.size = size_of::<Options>() as u32;
            options.segment_bytes = if path.starts_with(b"postgres") { 0 } else { 4 << 20 };
            let mut engine = Engine { id: 0 };
            let status = oncekey_engine_open(slice(path), &options, &mut engine, ptr::null_mut());
            assert_eq!(status, ONCEKEY_OK);
            engine
        };
        Self { engine, sequences: 0 }
    }

    pub(crate) fn run(&mut self, bytes: &[u8]) {
        self.sequences += 1;
        let mut sequence = Sequence {
            engine: self.engine,
            scope: self.sequences.to_string(),
            handles: vec![0, 1, u64::MAX, self.engine.id ^ 1 << 28],
            queues: Vec::new(),
            owners: HashMap::new(),
        };
        let mut choices = Choices(bytes);
        while !choices.0.is_empty() {
            sequence.step(&mut choices);
        }
        sequence.end();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert_eq!(oncekey_engine_free(self.engine), ONCEKEY_OK);
    }
}

struct Sequence {
    engine: Engine,
    scope: String,
    /// Handles of all kinds, live and stale; any call may get any of them.
    handles: Vec<u64>,
    queues: Vec<Queue>,
    /// The claim of a key that was given out and not ended.
    owners: HashMap<u8, u64>,
}

impl Sequence {
    fn step(&mut self, choices: &mut Choices<'_>) {
        let call = choices.next() % 16;
        let handle = choices.of(&self.handles);
        let (claim, orphan) = (Claim { id: handle }, Orphan { id: handle });
        let data = &[b'd'; 300][..choices.next()];
        let mut error = Error { id: 7 };
        let mut kept = 9;
        // SAFETY: all pointers are to values that live until the calls have returned; zeros are
        // values of all outputs.
        unsafe {
            match call {
                0..=3 => self.begin(choices),
                4 => {
                    let status = oncekey_claim_complete(claim, slice(data), &mut kept, &mut error);
                    self.ended(handle, known(status));
                    assert!(status == ONCEKEY_OK || kept == 0);
                }
                5 => {
                    let status = oncekey_claim_abort(claim, &mut error);
                    self.ended(handle, known(status));
                }
                6 => {
                    let status = oncekey_claim_free(claim);
                    error.id = 0;
                    self.ended(handle, known(status));
                }
                7 => drop(known(oncekey_claim_checkpoint(claim, slice(data), &mut error))),
                8 => {
                    let mut info: Info = zeroed();
                    let status = if choices.next().is_multiple_of(2) {
                        oncekey_claim_info(claim, &mut info, &mut error)
                    } else {
                        oncekey_orphan_info(orphan, &mut info, &mut error)
                    };
                    assert_eq!(known(status) == ONCEKEY_OK, info.attempt > 0);
                    assert_eq!(oncekey_buffer_free(&mut info.data), ONCEKEY_OK);
                }
                9 => {
                    let mut taken = Claim { id: 7 };
                    let status = oncekey_orphan_take_over(orphan, &mut taken, &mut error);
                    assert_eq!(known(status) == ONCEKEY_OK, taken.id != 0);
                    self.handles.push(taken.id);
                }
                10 => drop(known(oncekey_orphan_release(orphan, &mut error))),
                11 => {
                    error.id = 0;
                    known(oncekey_orphan_free(orphan));
                }
                12 => {
                    error.id = 0;
                    known(oncekey_fingerprint_free(Fingerprint { id: handle }));
                }
                13 => {
                    let mut queue = Queue { id: 0 };
                    known(oncekey_queue_new(self.engine, 4, &mut queue, &mut error));
                    self.queues.push(queue);
                    self.handles.push(queue.id);
                }
                14 => {
                    error.id = 0;
                    self.submit(choices, handle, data);
                }
                _ => {
                    error.id = 0;
                    self.poll(choices);
                }
            }
        }
        known(oncekey_error_free(error));
    }

    fn fingerprint(&mut self, choices: &mut Choices<'_>) -> Fingerprint {
        let value = [choices.next() as u8 % 2];
        let part = Part { label: slice(b"body"), value: slice(&value) };
        let mut made = Fingerprint { id: 0 };
        // SAFETY: as in `step`.
        let status =
            unsafe { oncekey_fingerprint_from_parts(&part, 1, &mut made, ptr::null_mut()) };
        assert_eq!(status, ONCEKEY_OK);
        self.handles.push(made.id);
        made
    }

    fn begin(&mut self, choices: &mut Choices<'_>) {
        let name = [choices.next() as u8 % 4];
        let key = Key { scope: slice(self.scope.as_bytes()), key: slice(&name) };
        let fingerprint = self.fingerprint(choices);
        let wait = choices.of(&[0, 0, 0, 1]);
        let mut error = Error { id: 7 };
        // SAFETY: as in `step`.
        let answer = unsafe {
            let mut answer: Answer = zeroed();
            let status =
                oncekey_begin(self.engine, key, fingerprint, wait, &mut answer, &mut error);
            assert_eq!(status, ONCEKEY_OK);
            answer
        };
        self.answered(name[0], answer);
    }

    fn answered(&mut self, name: u8, mut answer: Answer) {
        assert!(
            (ONCEKEY_CLAIMED..=ONCEKEY_ORPHANED).contains(&answer.outcome),
            "outcome {}",
            answer.outcome
        );
        assert_eq!(answer.outcome == ONCEKEY_CLAIMED, answer.claim.id != 0);
        assert_eq!(answer.outcome == ONCEKEY_ORPHANED, answer.orphan.id != 0);
        if answer.claim.id != 0 {
            let before = self.owners.insert(name, answer.claim.id);
            assert_eq!(before, None, "a second claim of key {name}");
        }
        self.handles.extend([answer.claim.id, answer.orphan.id, answer.data.owner]);
        // SAFETY: the buffer is the one of the answer.
        unsafe { assert_eq!(oncekey_buffer_free(&mut answer.data), ONCEKEY_OK) };
    }

    /// The statuses after which the claim is gone. After all others it is still its owner's.
    fn ended(&mut self, claim: u64, status: i32) {
        if matches!(status, ONCEKEY_OK | ONCEKEY_FENCED | ONCEKEY_ALREADY_COMPLETED) {
            self.owners.retain(|_, owner| *owner != claim);
        }
    }

    fn submit(&mut self, choices: &mut Choices<'_>, handle: u64, data: &[u8]) {
        let queue = choices.of(&self.queues_or_none());
        let name = [choices.next() as u8 % 4];
        // The owner of a claim is not known before the poll, so queues use other keys.
        let scope = format!("{}-queue", self.scope);
        // The operations, and one beyond on either side.
        let op = ONCEKEY_OP_BEGIN - 1 + choices.next() as u32 % 9;
        let fingerprint = self.fingerprint(choices);
        // SAFETY: as in `step`.
        unsafe {
            let mut submission: Submission = zeroed();
            submission.op = op;
            submission.user_data = u64::from(name[0]);
            // A begin that still waits at the end is freed with its queue.
            submission.max_wait_ms = if data.len() % 2 == 1 { 60_000 } else { 0 };
            // Each flag that there is, and one that there is not.
            submission.flags = (choices.next() as u32 % 9) * ONCEKEY_NO_RESPONSE;
            let part = Part { label: slice(b"body"), value: slice(data) };
            submission.parts = &part;
            submission.part_count = usize::from(op != ONCEKEY_OP_BEGIN || name[0] != 0);
            submission.key = Key { scope: slice(scope.as_bytes()), key: slice(&name) };
            submission.fingerprint = fingerprint;
            submission.claim = Claim { id: handle };
            submission.orphan = Orphan { id: handle };
            submission.data = slice(data);
            let mut accepted = 7;
            let none = ptr::null_mut();
            let status = oncekey_queue_submit(queue, &submission, 1, &mut accepted, none);
            assert_eq!(known(status) == ONCEKEY_OK, accepted == 1);
            // A claim that may end in the queue is no longer the key's owner for certain.
            if status == ONCEKEY_OK && [ONCEKEY_OP_COMPLETE, ONCEKEY_OP_ABORT].contains(&op) {
                self.owners.retain(|_, owner| *owner != handle);
            }
        }
    }

    fn poll(&mut self, choices: &mut Choices<'_>) {
        let queue = choices.of(&self.queues_or_none());
        // SAFETY: as in `step`.
        unsafe {
            let mut completions: [Completion; 3] = zeroed();
            let mut count = 7;
            let choice = choices.next();
            let room = 1 + choice % 3;
            if choice >= 128 {
                known(oncekey_queue_cancel(queue, choice as u64 % 4));
            }
            let first = completions.as_mut_ptr();
            let status = oncekey_queue_poll(queue, first, room, 1, &mut count, ptr::null_mut());
            assert!(known(status) == ONCEKEY_OK || count == 0);
            for completion in &mut completions[..count] {
                known(completion.status);
                let answer = &mut completion.answer;
                self.handles.extend([answer.claim.id, answer.orphan.id]);
                assert_eq!(oncekey_buffer_free(&mut answer.data), ONCEKEY_OK);
                assert_eq!(oncekey_error_free(completion.error), ONCEKEY_OK);
            }
            if choices.next().is_multiple_of(8) {
                known(oncekey_queue_free(queue));
            }
        }
    }

    fn queues_or_none(&self) -> Vec<Queue> {
        self.queues.iter().copied().chain([Queue { id: 3 }]).collect()
    }

    /// Frees everything that is still there, by trying every handle as every kind.
    fn end(self) {
        for queue in self.queues {
            known(oncekey_queue_free(queue));
        }
        for id in self.handles {
            known(oncekey_claim_free(Claim { id }));
            known(oncekey_orphan_free(Orphan { id }));
            known(oncekey_fingerprint_free(Fingerprint { id }));
            let mut buffer = Buffer { ptr: ptr::null(), len: 0, owner: id };
            // SAFETY: the buffer lives until the call has returned.
            unsafe { known(oncekey_buffer_free(&mut buffer)) };
        }
    }
}
