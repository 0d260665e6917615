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

/// What of a run is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// The calling thread, while it is in [`operations`].
    Operations,
    /// The engine's threads, all the time.
    Everything,
    /// The engine's threads in a run that leaves the operations out.
    Preparation,
}

/// Calls `run`; callgrind is told to count the calling thread in here and nowhere else.
#[inline(never)]
pub(crate) fn operations(run: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let result = run();
    // Not a tail call, which callgrind would take for the end of this function.
    std::hint::black_box(result)
}

/// Callgrind counts every byte that `rep movsb` moves, and glibc's choice between it and a loop over
/// vectors depends on the addresses. The loop always, so that the count is the same each time.
const LOOPS_ONLY: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x40000000:glibc.cpu.x86_rep_stosb_threshold=0x40000000";

/// Runs this program's path `name` on `store` under callgrind; gives the instructions counted.
pub(crate) fn run(name: &str, store: &Path, counted: Counted, keep: Option<&Path>) -> Result<u64> {
    let out = store.with_extension("callgrind");
    std::fs::create_dir(&out)?;
    let mut command = Command::new("valgrind");
    command
        .env("GLIBC_TUNABLES", LOOPS_ONLY)
        .args(["--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes", "-q"])
        .arg(format!("--callgrind-out-file={}", out.join("out").display()));
    if counted == Counted::Operations {
        command.arg("--toggle-collect=instructions::callgrind::operations*");
    }
    command.arg(std::env::current_exe()?).args(["--run", name, "--store"]).arg(store);
    if counted == Counted::Preparation {
        command.arg("--without-operations");
    }
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("valgrind cannot be run: {error}"))?;
    if !status.success() {
        return Err(format!("{name}: {status}").into());
    }
    let total = read(&out, counted == Counted::Operations)?;
    if let Some(keep) = keep {
        std::fs::create_dir_all(keep)?;
        for entry in std::fs::read_dir(&out)? {
            let entry = entry?;
            let file = format!("{name} {counted:?} {}", entry.file_name().display());
            std::fs::copy(entry.path(), keep.join(file.replace(' ', "-")))?;
        }
    }
    std::fs::remove_dir_all(&out)?;
    Ok(total)
}

/// Sums up what callgrind wrote, one file for each thread: `out-01` is the main thread's.
fn read(out: &Path, main: bool) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(out)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("-01") != main {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        if let Some(total) = text.lines().rev().find_map(|line| line.strip_prefix("totals: ")) {
            sum += total.trim().parse::<u64>()?;
        }
    }
    if sum == 0 {
        return Err("callgrind counted nothing".into());
    }
    Ok(sum)
}
