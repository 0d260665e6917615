//! The audit log: a line before each change, durable before the change is made, and a line after it.

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::caller::Caller;
use super::refusal::{Refusal, blocking};
use super::text::since_1970;
use crate::log;

/// The destination of the lines: a file, or the log (`None`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit(pub(crate) Option<PathBuf>);

/// The number that joins the two lines of one change, unique in this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A change that a caller requests. Scope and key are percent-encoded.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) action: &'static str,
    pub(crate) scope: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) reason: Option<String>,
    /// The name of a backup.
    pub(crate) name: Option<String>,
}

impl Change {
    pub(crate) fn of(action: &'static str) -> Self {
        Self { action, ..Self::default() }
    }
}

impl Audit {
    /// Makes a change between its two lines.
    ///
    /// DURABLE: the first line is synced before the change begins, so that every change has a line.
    pub(crate) async fn around<T>(
        &self,
        caller: &Caller,
        change: Change,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let line = |result: &str| {
            let Change { action, scope, key, token, reason, name } = &change;
            let mut line = json!({
                "atMs": since_1970(SystemTime::now()), "id": id, "who": caller.name,
                "peer": caller.peer, "action": action, "result": result,
            });
            let details = [
                ("scope", scope),
                ("key", key),
                ("token", token),
                ("reason", reason),
                ("name", name),
            ];
            for (member, value) in details {
                if let Some(value) = value {
                    line[member] = json!(value);
                }
            }
            line
        };
        self.write(line("asked")).await.map_err(|error| {
            let message = format!("the audit log cannot be written, so nothing was done: {error}");
            Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, "audit_failed", message)
        })?;
        let done = work.await;
        let result = match &done {
            Ok(_) => "done".to_owned(),
            Err(refusal) => format!("refused: {}", refusal.message),
        };
        if let Err(error) = self.write(line(&result)).await {
            log::audit_incomplete(&error);
        }
        done
    }

    async fn write(&self, line: Value) -> io::Result<()> {
        let Some(path) = self.0.clone() else {
            log::audited(&line.to_string());
            return Ok(());
        };
        let written = blocking(move || Ok(append(&path, &format!("{line}\n")))).await;
        written.unwrap_or_else(|refusal| Err(io::Error::other(refusal.message)))
    }
}

/// Opens the file for each line, so that the file may be moved away at any time.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let exists = path.exists();
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    if !exists && let Some(directory) = path.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}
