//! The numbers of the standard streams in a process that has closed them.

use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::fs::{Mode, OFlags};

use crate::boundary::failure::Failure;

const STREAMS: libc::c_int = 3;

/// Puts a /dev/null that refuses writes in the place of each standard stream that is closed, for good. Else a socket
/// would get its number, and whatever the process prints.
pub(crate) fn fill() -> Result<(), Failure> {
    while (0..STREAMS).any(is_closed) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(|error| {
            Failure::io(format!("a closed standard stream, and /dev/null: {error}"))
        })?;
        if null.as_raw_fd() < STREAMS {
            // It stays: the process may put another file in its place at any time.
            let _ = null.into_raw_fd();
        }
    }
    Ok(())
}

fn is_closed(stream: libc::c_int) -> bool {
    // SAFETY: asks about a number, and changes nothing.
    unsafe { libc::fcntl(stream, libc::F_GETFD) == -1 }
}
