//! Other ways to a cluster: through a pooler, and as a role with few rights.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use oncekey_testing::postgres::{as_user, give};

use super::{Cluster, Raw};

/// The settings that docs/fleet.md gives a role where startup options are refused.
pub fn settings_of(cluster: &Cluster, whose: &str) {
    let page = include_str!("../../../docs/fleet.md");
    let settings = page.lines().filter_map(|line| line.trim().strip_prefix("ALTER ROLE app "));
    let settings: Vec<_> = settings.map(|setting| format!("ALTER {whose} {setting}")).collect();
    assert!(!settings.is_empty(), "docs/fleet.md has no settings");
    for setting in settings {
        cluster.raw("postgres").run(&setting);
    }
}

/// The rights that docs/fleet.md lists.
pub fn grant(raw: &Raw, role: &str) {
    raw.run(&format!(
        "GRANT USAGE ON SCHEMA oncekey TO {role}; GRANT USAGE, UPDATE ON SEQUENCE oncekey.version TO {role};
         GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oncekey TO {role};
         GRANT DELETE ON oncekey.key, oncekey.orphan, oncekey.instance, oncekey.mark, oncekey.response TO {role}"
    ));
    for leaf in 0..8 {
        raw.run(&format!("GRANT TRUNCATE ON oncekey.response_{leaf} TO {role}"));
    }
}

/// The folder of the socket of a pooler in this mode, which ends with the process that started it; `None`
/// where pgbouncer is not installed.
pub fn pooler(cluster: &'static Cluster, mode: &'static str) -> Option<PathBuf> {
    if !Path::new("/usr/sbin/pgbouncer").exists() {
        println!("LEFT OUT: pgbouncer is not installed (Debian: pgbouncer)");
        return None;
    }
    let dir = cluster.dir.join(format!("pool-{mode}"));
    std::fs::create_dir_all(&dir).unwrap();
    let at = dir.display();
    // pgbouncer takes the user of the server from the connection string of each database.
    let config = format!(
        "[databases]\n* = user=postgres host={} port={}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {at}\nlisten_port = 6432\n\
         auth_type = any\npool_mode = {mode}\nlogfile = {at}/log\nignore_startup_parameters = extra_float_digits\n\
         default_pool_size = 3\nmax_client_conn = 2000\n",
        cluster.dir.display(),
        cluster.port
    );
    std::fs::write(dir.join("ini"), config).unwrap();
    give(&dir);
    let ini = dir.join("ini");
    // The kernel ends the pooler with the thread that started it, so a thread starts it that lasts
    // as long as this process.
    std::thread::spawn(move || {
        let mut command = as_user("KILL");
        command.arg("/usr/sbin/pgbouncer").arg(ini);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap().wait().unwrap();
    });
    let start = Instant::now();
    while !dir.join(".s.PGSQL.6432").exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the pooler did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(dir)
}
