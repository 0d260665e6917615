//! The control socket, where operators ask the process that holds a store.

use crate::abi::control_options::ControlOptions;
use crate::abi::types::{Engine, Error};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::objects::engine;

/// Offers the control socket of this engine until it is closed or freed: a Unix socket with mode 0600 on which a
/// thread of the library answers the program `oncekey`, for the user of this process and root. The store names it,
/// so that `oncekey stats --store DIR` and the other commands find it. `options` may be NULL: the defaults.
///
/// The thread takes no signals. A process that has closed its standard streams gets a /dev/null in their places.
/// Fails with INVALID_INPUT, also where the engine offers one already and where a store in a database got no
/// path; UNSUPPORTED by a library without the feature `control-socket`; CLOSED; STORE_FULL; IO. Then there is none.
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
