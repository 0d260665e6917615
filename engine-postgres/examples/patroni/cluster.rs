//! Three members of etcd and three of Patroni on this machine, and what is done to them.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oncekey_testing::postgres::{as_user, give, program, programs};

use crate::Result;

pub(crate) const MEMBERS: usize = 3;

/// How long a cluster may take to be whole before a Patroni is started again.
const STUCK: Duration = Duration::from_secs(60);

/// What befalls the leader.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// Its server and its Patroni are killed with -9.
    Killed,
    /// Its server is killed with -9; Patroni gives the lead away.
    ServerKilled,
    /// Everything of it stands still until another one leads, and goes on then.
    Stopped,
    /// It is asked to hand over.
    Switchover,
    /// Its Patroni cannot be heard of any more, while its server goes on and keeps its connections.
    CutOff,
}

impl Blow {
    pub(crate) const ALL: [Self; 5] =
        [Self::Killed, Self::ServerKilled, Self::Stopped, Self::Switchover, Self::CutOff];
}

pub(crate) struct Cluster {
    dir: PathBuf,
    port: u16,
    etcds: Vec<Child>,
    patronis: Vec<Option<Child>>,
}

fn as_postgres(name: impl AsRef<OsStr>) -> Command {
    let mut command = as_user("KILL");
    command.arg(name);
    command
}

