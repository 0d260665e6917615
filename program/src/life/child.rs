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
        if let Some(id) = self.id() {
            terminate(id);
            if tokio::time::timeout(at_most, self.child.wait()).await.is_ok() {
                return;
            }
            tracing::warn!(server = self.name, "the server did not end in time and is killed");
        }
        let _ = self.child.kill().await;
    }

    /// The process, as long as its end was not seen.
    pub(crate) fn id(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
    }
}

/// A start that fails or is given up leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        self.id().into_iter().for_each(terminate);
    }
}

/// Asks a process to end.
pub(crate) fn terminate(id: Pid) {
    // It may have ended meanwhile.
    let _ = kill_process(id, Signal::TERM);
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
