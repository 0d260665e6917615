//! Redis with `appendfsync always`: it answers after the AOF is synced.
//!
//! - A begin is `SET key claim NX GET`, a complete is `SET key record`: one command each.
//! - All commands that one turn of its event loop reads are made durable by one sync: Redis groups
//!   by itself. Pipelined: one connection for all callers, each write holds whatever is queued, as
//!   clients with multiplexing do. By connection: one connection and thread for each caller.
//! - A Unix socket, no snapshots, and no rewriting of the AOF at all: Redis is spared the work
//!   that would give the space of overwritten claims back.

use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use oncekey_benches::Result;
use oncekey_benches::usage::Usage;
use parking_lot::{Condvar, Mutex};
use rustix::process::Signal;

use super::{Server, SocketDir, find, this_user};
use crate::rival::{Answer, Rival};
use crate::work::{Id, Work};

/// Whether a begin got the key, or a complete was done: what every command answers.
type Reply = std::result::Result<(), String>;

/// A server of this run.
pub struct Redis {
    server: Server,
    socket: PathBuf,
    work: Work,
    _dir: SocketDir,
}

impl Redis {
    /// Starts a server in `dir`.
    ///
    /// # Errors
    /// No server.
    pub fn start(dir: &Path, work: &Work) -> Result<Self> {
        find("redis-server")?;
        std::fs::create_dir_all(dir)?;
        let sockets = SocketDir::create("redis")?;
        let socket = sockets.0.join("redis.sock");
        let (data, path) = (dir.display().to_string(), socket.display().to_string());
        #[rustfmt::skip]
        let command = [
            "redis-server", "--port", "0", "--unixsocket", &path, "--dir", &data, "--daemonize", "no",
            "--appendonly", "yes", "--appendfsync", "always", "--save", "",
            "--auto-aof-rewrite-percentage", "0", "--no-appendfsync-on-rewrite", "no",
            "--maxclients", "2048",
        ];
        let mut server = Server::start(&command, this_user(), Signal::TERM, &dir.join("log"))?;
        server.wait_until(|| {
            let mut connection = UnixStream::connect(&socket).ok()?;
            connection.write_all(b"*1\r\n$4\r\nPING\r\n").ok()?;
            let mut answer = [0; 7];
            connection.read_exact(&mut answer).ok()?;
            (&answer == b"+PONG\r\n").then_some(())
        })?;
        Ok(Self { server, socket, work: work.clone(), _dir: sockets })
    }

    /// Where clients find it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it has spent.
    ///
    /// # Errors
    /// The server is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.server.usage()
    }
}

/// Appends the command that begins or completes `id`.
fn command(out: &mut Vec<u8>, work: &Work, id: Id, complete: bool) {
    let row = id.row();
    let value = if complete { &work.record } else { &work.claim };
    out.extend_from_slice(if complete { b"*3\r\n" } else { b"*5\r\n" });
    for part in [b"SET", &row[..], value] {
        // Writing to a vector does not fail.
        drop(write!(out, "${}\r\n", part.len()));
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    if !complete {
        out.extend_from_slice(b"$2\r\nNX\r\n$3\r\nGET\r\n");
    }
}

/// Reads one answer: `+OK` to a complete, nil to a begin that got the key.
fn answer(connection: &mut impl Read) -> Result<Reply> {
    let mut line = [0; 5];
    connection.read_exact(&mut line)?;
    Ok(match &line {
        b"+OK\r\n" | b"$-1\r\n" => Ok(()),
        other => Err(format!("unexpected answer: {}", String::from_utf8_lossy(other))),
    })
}

/// One connection and one thread for each caller.
pub struct Connections {
    redis: Redis,
    idle: Mutex<Vec<UnixStream>>,
}

impl Connections {
    /// Starts a server in `dir`.
    ///
    /// # Errors
    /// No server.
    pub fn start(dir: &Path, work: &Work) -> Result<Self> {
        Ok(Self { redis: Redis::start(dir, work)?, idle: Mutex::default() })
    }
}

impl Rival for Connections {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        let idle = self.idle.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => UnixStream::connect(&self.redis.socket)?,
        };
        let mut bytes = Vec::with_capacity(self.redis.work.record.len() + 128);
        for complete in [false, true] {
            bytes.clear();
            command(&mut bytes, &self.redis.work, id, complete);
            connection.write_all(&bytes)?;
            answer(&mut connection)??;
        }
        self.idle.lock().push(connection);
        Ok(())
    }

    fn needs_threads(&self) -> bool {
        true
    }

    /// Nothing is queued: what was answered is synced, and nothing is ever rewritten.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn servers(&self) -> Result<Usage> {
        self.redis.usage()
    }
}

