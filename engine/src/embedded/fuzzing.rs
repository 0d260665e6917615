//! The decoders for the fuzz targets. Built only with `--cfg fuzzing`.

use std::path::Path;

use crate::base::codec::Decoder;
use crate::base::error::Result;
use crate::embedded::directory;
use crate::embedded::journal::{self, Group, Room};
use crate::embedded::options::Options;
use crate::embedded::store::{self, Store};
use crate::semantics::time::Time;

/// Decodes the bytes as each kind of value that a store holds, with corrected checksums.
pub fn decode(bytes: &[u8]) {
    let mut decoder = Decoder::new(bytes);
    while decoder.remaining() > 0 && journal::fuzz_entry(&mut decoder).is_ok() {}
    store::fuzzing::decode(bytes);
}

/// Appends a group with this payload to the journal of a store that no process has open, as if a
/// committer had written it.
///
/// # Errors
/// Those of opening the store.
pub fn append_group(options: &Options, path: &Path, payload: &[u8], entries: u32) -> Result<()> {
    let (home, _lock) = directory::open(options, path, false)?;
    let dir = &home.handle;
    let state = Store::inspect(dir, options.store_cache_bytes(), options.open_files())?.state();
    let (id, start) = (state.journal_id(), state.journal_start());
    let (mut epoch, mut time) = (state.epoch, state.time);
    let inspected =
        journal::inspect(dir, id, options.segment_sizes(), start, &mut |header, _, _| {
            (epoch, time) = (header.epoch, header.time.max(time));
            Ok(())
        })?;
    let (mut journal, _) = inspected.settle()?;
    let mut group = Group::default();
    group.clear();
    group.push_raw(payload, entries);
    if journal.make_room(&group) != Room::Here {
        return Ok(());
    }
    journal.append(&mut group, epoch, Time(time.0 + 1))?;
    journal.sync()
}
