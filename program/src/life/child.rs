//! The server behind the proxy, when the proxy starts it.

use std::ffi::OsString;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::config::{Address, Target};

/// How long the server may take until it accepts connections.
const START: Duration = Duration::from_secs(60);

/// The pause between two tries to connect.
const TRY: Duration = Duration::from_millis(50);

/// A running server.
pub(crate) struct Server {
    child: Child,
    name: String,
}

impl Server {
    /// Starts the server, and waits until one of the targets accepts a connection.
    ///
    /// # Errors
    /// When the server cannot be started, ends, or accepts no connection within a minute.
    pub(crate) async fn start(
        command: &[OsString],
        targets: &[Target],
    ) -> io::Result<Option<Self>> {
        let [program, arguments @ ..] = command else { return Ok(None) };
        let name = program.to_string_lossy().into_owned();
        // A process group of its own: an interrupt from the terminal must not end the server before the proxy
        // has drained.
        let child = Command::new(program).args(arguments).process_group(0).spawn();
        let child =
            child.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let mut server = Self { child, name };
        let deadline = tokio::time::Instant::now() + START;
        loop {
            for target in targets {
                if can_connect(target).await {
                    return Ok(Some(server));
                }
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended: {status}", server.name)));
            }
            if tokio::time::Instant::now() >= deadline {
                server.stop(Duration::ZERO).await;
                let message = format!("{} cannot be connected to", server.name);
                return Err(io::Error::other(message));
            }
            tokio::time::sleep(TRY).await;
        }
    }

    /// Resolves when the server has ended by itself.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks the server to end, and kills it after `at_most`.
    pub(crate) async fn stop(&mut self, at_most: Duration) {
        if self.terminate() {
            if tokio::time::timeout(at_most, self.child.wait()).await.is_ok() {
                return;
            }
            tracing::warn!(server = self.name, "the server did not end in time and is killed");
        }
        let _ = self.child.kill().await;
    }

    /// The process, as long as its end was not seen.
    ///
    /// ORDER: only the handle of the child reaps it, so that this number belongs to no other process. A copy
    /// of the number outlives the child.
    fn id(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }

    /// Asks the process to end. Returns `false` when its end was seen.
    fn terminate(&self) -> bool {
        let Some(id) = self.id() else { return false };
        // It may have ended meanwhile.
        let _ = kill_process(id, Signal::TERM);
        true
    }
}

/// A start that fails or is given up leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        self.terminate();
    }
}

async fn can_connect(target: &Target) -> bool {
    let connected = async {
        match &target.address {
            Address::Tcp { host, port, .. } => {
                tokio::net::TcpStream::connect((host.as_str(), *port)).await.is_ok()
            }
            Address::Unix(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
        }
    };
    tokio::time::timeout(Duration::from_secs(1), connected).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use rustix::process::test_kill_process;

    use super::*;

    async fn started(command: &[&str]) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap());
        let command: Vec<_> = command.iter().map(OsString::from).collect();
        let targets = [Target::parse(&target).unwrap()];
        Server::start(&command, &targets).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_server_whose_end_was_seen_gets_no_signal() {
        let mut server = started(&["true"]).await;
        assert!(server.id().is_some(), "it cannot have been reaped");
        assert!(server.ended().await.unwrap().success());
        assert!(!server.terminate());
        server.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_server_that_is_let_go_is_asked_to_end() {
        let server = started(&["sleep", "1000000"]).await;
        let id = server.id().unwrap();
        drop(server);
        while test_kill_process(id).is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
