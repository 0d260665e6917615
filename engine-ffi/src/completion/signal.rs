//! A descriptor that is readable while a queue has completions, for event loops.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::boundary::failure::Failure;

/// A pipe that holds one byte while it is raised.
pub(crate) struct Signal {
    reader: OwnedFd,
    writer: OwnedFd,
    raised: bool,
}

impl Signal {
    pub(crate) fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::io(format!("no pipe: {error}"));
        let (reader, writer) =
            pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).map_err(failed)?;
        // In a process that closed its standard streams, the numbers 0 to 2 may belong to this pipe. Log
        // output would then be written into it.
        let above = |end: OwnedFd| {
            if end.as_raw_fd() > 2 { Ok(end) } else { fcntl_dupfd_cloexec(&end, 3).map_err(failed) }
        };
        Ok(Self { reader: above(reader)?, writer: above(writer)?, raised: false })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// The pipe holds at most one byte, so neither call can block. A failure could only mean that the program
    /// closed the descriptor.
    pub(crate) fn set(&mut self, raised: bool) {
        if raised == self.raised {
            return;
        }
        self.raised = raised;
        if raised {
            let _ = rustix::io::write(&self.writer, &[1]);
        } else {
            let _ = rustix::io::read(&self.reader, &mut [0; 1]);
        }
    }
}
