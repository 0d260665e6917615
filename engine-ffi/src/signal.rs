//! A descriptor that is readable while a queue has completions, for event loops.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::Failure;

/// A pipe that holds one byte while it is raised.
pub(crate) struct Signal {
    reader: OwnedFd,
    writer: OwnedFd,
    raised: bool,
}

impl Signal {
    pub(crate) fn new() -> Result<Self, Failure> {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
            .map_err(|error| Failure::io(format!("no pipe: {error}")))?;
        Ok(Self { reader, writer, raised: false })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// The pipe holds at most one byte, so that neither call can block; a failure could only mean
    /// that somebody closed the descriptor.
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
