//! Servers, started for a run in its directory and stopped with it.

pub mod oncekey_postgres;
pub mod postgres;
pub mod postgres_groups;
pub mod redis;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oncekey_benches::Result;
use oncekey_benches::usage::Usage;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers that run, and how to stop them: for a signal, which runs no destructor.
static RUNNING: Mutex<Vec<(u32, Signal)>> = Mutex::new(Vec::new());

/// Stops all servers and waits until they are gone, without the help of those who hold them.
pub fn stop_all() {
    let running = std::mem::take(&mut *RUNNING.lock());
    for (id, signal) in &running {
        send(*id, *signal);
    }
    let start = Instant::now();
    let lives = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // Ended, but nobody has asked how: as good as gone.
        stat.rsplit_once(')').is_some_and(|(_, fields)| !fields.starts_with(" Z"))
    };
    while running.iter().any(|(id, _)| lives(id)) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send(id: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(id as i32) {
        // One that ended by itself needs no signal.
        let _gone = kill_process(pid, signal);
    }
}

/// A server process, stopped when dropped, and by the kernel if this program dies first.
#[derive(Debug)]
pub struct Server {
    child: Child,
    stop: Signal,
}

impl Server {
    /// Starts `program`, which must stop on `stop`, as `user` if this program runs as root, with
    /// its output in `log`.
    ///
    /// # Errors
    /// No such program.
    pub fn start(command: &[&str], user: &str, stop: Signal, log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        let signal = format!("--pdeathsig={}", if stop == Signal::INT { "INT" } else { "TERM" });
        let child = as_user(user, &[&signal])
            .args(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        RUNNING.lock().push((child.id(), stop));
        Ok(Self { child, stop })
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The server ended, or was not ready in time.
    pub fn wait_until<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(it) = ready() {
                return Ok(it);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("a server ended at once: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("a server did not start in time".into())
    }

    /// What the process, its children and their children have spent; ended ones are in the sums of
    /// those who started them.
    ///
    /// # Errors
    /// The server is gone.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::of(self.child.id())?;
        for child in children(self.child.id())? {
            // One that ended in between is in its parent's sum the next time.
            sum = sum + Usage::of(child).unwrap_or_default();
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        RUNNING.lock().retain(|(id, _)| *id != self.child.id());
        send(self.child.id(), self.stop);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // It does not stop: nothing is left but to kill it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The first directory of the path that holds a program.
fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|dir| dir.join(program).exists())
        .ok_or_else(|| format!("{program} is not installed").into())
}

/// Servers put all their processes directly under the first.
fn children(parent: u32) -> Result<Vec<u32>> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let list = std::fs::read_to_string(path)?;
    Ok(list.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect())
}

/// Who a server runs as whose files are in this run's directory: the user of this program.
pub fn this_user() -> &'static str {
    if rustix::process::geteuid().is_root() { "root" } else { "" }
}

/// A command that runs as `user`, if this program runs as root, else as its own user.
fn as_user(user: &str, options: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
        command.args([&user, &group, "--clear-groups"]);
    }
    command.args(options).arg("--");
    command
}

/// A directory for a socket: paths of sockets must be short, and those of stores are not.
#[derive(Debug)]
struct SocketDir(PathBuf);

impl SocketDir {
    fn create(name: &str) -> Result<Self> {
        // Two servers of one kind may run at a time.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("oncekey-{name}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        // A leftover is an empty directory.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
