//! The control socket, through which operators reach the process that holds a store.

use crate::abi::control_options::ControlOptions;
use crate::abi::types::{Engine, Error};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::objects::engine;

/// Offers the control socket of this engine until the engine is closed or freed. It is a Unix socket with
/// mode 0600, on which a thread of the library answers the program `oncekey`, for the user of this process
/// and root. The store names the socket, so `oncekey stats --store DIR` and the other commands find it.
/// `options` may be NULL: the defaults.
///
/// The thread takes no signals. If the process has closed a standard stream, /dev/null is opened in its
/// place. Fails with INVALID_INPUT, also when the engine offers a socket already and when a store in a
/// database got no path; UNSUPPORTED by a library without the feature `control-socket`; CLOSED; STORE_FULL;
/// IO. There is then no socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_engine_control_socket(
    engine: Engine,
    options: *const ControlOptions,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    entry(Some(caller.out(error)), || {
        let options: Option<ControlOptions> = caller.sized(options)?;
        engine::offer_control_socket(engine.id, &options.unwrap_or(caller.zeroed()), &caller)
    })
}
