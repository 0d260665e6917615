//! `oncekey doctor`: checks whether the machine suits a store.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use super::output::Output;
use super::place::{Place, options};
use super::whereabouts::{Where, is_shared};
use super::{held, show};
use crate::base::exit::{Exit, Failure, STORE_FILE};
use crate::config::{Address, Config, Speaks, Target};

/// How long syncs are measured.
const SYNCS: Duration = Duration::from_secs(1);
/// How long an idle connection to the upstream is watched.
const IDLE: Duration = Duration::from_secs(8);
/// The number of descriptors that a store and its server need.
const WANTED_FILES: u64 = 4096;

#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    at: Where,

    /// Also checks this configuration of the proxy
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Measures how long this server keeps an idle connection open; sends it GET /
    #[arg(long, value_name = "URL", value_parser = Target::parse)]
    upstream: Option<Target>,
}

/// The result of a check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

struct Check {
    name: &'static str,
    level: Level,
    says: String,
}

fn check(name: &'static str, level: Level, says: impl Into<String>) -> Check {
    Check { name, level, says: says.into() }
}

impl Doctor {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        let mut checks = Vec::new();
        if is_shared(self.at.store()) || self.at.asks_a_server() {
            checks.push(match self.at.open(output).and_then(|place| place.stats()) {
                Ok(_) => check("store", Level::Ok, "answers"),
                Err(refused) => check("store", Level::Fail, refused.message()),
            });
        } else {
            let store = Path::new(self.at.store());
            // A missing directory will be made on the volume of its first existing ancestor.
            let beside = store.ancestors().skip(1).find(|path| path.is_dir());
            let beside = beside.unwrap_or(Path::new("."));
            checks.extend([self.store(store, output), room(beside), syncs(beside), clock(store)]);
        }
        checks.push(descriptors());
        checks.extend(self.config.as_deref().map(configuration));
        checks.extend(self.upstream.as_ref().map(keep_alive));
        show(output, &checks)?;
        match checks.iter().any(|check| check.level == Level::Fail) {
            true => Err(Failure::silent(Some(Exit::Failed))),
            false => Ok(()),
        }
    }

    fn store(&self, store: &Path, output: &Output) -> Check {
        let mut names = std::fs::read_dir(store).into_iter().flatten().flatten();
        if !names.any(|entry| is_stored(&entry.file_name().to_string_lossy())) {
            return check("store", Level::Ok, format!("there is none in {} yet", store.display()));
        }
        match self.at.open(output) {
            Ok(Place::Served(client)) => {
                let pid =
                    client.get("info").map(|info| show::text(&info["pid"])).unwrap_or_default();
                check("store", Level::Ok, format!("held by pid {pid}, which answers"))
            }
            Ok(_) => check("store", Level::Ok, "no process has it open, and it can be read"),
            Err(refused) if refused.exit == Some(Exit::Held) => {
                let pid = held::holder(store)
                    .map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));
                check(
                    "store",
                    Level::Warn,
                    format!("held by {pid}, which offers no control socket"),
                )
            }
            Err(refused) => check("store", Level::Fail, refused.message()),
        }
    }
}

/// Whether a file of this name belongs to a store.
fn is_stored(name: &str) -> bool {
    name == STORE_FILE
        || ["records-", "run-"].iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with("journal-") && name.ends_with(".seg")
}

fn show(output: &Output, checks: &[Check]) -> Result<(), Failure> {
    let word = |level| match level {
        Level::Ok => ("ok", 32),
        Level::Warn => ("warn", 33),
        Level::Fail => ("fail", 31),
    };
    if output.is_json() {
        let listed = checks.iter().map(|check| {
            json!({ "check": check.name, "result": word(check.level).0, "says": check.says })
        });
        return output.document(&json!({ "checks": listed.collect::<Vec<Value>>() }));
    }
    for Check { name, level, says } in checks {
        let (word, color) = word(*level);
        output.line(&format!(
            "{}  {name:<12} {says}",
            output.painted(color, &format!("{word:<4}"))
        ))?;
    }
    Ok(())
}

/// The free space of the volume.
fn room(beside: &Path) -> Check {
    const LITTLE: u64 = 1 << 30;
    match rustix::fs::statvfs(beside) {
        Ok(volume) => {
            let free = volume.f_bavail.saturating_mul(volume.f_frsize);
            let level = if free < LITTLE { Level::Warn } else { Level::Ok };
            check("space", level, format!("{} free", show::size(free)))
        }
        Err(error) => check("space", Level::Fail, error.to_string()),
    }
}