/// One connection for all callers.
pub struct Pipelined {
    redis: Redis,
    queue: Arc<Queue>,
    connection: UnixStream,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    /// In the order of their commands: answers come in the same.
    callers: VecDeque<oneshot::Sender<Reply>>,
    stopped: bool,
}

impl Pipelined {
    /// Starts a server in `dir`.
    ///
    /// # Errors
    /// No server.
    pub fn start(dir: &Path, work: &Work) -> Result<Self> {
        let redis = Redis::start(dir, work)?;
        let connection = UnixStream::connect(&redis.socket)?;
        let queue = Arc::new(Queue::default());
        let (writer, reader) = (connection.try_clone()?, connection.try_clone()?);
        let threads = vec![
            std::thread::spawn({
                let queue = queue.clone();
                move || queue.write(writer)
            }),
            std::thread::spawn({
                let queue = queue.clone();
                move || queue.read(reader)
            }),
        ];
        Ok(Self { redis, queue, connection, threads })
    }

    fn submit(&self, id: Id, complete: bool) -> oneshot::Receiver<Reply> {
        let (caller, receiver) = oneshot::channel();
        let mut inner = self.queue.inner.lock();
        if inner.bytes.is_empty() {
            self.queue.wake.notify_one();
        }
        command(&mut inner.bytes, &self.redis.work, id, complete);
        inner.callers.push_back(caller);
        receiver
    }
}

impl Queue {
    fn write(&self, mut connection: UnixStream) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let mut inner = self.inner.lock();
            while inner.bytes.is_empty() {
                if inner.stopped {
                    return;
                }
                self.wake.wait(&mut inner);
            }
            std::mem::swap(&mut inner.bytes, &mut bytes);
            drop(inner);
            if connection.write_all(&bytes).is_err() {
                // The reader ends too, and drops those who wait.
                return;
            }
        }
    }

    fn read(&self, connection: UnixStream) {
        let mut connection = BufReader::with_capacity(64 << 10, connection);
        while let Ok(reply) = answer(&mut connection) {
            let Some(caller) = self.inner.lock().callers.pop_front() else {
                break;
            };
            // A caller that went away needs no answer.
            drop(caller.send(reply));
        }
        self.inner.lock().callers.clear();
    }
}

impl Rival for Pipelined {
    fn pair_blocking(&self, id: Id) -> Result<()> {
        self.submit(id, false).recv()??;
        Ok(self.submit(id, true).recv()??)
    }

    fn pair(&self, id: Id) -> Answer<'_> {
        Box::pin(async move {
            self.submit(id, false).await??;
            Ok(self.submit(id, true).await??)
        })
    }

    /// Nothing is queued: what was answered is synced, and nothing is ever rewritten.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn servers(&self) -> Result<Usage> {
        self.redis.usage()
    }
}

impl Drop for Pipelined {
    fn drop(&mut self) {
        self.queue.inner.lock().stopped = true;
        self.queue.wake.notify_one();
        // Wakes the reader; a connection that is closed already has done so.
        drop(self.connection.shutdown(Shutdown::Both));
        for thread in self.threads.drain(..) {
            // Neither thread panics, and their callers would know.
            drop(thread.join());
        }
    }
}
