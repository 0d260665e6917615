//! Work that takes longer than a request should.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::text::since_1970;

/// The largest number of remembered jobs. Running jobs are always kept.
const REMEMBERED: usize = 100;

/// The jobs of this process, the newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    list: VecDeque<Job>,
}

#[derive(Clone, Debug)]
struct Job {
    id: u64,
    kind: &'static str,
    name: String,
    began: SystemTime,
    ended: Option<(SystemTime, Result<Value, String>)>,
}

impl Jobs {
    /// Runs `work` on a thread for blocking work and returns the id of its job.
    ///
    /// # Errors
    /// 409 while another job of this kind runs: both would compete for one disk.
    pub(crate) fn begin(
        &self,
        kind: &'static str,
        name: String,
        work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static,
    ) -> Result<u64, Refusal> {
        let id = {
            let mut state = self.0.lock();
            if state.list.iter().any(|job| job.kind == kind && job.ended.is_none()) {
                let message = format!("a {kind} is already running");
                return Err(Refusal::new(http::StatusCode::CONFLICT, "busy", message));
            }
            state.begun += 1;
            let (id, began) = (state.begun, SystemTime::now());
            state.list.push_back(Job { id, kind, name, began, ended: None });
            while state.list.len() > REMEMBERED {
                let Some(at) = state.list.iter().position(|job| job.ended.is_some()) else { break };
                state.list.remove(at);
            }
            id
        };
        let jobs = self.clone();
        let done = tokio::task::spawn_blocking(work);
        tokio::spawn(async move {
            let done = match done.await {
                Ok(done) => done.map_err(|refusal| refusal.message),
                Err(error) => Err(error.to_string()),
            };
            let mut state = jobs.0.lock();
            if let Some(job) = state.list.iter_mut().find(|job| job.id == id) {
                job.ended = Some((SystemTime::now(), done));
            }
        });
        Ok(id)
    }

    pub(crate) fn show(&self, id: &str) -> Option<Value> {
        let id: u64 = id.parse().ok()?;
        self.0.lock().list.iter().find(|job| job.id == id).map(Job::show)
    }

    /// The newest job of this kind and name that has ended, with its result.
    pub(crate) fn last(&self, kind: &str, name: &str) -> Option<Value> {
        let state = self.0.lock();
        let ended = |job: &&Job| job.kind == kind && job.name == name && job.ended.is_some();
        state.list.iter().rev().find(ended).map(Job::show)
    }
}

impl Job {
    fn show(&self) -> Value {
        let mut shown = json!({
            "id": self.id.to_string(), "kind": self.kind, "name": self.name,
            "startedMs": since_1970(self.began), "state": "running",
        });
        if let Some((ended, result)) = &self.ended {
            shown["endedMs"] = json!(since_1970(*ended));
            match result {
                Ok(value) => (shown["state"], shown["result"]) = (json!("done"), value.clone()),
                Err(error) => (shown["state"], shown["error"]) = (json!("failed"), json!(error)),
            }
        }
        shown
    }
}