/// How long a sync of one block takes in a file beside the store.
fn syncs(beside: &Path) -> Check {
    const SLOW: Duration = Duration::from_millis(20);
    let path = beside.join(format!(".oncekey-doctor-{}", std::process::id()));
    let measured = measure(&path);
    // No other file has this name.
    let _ = std::fs::remove_file(&path);
    match measured {
        Ok(mut times) if !times.is_empty() => {
            times.sort_unstable();
            let at = |share: usize| times[(times.len() - 1) * share / 100];
            let level = if at(99) > SLOW { Level::Warn } else { Level::Ok };
            check("fsync", level, format!("p50 {:?}, p99 {:?}, of {}", at(50), at(99), times.len()))
        }
        Ok(_) => check("fsync", Level::Warn, "not one sync within a second"),
        Err(error) => check("fsync", Level::Fail, format!("{}: {error}", path.display())),
    }
}

fn measure(path: &Path) -> std::io::Result<Vec<Duration>> {
    const BLOCKS: u64 = 256;
    let file = File::create_new(path)?;
    file.write_all_at(&vec![0; 4096 * BLOCKS as usize], 0)?;
    file.sync_all()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < SYNCS {
        let began = Instant::now();
        file.write_all_at(&[1; 4096], times.len() as u64 % BLOCKS * 4096)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Compares the clock with the last time in the store.
fn clock(store: &Path) -> Check {
    const DAY: Duration = Duration::from_secs(86_400);
    let Ok(reader) = options().read(store) else {
        return check("clock", Level::Ok, "not compared: the store is not there, or open");
    };
    let last = reader.last_time();
    match last.duration_since(SystemTime::now()) {
        Ok(ahead) if ahead > Duration::from_secs(5) => {
            let says = format!(
                "the store is {} ahead of the clock, which was set back",
                show::span(ahead)
            );
            check("clock", if ahead > DAY { Level::Fail } else { Level::Warn }, says)
        }
        _ => {
            let since = last.elapsed().unwrap_or_default();
            let level = if since > 30 * DAY { Level::Warn } else { Level::Ok };
            check("clock", level, format!("the store's last change was {} ago", show::span(since)))
        }
    }
}

fn descriptors() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < WANTED_FILES => check(
            "nofile",
            Level::Warn,
            format!("{limit} files may be open; {WANTED_FILES} suit a busy server"),
        ),
        Some(limit) => check("nofile", Level::Ok, format!("{limit} files may be open")),
        None => check("nofile", Level::Ok, "no limit"),
    }
}

fn configuration(path: &Path) -> Check {
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return check("config", Level::Fail, format!("{name}: {error}")),
    };
    let mut config = Config::default();
    let read = crate::config::read(&mut config, &name, &text, |_| {});
    match read.and_then(|()| config.check().map_err(|error| vec![error])) {
        Err(lines) => check("config", Level::Fail, lines.join("; ")),
        Ok(()) => match config.warnings() {
            warnings if warnings.is_empty() => check("config", Level::Ok, name),
            warnings => check("config", Level::Warn, warnings.join("; ")),
        },
    }
}

/// How long an upstream keeps an idle connection open.
fn keep_alive(target: &Target) -> Check {
    const POOLED: Duration = Duration::from_secs(1);
    let Address::Tcp { host, port, speaks: Speaks::Http } = &target.address else {
        return check("keep-alive", Level::Ok, "not measured: http:// over TCP alone");
    };
    match idle(host, *port, &target.base) {
        Err(error) => check("keep-alive", Level::Fail, format!("{target}: {error}")),
        Ok(None) => check(
            "keep-alive",
            Level::Ok,
            format!("idle connections stay open for {}, at least", show::span(IDLE)),
        ),
        Ok(Some(open)) => {
            let level = if open < 2 * POOLED { Level::Warn } else { Level::Ok };
            let says = format!(
                "idle connections are closed after {}; idle in [upstream] must be shorter",
                show::span(open)
            );
            check("keep-alive", level, says)
        }
    }
}

/// Returns `None` when the connection stays open for the whole time of the measurement.
fn idle(host: &str, port: u16, base: &str) -> std::io::Result<Option<Duration>> {
    let mut stream = TcpStream::connect((host, port))?;
    write!(stream, "GET {base}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n")?;
    let mut buffer = [0; 4096];
    let mut last = Instant::now();
    loop {
        let left = IDLE.saturating_sub(last.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Some(last.elapsed())),
            Ok(_) => last = Instant::now(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}
