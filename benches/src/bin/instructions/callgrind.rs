//! One run of a path under callgrind.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use oncekey_benches::Result;

/// Whose instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// The thread that calls the engine.
    Caller,
    /// All others: the committer's and the folder's.
    Engine,
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller's thread",
            Self::Engine => "engine's threads",
        })
    }
}

/// Instructions of a whole process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    caller: u64,
    engine: u64,
}

impl Totals {
    pub(crate) fn of(&self, thread: Thread) -> u64 {
        match thread {
            Thread::Caller => self.caller,
            Thread::Engine => self.engine,
        }
    }
}

/// Runs this program's path `name` on `store` under callgrind.
pub(crate) fn run(
    name: &str,
    store: &Path,
    operations: bool,
    keep: Option<&Path>,
) -> Result<Totals> {
    let out = store.with_extension("callgrind");
    std::fs::create_dir(&out)?;
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes", "-q"])
        .arg(format!("--callgrind-out-file={}", out.join("out").display()))
        .arg(std::env::current_exe()?)
        .args(["--run", name, "--store"])
        .arg(store)
        .stdout(Stdio::null());
    if !operations {
        command.arg("--without-operations");
    }
    let status = command.status().map_err(|error| format!("valgrind can not be run: {error}"))?;
    if !status.success() {
        return Err(format!("{name}: {status}").into());
    }
    let totals = read(&out)?;
    if let Some(keep) = keep.filter(|_| operations) {
        std::fs::create_dir_all(keep)?;
        for entry in std::fs::read_dir(&out)? {
            let entry = entry?;
            let file = format!("{name} {}", entry.file_name().display()).replace(' ', "-");
            std::fs::copy(entry.path(), keep.join(file))?;
        }
    }
    std::fs::remove_dir_all(&out)?;
    Ok(totals)
}

/// Sums the files up that callgrind wrote, one for each thread: `out-01` is the main thread's.
fn read(out: &Path) -> Result<Totals> {
    let mut totals = Totals::default();
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        let Some(total) = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")) else {
            continue;
        };
        let total: u64 = total.trim().parse()?;
        if path.to_string_lossy().ends_with("-01") {
            totals.caller += total;
        } else {
            totals.engine += total;
        }
    }
    if totals.caller == 0 {
        return Err("callgrind wrote no total of the main thread".into());
    }
    Ok(totals)
}
