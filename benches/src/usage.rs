//! What a run costs: CPU time and bytes written, of this process.

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
    /// From the start of the process until now.
    ///
    /// # Errors
    /// A system without `/proc/self/io`.
    pub fn now() -> Result<Self> {
        let io = std::fs::read_to_string("/proc/self/io")?;
        let written = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "))
            .ok_or("/proc/self/io has no write_bytes")?
            .trim()
            .parse()?;
        Ok(Self { cpu: clock(ClockId::ProcessCPUTime), written })
    }

    /// From `earlier` until now.
    ///
    /// # Errors
    /// Those of [`now`](Self::now).
    pub fn since(earlier: Self) -> Result<Self> {
        let now = Self::now()?;
        Ok(Self {
            cpu: now.cpu.saturating_sub(earlier.cpu),
            written: now.written.saturating_sub(earlier.written),
        })
    }
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
