//! The table of docs/clients.md as a state machine. The caller passes the time in; no clock is read.

use std::fmt;
use std::time::Duration;

use crate::answer::Answer;

/// When to stop and how long to wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// The number of tries without a settling answer, not counting *locked*. Default 5.
    pub tries: u32,
    /// The time for all tries and waits: a wait that would end after it is not begun. Default 60 s.
    pub deadline: Duration,
    /// The time for one try, including its whole answer. Default 35 s: a server answers within 30 s.
    pub try_timeout: Duration,
    /// The first wait is shorter than this, and the bound doubles with each later wait. Default 100 ms.
    pub backoff: Duration,
    /// The largest bound of such a wait. Default 5 s.
    pub max_backoff: Duration,
    /// The longest wait that a server can ask for. Default 30 s.
    pub max_wait: Duration,
    /// How long the server remembers a key. Default 24 h.
    pub ttl: Duration,
    /// The margin before `ttl`: within it an operation is not sent any more. Default 1 h.
    pub margin: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tries: 5,
            deadline: Duration::from_secs(60),
            try_timeout: Duration::from_secs(35),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            max_wait: Duration::from_secs(30),
            ttl: Duration::from_secs(24 * 3600),
            margin: Duration::from_secs(3600),
        }
    }
}

impl Policy {
    /// Whether an operation whose key was made `age` ago may be sent. If not, the server may have
    /// forgotten the key and would execute again: look the operation up.
    pub fn may_send(&self, age: Duration) -> bool {
        age <= self.ttl.saturating_sub(self.margin)
    }
}

/// The next step after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The answer is final, be it 201 or 404.
    Done,
    /// Send the same key and bytes again after this time.
    Again {
        /// How long to wait.
        after: Duration,
    },
    /// Do not send again now.
    Stop(Why),
}

/// Why an operation is not sent again now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The operation may have happened or not: look it up, never send it under a new key.
    Unknown,
    /// The operation happened, but its response is not kept: fetch the outcome.
    NotStored,
    /// This client is wrong: it sent another request under the key, or an invalid key.
    Bug,
    /// Nothing happened: refresh the credentials, then send again with the same key.
    Unauthorized,
    /// Not settled within the tries or the deadline: send again later with the same key.
    GaveUp,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the operation may have happened or not: look it up",
            Self::NotStored => "the operation happened, its response is not kept",
            Self::Bug => "the client uses the idempotency key in a wrong way",
            Self::Unauthorized => "the credentials are refused",
            Self::GaveUp => "the operation is not settled yet",
        })
    }
}

/// The tries of one operation.
#[derive(Clone, Debug)]
pub struct Retry {
    policy: Policy,
    failed: u32,
    waits: u32,
    /// The state of the jitter.
    random: u64,
}

enum Verdict {
    Done,
    Locked,
    Again,
    Stop(Why),
}

impl Retry {
    /// For an operation that has not been sent yet, or not since a restart. The system seeds the jitter.
    pub fn new(policy: Policy) -> Self {
        // Without randomness all clients wait equally long; nothing else is lost.
        Self::with_seed(policy, getrandom::u64().unwrap_or_default())
    }

    /// The same, with jitter that a test can repeat.
    pub fn with_seed(policy: Policy, seed: u64) -> Self {
        Self { policy, failed: 0, waits: 0, random: seed }
    }

    /// The next step after a try that got `answer`. `elapsed` counts from the start of the first try.
    pub fn next(&mut self, answer: &Answer, elapsed: Duration) -> Next {
        match judge(answer) {
            Verdict::Done => return Next::Done,
            Verdict::Stop(why) => return Next::Stop(why),
            Verdict::Locked => {}
            Verdict::Again => self.failed += 1,
        }
        if self.failed >= self.policy.tries {
            return Next::Stop(Why::GaveUp);
        }
        let after = self.wait(answer.wait);
        if elapsed.saturating_add(after) > self.policy.deadline {
            return Next::Stop(Why::GaveUp);
        }
        Next::Again { after }
    }

    /// The wait that the server asked for and a little jitter, or full jitter below a ceiling that doubles.
    fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let Policy { backoff, max_backoff, max_wait, .. } = self.policy;
        let doubled = backoff.saturating_mul(1u32.checked_shl(self.waits).unwrap_or(u32::MAX));
        self.waits += 1;
        let ceiling = if asked.is_some() { backoff } else { doubled.min(max_backoff) };
        asked.unwrap_or_default().min(max_wait).saturating_add(ceiling.mul_f64(self.random()))
    }

    /// A number from 0 to below 1: splitmix64 of Steele, Lea and Flood.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The table: the first matching line decides.
fn judge(answer: &Answer) -> Verdict {
    let Some(status) = answer.status else { return Verdict::Again };
    if answer.replayed {
        return Verdict::Done;
    }
    match answer.code().unwrap_or_default() {
        "idempotency_key_locked" => return Verdict::Locked,
        "idempotency_store_unavailable"
        | "upstream_unreachable"
        | "idempotency_overloaded"
        | "idempotency_body_unreadable"
        | "idempotency_body_timeout" => return Verdict::Again,
        "idempotency_outcome_unknown" => return Verdict::Stop(Why::Unknown),
        "idempotency_response_not_stored" => return Verdict::Stop(Why::NotStored),
        "idempotency_key_mismatch"
        | "idempotency_key_invalid"
        | "idempotency_key_missing"
        | "idempotency_scope_missing"
        | "idempotency_body_too_large" => return Verdict::Stop(Why::Bug),
        _ => {}
    }
    match status {
        401 => Verdict::Stop(Why::Unauthorized),
        408 | 425 | 429 | 500.. => Verdict::Again,
        _ => Verdict::Done,
    }
}
