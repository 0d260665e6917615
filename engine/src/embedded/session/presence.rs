//! Notices that a file of the store was removed or replaced behind the engine's back.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::base::error::{Error, Result, is_descriptor_shortage};
use crate::embedded::disk::Directory;
use crate::embedded::journal::Journal;
use crate::embedded::store::CurrentView;

/// Whether the directory still names the files of the store.
pub(crate) struct Presence {
    dir: Arc<dyn Directory>,
    /// The version of the directory at which all files had their names.
    seen: Option<u64>,
}

impl Presence {
    pub(crate) fn new(dir: Arc<dyn Directory>) -> Self {
        Self { dir, seen: None }
    }

    /// Fails when a file that the journal or the store needs is gone. Called after the sync of a
    /// group and before its answers, because the answers promise what the next open finds.
    ///
    /// Costs two system calls while the directory does not change.
    pub(crate) fn check(&mut self, journal: &Journal, views: &CurrentView) -> Result<()> {
        let version = self.dir.version().map_err(asking)?;
        if version.is_some() && version == self.seen {
            return journal.check_named(false);
        }
        self.seen = None;
        // Taken before the listing: a segment that is ready only after the listing is not in it.
        let segments = journal.file_names();
        let names = self.names(journal, views)?;
        journal.check_named(true)?;
        if let Some(gone) = segments.iter().find(|name| !names.contains(*name)) {
            return Err(Error::gone(gone));
        }
        if let Some(missing) = missing(&names, views) {
            // The fold worker removes a file once a view that does not list it is published.
            if missing_still(&missing, &self.names(journal, views)?, views) {
                return Err(Error::gone(&missing));
            }
        }
        self.seen = version;
        Ok(())
    }

    /// The names in the directory, or at least those of the needed files that are there.
    fn names(&self, journal: &Journal, views: &CurrentView) -> Result<BTreeSet<String>> {
        match self.dir.list() {
            // Listing needs a descriptor. A durable group must not fail for lack of one.
            Err(error) if is_descriptor_shortage(&error) => {
                let mut needed = views.current().file_names();
                needed.extend(journal.file_names());
                let is_there = |name: &String| match self.dir.file_len(name) {
                    Ok(_) => Some(Ok(name.clone())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    Err(error) => Some(Err(asking(error))),
                };
                needed.iter().filter_map(is_there).collect()
            }
            listed => Ok(listed.map_err(asking)?.into_iter().collect()),
        }
    }
}

fn asking(error: io::Error) -> Error {
    Error::io("asking for the store's files", error)
}

fn missing(names: &BTreeSet<String>, views: &CurrentView) -> Option<String> {
    let needed = views.current().file_names();
    needed.into_iter().find(|name| !names.contains(name))
}

fn missing_still(missing: &str, names: &BTreeSet<String>, views: &CurrentView) -> bool {
    !names.contains(missing) && views.current().file_names().contains(missing)
}
