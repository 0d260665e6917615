//! Threads of the library take no signals: the signals of a process are for the threads of its program.

use crate::boundary::failure::Failure;

/// Runs `work` on a thread that takes no signals, and waits for its end. Threads that it starts take none
/// either. The signals of the calling thread still reach it meanwhile.
pub(crate) fn without<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let thread = spawn(name, work)?;
    Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// Starts a thread that takes no signals.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    // A new thread inherits the signal mask of the thread that starts it.
    let _held = Held::back()?;
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Failure::io(format!("starting the thread {name}: {error}")))
}

/// Blocks the signals of this thread until this value is dropped.
#[cfg(unix)]
struct Held(libc::sigset_t);

#[cfg(unix)]
impl Held {
    /// Signals that a thread raises by its own fault are not blocked: its handlers must run at once.
    const OWN: [libc::c_int; 7] = [
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGSEGV,
        libc::SIGSYS,
        libc::SIGTRAP,
    ];

    fn back() -> Result<Self, Failure> {
        // SAFETY: zeros are a signal set; each call gets sets of this frame and valid signal numbers.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            for signal in Self::OWN {
                libc::sigdelset(&mut all, signal);
            }
            match libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before) {
                0 => Ok(Self(before)),
                code => {
                    let error = std::io::Error::from_raw_os_error(code);
                    Err(Failure::io(format!("holding signals back: {error}")))
                }
            }
        }
    }
}

#[cfg(unix)]
impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set is the mask that was in force before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

#[cfg(not(unix))]
struct Held;

#[cfg(not(unix))]
impl Held {
    fn back() -> Result<Self, Failure> {
        Ok(Self)
    }
}
