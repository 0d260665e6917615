//! The cost of a run: CPU time and bytes written, of this process or of others.

use std::ops::Add;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// CPU time and bytes written up to a moment, or between two.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Bytes that the process caused to be sent to the storage layer (`write_bytes`, proc(5)).
    pub written: u64,
}

impl Usage {
    /// Of this process and its children that ended, from its start until now.
    ///
    /// # Errors
    /// A system without `/proc/self/io`.
    pub fn now() -> Result<Self> {
        Ok(Self { cpu: clock(ClockId::ProcessCPUTime), written: written("self")? })
    }

    /// Of another process and its children that ended, from its start until now. CPU time is known
    /// to a clock tick.
    ///
    /// # Errors
    /// No such process, or one of another user.
    pub fn of(process: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field is the name, in parentheses, and may hold anything.
        let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat is not understood")?;
        // utime, stime, cutime, cstime: fields 14 to 17, and the third is the first here.
        let ticks = fields.split_ascii_whitespace().skip(11).take(4).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<std::result::Result<_, _>>()?;
        let per_second = rustix::param::clock_ticks_per_second();
        let cpu = Duration::from_secs_f64(ticks as f64 / per_second as f64);
        Ok(Self { cpu, written: written(&process.to_string())? })
    }

    /// From `earlier` until this.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written: self.written.saturating_sub(earlier.written),
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, written: self.written + other.written }
    }
}

fn written(process: &str) -> Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{process}/io"))?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(bytes.ok_or("/proc/PID/io has no write_bytes")?.trim().parse()?)
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    // CPU clocks start at zero and never go back: both fields are in range.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Whether `path` lies in memory, where a sync costs nothing and a measurement says nothing.
///
/// # Errors
/// Those of statfs(2).
pub fn is_in_memory(path: &Path) -> Result<bool> {
    // linux/magic.h
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    Ok(matches!(rustix::fs::statfs(path)?.f_type as u32, TMPFS | RAMFS))
}
