//! Engines behind the handles of C.

use std::sync::Arc;
use std::time::Duration;

use crate::abi::control_options::ControlOptions;
use crate::boundary::convert::Caller;
use crate::boundary::failure::Failure;
use crate::boundary::handle_table::Table;
use crate::boundary::signals;
use crate::objects::control_socket::ControlSocket;

static ENGINES: Table<Held> = Table::new(1);

#[derive(Clone)]
struct Held {
    engine: oncekey::Engine,
    control: Arc<ControlSocket>,
}

/// Puts an engine into the table and returns its handle.
pub(crate) fn keep(engine: oncekey::Engine) -> Result<u64, Failure> {
    let held = Held { engine, control: Arc::default() };
    ENGINES.insert(held).map_err(|_| Failure::too_many())
}

pub(crate) fn get(engine: u64) -> Result<oncekey::Engine, Failure> {
    ENGINES.with(engine, |held| held.engine.clone())
}

/// Recovers the engine in place after a failure.
pub(crate) fn reopen(engine: u64) -> Result<(), Failure> {
    let engine = get(engine)?;
    Ok(signals::without("oncekey-reopen", move || engine.reopen())??)
}

/// Offers a control socket until the engine is closed.
pub(crate) fn offer_control_socket(
    engine: u64,
    options: &ControlOptions,
    caller: &Caller,
) -> Result<(), Failure> {
    let Held { engine, control } = ENGINES.get(engine)?;
    control.offer(engine, options, caller)
}

pub(crate) fn close(engine: u64) -> Result<oncekey::CloseReport, Failure> {
    ENGINES.get(engine)?.close()
}

/// Frees the handle, and closes the engine if that was not done.
pub(crate) fn free(engine: u64) -> Result<(), Failure> {
    if let Some(held) = ENGINES.remove(engine)? {
        // A caller that needs the result of the close calls `close`.
        let _ = held.close();
    }
    Ok(())
}

impl Held {
    fn close(self) -> Result<oncekey::CloseReport, Failure> {
        // ORDER: tell the thread of the socket to end before the engine closes, and wait for the thread
        // afterwards: work that an operator has requested ends with the engine.
        let _ending = self.control.end();
        Ok(self.engine.close()?)
    }
}

/// Begins, and waits for an owner if `max_wait_ms` is above 0.
pub(crate) fn begin(
    engine: &oncekey::Engine,
    key: &oncekey::Key,
    fingerprint: oncekey::Fingerprint,
    max_wait_ms: u64,
) -> oncekey::Pending<oncekey::Begin> {
    if max_wait_ms == 0 {
        engine.begin(key, fingerprint)
    } else {
        engine.begin_waiting(key, fingerprint, Duration::from_millis(max_wait_ms))
    }
}
