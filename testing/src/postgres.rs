//! A PostgreSQL server for the tests: in a temporary directory, as a user without rights. It ends
//! with the process that started it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Names the folder of the programs, which is otherwise the newest of Debian or the first of the
/// path.
const BIN: &str = "ONCEKEY_POSTGRES_BIN";

/// Whether a suite for either kind of store runs on a database: when `ONCEKEY_TEST_STORE` is
/// `postgres`. Without the variable, or with `embedded`, the suite runs on a directory.
pub fn is_chosen() -> bool {
    match std::env::var("ONCEKEY_TEST_STORE").as_deref() {
        Err(_) | Ok("" | "embedded") => false,
        Ok("postgres") => true,
        Ok(other) => panic!("ONCEKEY_TEST_STORE is embedded or postgres, not {other}"),
    }
}

/// A running server and the number of databases made in it.
#[derive(Debug)]
pub struct PostgresServer {
    dir: PathBuf,
    port: u16,
    databases: AtomicU64,
}

/// The folder of `initdb` and `postgres`: the folder that `ONCEKEY_POSTGRES_BIN` names, else the
/// newest version that Debian installed, else the first of the path.
pub fn programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(BIN) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u64, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.split('.').next()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .collect();
    versions.sort();
    (versions.into_iter().rev().map(|(_, dir)| dir))
        .chain(std::env::split_paths(&path))
        .find(|dir| ["postgres", "initdb"].iter().all(|program| dir.join(program).exists()))
}

/// The path of a program of PostgreSQL, beside the server or else in the path.
pub fn program(name: &str) -> PathBuf {
    let beside = programs().map(|dir| dir.join(name)).filter(|program| program.exists());
    beside.unwrap_or_else(|| name.into())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0)
}

/// A command that runs as a user that the server accepts, and gets `signal` when its parent ends.
pub fn as_user(signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg(format!("--pdeathsig={signal}")).arg("--");
    command
}

/// Gives a folder to the user of the programs.
pub fn give(dir: &Path) {
    if is_root() {
        let given = Command::new("chown").args(["-R", "postgres"]).arg(dir).status();
        assert!(given.is_ok_and(|status| status.success()), "{} can be given away", dir.display());
    }
}

/// Makes the files of an empty cluster in `data`. Its superuser is `postgres`, without a password.
pub fn init(programs: &Path, data: &Path) {
    let mut initdb = as_user("KILL");
    initdb
        .arg(programs.join("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D"])
        .arg(data)
        .current_dir("/");
    done(&mut initdb);
}

fn done(command: &mut Command) {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("{command:?}: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

impl PostgresServer {
    /// The server of this process. `None`, with a line on standard output, where PostgreSQL is not
    /// installed.
    pub fn of_this_process() -> Option<&'static Self> {
        static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();
        let server = SERVER.get_or_init(|| programs().map(|programs| Self::start(&programs)));
        if server.is_none() {
            println!("LEFT OUT: PostgreSQL is not installed (Debian: postgresql-15)");
        }
        server.as_ref()
    }

    fn start(programs: &Path) -> Self {
        forget_old_ones();
        let dir = std::env::temp_dir().join(format!("oncekey-pg-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&dir);
        let made = std::fs::create_dir_all(&dir);
        assert!(made.is_ok(), "{}: {made:?}", dir.display());
        give(&dir);
        init(programs, &dir.join("data"));
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let server = Self { dir, port, databases: AtomicU64::new(0) };
        let mut command = server.command(programs);
        // The kernel ends the server with the thread that started it, so this thread lives as long
        // as the process.
        std::thread::spawn(move || command.spawn().and_then(|mut child| child.wait()));
        let start = Instant::now();
        while !server.is_ready() {
            assert!(start.elapsed() < Duration::from_secs(60), "the server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn command(&self, programs: &Path) -> Command {
        let mut command = as_user("INT");
        command.arg(programs.join("postgres")).arg("-D").arg(self.dir.join("data"));
        for setting in [
            "listen_addresses=127.0.0.1",
            "max_connections=600",
            "shared_buffers=64MB",
            "autovacuum=off",
            &format!("unix_socket_directories={}", self.dir.display()),
            &format!("port={}", self.port),
        ] {
            command.args(["-c", setting]);
        }
        let log =
            || std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log"));
        let (out, err) = (log().expect("a log"), log().expect("a log"));
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(out).stderr(err);
        command
    }

    fn is_ready(&self) -> bool {
        let status = std::fs::read_to_string(self.dir.join("data/postmaster.pid"));
        status.is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"))
    }

    /// The folder of the socket and of the log; the files of the cluster are in its folder `data`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The port of the server, on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a database and returns its name.
    pub fn database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut psql = Command::new(program("psql"));
        psql.args(["-X", "-q", "-c", &format!("CREATE DATABASE {name}")]);
        done(psql.arg(self.url("postgres")));
        name
    }

    /// The address of a database of this name.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// Removes the directories of processes that have ended.
fn forget_old_ones() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(pid) = name.strip_prefix("oncekey-pg-")
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            let _gone = std::fs::remove_dir_all(entry.path());
        }
    }
}
