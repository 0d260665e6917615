//! No file of a store gets the number of a standard stream.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

/// Opens a `/dev/null` that refuses writes in the place of each closed standard stream, for the
/// rest of the process. Otherwise code that opens descriptors, such as a runtime for sockets, gets
/// their numbers, and with them the output of the process. Programs in Rust and Go need no such
/// call: their runtimes do so at the start.
///
/// # Errors
/// A stream is closed, and `/dev/null` cannot be opened.
pub fn fill_standard_streams() -> io::Result<()> {
    // A /dev/null that an open holds for a moment would look like an open stream.
    let _turn = ONE_AT_A_TIME.lock();
    let is_closed = |stream: BorrowedFd<'_>| rustix::io::fcntl_getfd(stream).is_err();
    let closed = || {
        is_closed(io::stdin().as_fd())
            || is_closed(io::stdout().as_fd())
            || is_closed(io::stderr().as_fd())
    };
    while closed() {
        let null = open_null()?;
        if null.as_raw_fd() < STREAMS {
            // Never closed: the process may put another file in its place at any time.
            let _ = null.into_raw_fd();
        }
    }
    Ok(())
}

/// How many standard streams there are.
const STREAMS: i32 = 3;

/// Held so that no other thread gets the low descriptors that an open frees.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn open_null() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a descriptor that is none of 0, 1 and 2, not even for a moment.
///
/// A process may run with its standard streams closed. Its output would overwrite a file of the
/// store that got the number of a stream.
pub(super) fn above_standard_streams(
    open: impl FnOnce() -> rustix::io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let _turn = ONE_AT_A_TIME.lock();
    let mut taken = Vec::new();
    // Without a /dev/null the descriptor is moved up once it is open.
    while let Ok(null) = open_null() {
        if null.as_raw_fd() >= STREAMS {
            break;
        }
        taken.push(null);
    }
    let opened = open()?;
    if opened.as_raw_fd() >= STREAMS {
        return Ok(opened);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&opened, STREAMS)?)
}
