//! A primary that is killed and a standby that takes its place.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oncekey::{Begin, Engine, ErrorKind, Fingerprint, Key};
use oncekey_postgres::Options;
use oncekey_testing::postgres;

fn as_user(program: &str) -> Command {
    let mut command = postgres::as_user("KILL");
    command.arg(postgres::program(program));
    command
}

fn done(mut command: Command) -> bool {
    let output = command.stdin(Stdio::null()).output().unwrap();
    output.status.success()
}

/// A directory with a primary and a standby.
struct Pair {
    dir: PathBuf,
    servers: [Option<Child>; 2],
}

impl Pair {
    fn start(name: &str) -> Option<Self> {
        let Some(programs) = postgres::programs().filter(|dir| dir.join("pg_basebackup").exists())
        else {
            println!("LEFT OUT: pg_basebackup is not installed (Debian: postgresql-15)");
            return None;
        };
        let dir = std::env::temp_dir().join(format!("oncekey-fail-{name}-{}", std::process::id()));
        let _old = std::fs::remove_dir_all(&dir);
        for place in ["0", "1"] {
            std::fs::create_dir_all(dir.join(place)).unwrap();
        }
        postgres::give(&dir);
        let mut pair = Self { dir, servers: [None, None] };
        postgres::init(&programs, &pair.data(0));
        pair.run(0);
        let mut copy = as_user("pg_basebackup");
        copy.args(["-U", "postgres", "-c", "fast", "-R", "-X", "stream", "-h"])
            .arg(pair.dir.join("0"));
        copy.arg("-D").arg(pair.data(1)).current_dir(&pair.dir);
        assert!(done(copy));
        let auto = pair.data(1).join("postgresql.auto.conf");
        let text = std::fs::read_to_string(&auto).unwrap();
        let named =
            text.replace("primary_conninfo = '", "primary_conninfo = 'application_name=standby ");
        std::fs::write(&auto, named).unwrap();
        pair.run(1);
        Some(pair)
    }

    fn data(&self, which: usize) -> PathBuf {
        self.dir.join(which.to_string()).join("data")
    }

    fn run(&mut self, which: usize) {
        let sockets = self.dir.join(which.to_string());
        let mut server = as_user("postgres");
        server.arg("-D").arg(self.data(which)).args([
            "-c",
            "listen_addresses=",
            "-c",
            "max_connections=40",
        ]);
        server.args(["-c", "shared_buffers=32MB", "-c"]);
        server.arg(format!("unix_socket_directories={}", sockets.display()));
        server
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.servers[which] = Some(server.spawn().unwrap());
        let start = Instant::now();
        while !self.try_sql(which, "SELECT 1") {
            assert!(start.elapsed() < Duration::from_secs(60), "the server did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_sql(&self, which: usize, text: &str) -> bool {
        let mut psql = Command::new(postgres::program("psql"));
        psql.args(["-X", "-q", "-U", "postgres", "-c", text, "-h"])
            .arg(self.dir.join(which.to_string()));
        done(psql)
    }

    fn sql(&self, which: usize, text: &str) {
        assert!(self.try_sql(which, text), "{text}");
    }

    /// The primary is killed with all its processes; the standby takes its place.
    fn fail_over(&mut self) {
        let pid = std::fs::read_to_string(self.data(0).join("postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap().to_owned();
        let mut server = self.servers[0].take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        // The children of a postmaster that is gone end by themselves; what they have not sent is lost.
        let start = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists()
            && start.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.sql(1, "SELECT pg_promote()");
    }

    fn options(&self) -> Options {
        let at = self.dir.display();
        let url = format!("host={at}/0,{at}/1 user=postgres dbname=postgres");
        let engine = oncekey::fleet::Options {
            overload_after: Duration::from_secs(60),
            ..Default::default()
        };
        Options::new(url).engine(engine).create(true)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for server in self.servers.iter_mut().flatten() {
            let _gone = server.kill();
            let _gone = server.wait();
        }
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

fn begin(engine: &Engine, name: &str) -> Result<Begin, oncekey::Error> {
    let fingerprint = Fingerprint::builder().part("body", "body").finish();
    engine.begin(&Key::new("", name).unwrap(), fingerprint).wait()
}

fn pair(engine: &Engine, name: &str) {
    match begin(engine, name).unwrap() {
        Begin::Claimed(claim) => drop(claim.complete(name.as_bytes()).wait().unwrap()),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn what_a_synchronous_standby_acknowledged_is_there_after_a_failover() {
    let Some(mut servers) = Pair::start("synchronous") else { return };
    servers.sql(0, "ALTER SYSTEM SET synchronous_standby_names = 'standby'");
    servers.sql(0, "SELECT pg_reload_conf()");
    let engine = servers.options().replication_required(true).open();
    // Of the copy: it waits for nobody.
    servers.sql(1, "ALTER SYSTEM SET synchronous_standby_names = '*'; ");
    let engine = engine.unwrap();
    for number in 0..50 {
        pair(&engine, &number.to_string());
    }
    let Begin::Claimed(held) = begin(&engine, "held").unwrap() else { panic!() };
    servers.sql(1, "ALTER SYSTEM RESET synchronous_standby_names");
    servers.fail_over();
    let other = {
        let at = servers.dir.display();
        Options::new(format!("host={at}/1 user=postgres dbname=postgres")).open().unwrap()
    };
    for number in 0..50 {
        assert!(
            matches!(begin(&other, &number.to_string()).unwrap(), Begin::Replay(_)),
            "{number}"
        );
    }
    // No instance is declared ended for the failover, and the holder of a claim keeps it.
    assert!(matches!(begin(&other, "held").unwrap(), Begin::Locked(_)));
    let old = held.token();
    drop(other);
    // The surviving engine refuses a server without standbys, because replication is required.
    drop((engine, held));
    let engine = servers.options().open().unwrap();
    let Begin::Claimed(new) = begin(&engine, "new").unwrap() else { panic!() };
    assert!(new.token() > old, "another generation");
    new.complete(b"done").wait().unwrap();
}

#[test]
fn an_asynchronous_failover_that_lost_what_was_acknowledged_is_told() {
    let Some(mut servers) = Pair::start("asynchronous") else { return };
    let engine = servers.options().open().unwrap();
    pair(&engine, "kept");
    // The standby stands still while the primary goes on acknowledging.
    let pid = std::fs::read_to_string(servers.data(1).join("postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().to_owned();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let receivers: Vec<_> = children
        .split_whitespace()
        .filter(|child| {
            let title =
                std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            title.contains("walreceiver")
        })
        .map(str::to_owned)
        .collect();
    assert!(!receivers.is_empty());
    for receiver in &receivers {
        assert!(Command::new("kill").args(["-STOP", receiver]).status().unwrap().success());
    }
    for number in 0..20 {
        pair(&engine, &format!("lost-{number}"));
    }
    let mut server = servers.servers[0].take().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    for receiver in &receivers {
        assert!(Command::new("kill").args(["-KILL", receiver]).status().unwrap().success());
    }
    let start = Instant::now();
    while !servers.try_sql(1, "SELECT pg_promote()") {
        assert!(start.elapsed() < Duration::from_secs(60), "the standby was not promoted");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The key is not granted a second time: the begin is refused, or replayed from memory.
    let refused = begin(&engine, "new").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::HistoryLost);
    for number in 0..20 {
        match begin(&engine, &format!("lost-{number}")) {
            Ok(Begin::Replay(_)) => {}
            Err(error) if error.kind() == ErrorKind::HistoryLost => {}
            other => panic!("{other:?}"),
        }
    }
}
