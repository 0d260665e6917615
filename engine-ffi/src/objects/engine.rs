//! Engines as C holds them.

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

/// Gives an engine its handle.
pub(crate) fn keep(engine: oncekey::Engine) -> Result<u64, Failure> {
    let held = Held { engine, control: Arc::default() };
    ENGINES.insert(held).map_err(|_| Failure::too_many())
}

pub(crate) fn get(engine: u64) -> Result<oncekey::Engine, Failure> {
    ENGINES.with(engine, |held| held.engine.clone())
}

/// Recovers in place.
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

/// Gives the handle back, and closes the engine where that was not done.
pub(crate) fn free(engine: u64) -> Result<(), Failure> {
    if let Some(held) = ENGINES.remove(engine)? {
        // The one who wants to know how it ended calls close.
        let _ = held.close();
    }
    Ok(())
}

impl Held {
    fn close(self) -> Result<oncekey::CloseReport, Failure> {
        // ORDER: the thread of the socket is told to end before the engine closes, and is waited for afterwards:
        // the work that an operator asked for ends with the engine.
        let _ending = self.control.end();
        Ok(self.engine.close()?)
    }
}

/// Begins, and waits for an owner when there is time for it.
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
