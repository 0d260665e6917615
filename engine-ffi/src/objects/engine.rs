//! Engines as C holds them.

use std::time::Duration;

use crate::boundary::handle_table::Table;

pub(crate) static ENGINES: Table<oncekey::Engine> = Table::new(1);

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