impl Cluster {
    /// Starts the members; those that were in `dir` go on with what they have.
    pub(crate) fn start(dir: &Path, port: u16) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let programs = programs().ok_or("PostgreSQL is not installed (Debian: postgresql-15)")?;
        let mut cluster = Self { dir, port, etcds: Vec::new(), patronis: Vec::new() };
        for member in 0..MEMBERS {
            fs::create_dir_all(cluster.dir.join(format!("sockets{member}")))?;
            fs::write(cluster.config(member), cluster.patroni_yml(member, &programs))?;
        }
        give(&cluster.dir);
        // Beside another campaign on these ports, this one would strike at nothing and count that one's failovers.
        for member in 0..MEMBERS {
            let port = cluster.port(1, member);
            let free = TcpListener::bind(("127.0.0.1", port));
            free.map_err(|error| format!("port {port}, of another campaign? {error}"))?;
        }
        for member in 0..MEMBERS {
            let etcd = cluster.start_etcd(member)?;
            cluster.etcds.push(etcd);
        }
        for member in 0..MEMBERS {
            let patroni = cluster.start_patroni(member)?;
            cluster.patronis.push(Some(patroni));
        }
        Ok(cluster)
    }

    /// Ports: of servers, then of etcd for clients and peers, then of Patroni.
    fn port(&self, kind: u16, member: usize) -> u16 {
        self.port + kind * 10 + member as u16
    }

    fn config(&self, member: usize) -> PathBuf {
        self.dir.join(format!("patroni{member}.yml"))
    }

    pub(crate) fn url(&self) -> String {
        let ports: Vec<_> = (0..MEMBERS).map(|member| self.port(0, member).to_string()).collect();
        let hosts = ["127.0.0.1"; MEMBERS].join(",");
        format!(
            "host={hosts} port={} user=postgres dbname=postgres connect_timeout=2",
            ports.join(",")
        )
    }

    fn start_etcd(&self, member: usize) -> Result<Child> {
        let client = format!("http://127.0.0.1:{}", self.port(1, member));
        let peer = |member| format!("http://127.0.0.1:{}", self.port(2, member));
        let all: Vec<_> =
            (0..MEMBERS).map(|member| format!("e{member}={}", peer(member))).collect();
        let log = fs::File::create(self.dir.join(format!("etcd{member}.log")))?;
        Ok(as_postgres("etcd")
            .args(["--name", &format!("e{member}"), "--data-dir"])
            .arg(self.dir.join(format!("etcd{member}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args([
                "--listen-peer-urls",
                &peer(member),
                "--initial-advertise-peer-urls",
                &peer(member),
            ])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .args(["--heartbeat-interval", "200", "--election-timeout", "2000"])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?)
    }

    fn start_patroni(&self, member: usize) -> Result<Child> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("patroni{member}.log")))?;
        Ok(as_postgres("patroni")
            .arg(self.config(member))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?)
    }

    fn patroni_yml(&self, member: usize, programs: &Path) -> String {
        let (dir, server, rest) = (self.dir.display(), self.port(0, member), self.port(3, member));
        let etcd: Vec<_> =
            (0..MEMBERS).map(|member| format!("127.0.0.1:{}", self.port(1, member))).collect();
        format!(
            "scope: oncekey
name: m{member}
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
etcd3: {{hosts: '{etcd}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 5
    maximum_lag_on_failover: 104857600
    primary_start_timeout: 0
    synchronous_mode: true
    synchronous_mode_strict: true
    postgresql:
      use_pg_rewind: true
      parameters: {{wal_log_hints: 'on', max_connections: 100, shared_buffers: 64MB, wal_keep_size: 256MB}}
  initdb: [encoding: UTF8, locale: C, auth-host: trust, auth-local: trust]
  pg_hba: ['local all all trust', 'host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']
postgresql:
  listen: 127.0.0.1:{server}
  connect_address: 127.0.0.1:{server}
  bin_dir: {programs}
  data_dir: {dir}/data{member}
  pgpass: {dir}/pgpass{member}
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  parameters: {{unix_socket_directories: '{dir}/sockets{member}'}}
  authentication:
    superuser: {{username: postgres}}
    replication: {{username: postgres}}
    rewind: {{username: postgres}}
tags: {{nofailover: false, nosync: false}}
",
            etcd = etcd.join(","),
            programs = programs.display()
        )
    }

    fn ask(&self, member: usize, query: &str) -> Option<String> {
        let output = Command::new("timeout")
            .arg("5")
            .arg(program("psql"))
            .args(["-X", "-A", "-t", "-q", "-U", "postgres", "-h", "127.0.0.1", "-p"])
            .arg(self.port(0, member).to_string())
            .args(["-d", "postgres", "-c", query])
            .stdin(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The one that leads, if it is one, and its timeline.
    pub(crate) fn leader(&self) -> Option<(usize, u64)> {
        let query = "SELECT timeline_id FROM pg_control_checkpoint() WHERE NOT pg_is_in_recovery()";
        let leading = |member| Some((member, self.ask(member, query)?.parse().ok()?));
        let leaders: Vec<_> = (0..MEMBERS).filter_map(leading).collect();
        leaders.into_iter().max_by_key(|(_, timeline)| *timeline)
    }

    /// Waits for a leader that both others follow, one of them synchronously, as etcd knows, too: one that is
    /// struck before that has no successor until it comes back.
    pub(crate) fn healthy(&mut self, patience: Duration) -> Result<(usize, u64)> {
        let start = Instant::now();
        let mut tried = 0;
        let query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'm_'";
        while start.elapsed() < patience {
            for member in 0..MEMBERS {
                if let Some(patroni) = &mut self.patronis[member]
                    && patroni.try_wait()?.is_some()
                {
                    self.patronis[member] = Some(self.start_patroni(member)?);
                }
            }
            if let Some(leader) = self.leader()
                && self.ask(leader.0, query).is_some_and(|found| found == "2")
                && self.listed()?.contains("Sync Standby")
            {
                return Ok(leader);
            }
            // Patroni 3.0.2 may find its own key of the standby changed for ever: it is started again.
            if start.elapsed() > STUCK * (tried + 1)
                && let Some((leader, _)) = self.leader()
                && let Some(patroni) = &mut self.patronis[leader]
            {
                tried += 1;
                println!("the cluster is not whole: the Patroni of m{leader} is started again");
                patroni.kill()?;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        Err(format!("the cluster did not become whole:\n{}", self.listed()?).into())
    }

    /// The members, as Patroni says.
    fn listed(&self) -> Result<String> {
        let output =
            as_postgres("patronictl").arg("-c").arg(self.config(0)).arg("list").output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn postmaster(&self, member: usize) -> Option<String> {
        let pid = self.dir.join(format!("data{member}/postmaster.pid"));
        Some(fs::read_to_string(pid).ok()?.lines().next()?.to_owned())
    }

    fn signal(&self, signal: &str, ids: &[String]) -> Result<()> {
        for id in ids {
            Command::new("kill").args([signal, id]).stderr(Stdio::null()).status()?;
        }
        Ok(())
    }

    /// Everything that the postmaster of a member started, and itself.
    fn servers(&self, member: usize) -> Vec<String> {
        let Some(pid) = self.postmaster(member) else { return Vec::new() };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let mut all = vec![pid];
        all.extend(children.unwrap_or_default().split_whitespace().map(str::to_owned));
        all
    }

    /// Strikes the leader and waits until another one leads. Gives it, and its timeline.
    pub(crate) fn strike(&mut self, blow: Blow, patience: Duration) -> Result<(usize, u64)> {
        let (leader, timeline) = self.leader().ok_or("nobody leads")?;
        let patroni = self.patronis[leader].as_ref().map(|child| child.id().to_string());
        let patroni = vec![patroni.ok_or("its Patroni is gone")?];
        let servers = self.servers(leader);
        match blow {
            Blow::Killed => {
                self.signal("-KILL", &patroni)?;
                self.signal("-KILL", &servers)?;
            }
            Blow::ServerKilled => self.signal("-KILL", &servers[..1])?,
            Blow::Stopped => {
                self.signal("-STOP", &patroni)?;
                self.signal("-STOP", &servers)?;
            }
            Blow::CutOff => self.signal("-STOP", &patroni)?,
            Blow::Switchover => {
                let output = as_postgres("patronictl")
                    .arg("-c")
                    .arg(self.config(leader))
                    .args(["switchover", "oncekey", "--force"])
                    .output()?;
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
                }
            }
        }
        let start = Instant::now();
        let next = loop {
            match self.leader() {
                Some(next) if next.1 > timeline => break next,
                _ if start.elapsed() > patience => return Err("no other one leads".into()),
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        };
        if matches!(blow, Blow::Stopped | Blow::CutOff) {
            self.signal("-CONT", &servers)?;
            self.signal("-CONT", &patroni)?;
        }
        Ok(next)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for patroni in self.patronis.iter_mut().flatten() {
            let id = patroni.id().to_string();
            let _asked = Command::new("kill").args(["-TERM", &id]).status();
        }
        for child in self.patronis.iter_mut().flatten() {
            let _ended = child.wait();
        }
        for etcd in &mut self.etcds {
            let _ended = etcd.kill();
            let _ended = etcd.wait();
        }
    }
}
