//! The files beside `store.redb`: the completed records of each expiry bucket, and the runs that index
//! them.
//!
//! A file is durable, and so is its name, before a commit lists it; what is listed of it never changes;
//! and it goes as a whole, once no commit lists it any more. A file that none lists is left over from
//! work that did not commit, or from a process that ended before it removed it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::disk::{Caching, Directory, DiskFile};

/// What is copied at once.
const COPY_BYTES: u64 = 1 << 20;
/// What is freed of a removed file at once, at least: about a millisecond's work of a filesystem.
const SHRINK_BYTES: u64 = 4 << 20;
/// In so many steps or fewer half of all that is to be freed is freed, so that it can not pile up.
const SHRINK_STEPS: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileName {
    /// The records of the bucket that ends then.
    Records(u64),
    /// The run of this number.
    Run(u64),
}

const RECORDS: &str = "records-";
const RUN: &str = "run-";

impl FileName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let number = |prefix| {
            let digits = name.strip_prefix(prefix).filter(|digits: &&str| digits.len() == 16)?;
            u64::from_str_radix(digits, 16).ok()
        };
        number(RECORDS).map(Self::Records).or_else(|| number(RUN).map(Self::Run))
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(bucket_end) => write!(f, "{RECORDS}{bucket_end:016x}"),
            Self::Run(run) => write!(f, "{RUN}{run:016x}"),
        }
    }
}

/// An open file. Any number of threads may read it, also after it was removed.
#[derive(Debug)]
pub(super) struct StoredFile {
    name: FileName,
    file: Arc<dyn DiskFile>,
}

impl StoredFile {
    /// Opens a file that is listed.
    fn open(dir: &dyn Directory, name: FileName) -> Result<Self> {
        let opened = dir.open(&name.to_string(), Caching::Buffered);
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::caused_by(ErrorKind::Corrupted, format!("{name} is missing"), error)
            }
            _ => Error::io(format!("opening {name}"), error),
        })?;
        Ok(Self { name, file })
    }

    /// Opens a file that nothing lists yet: a new one, or what is left over from work that did not
    /// commit.
    fn create(dir: &dyn Directory, name: FileName) -> Result<Self> {
        let path = name.to_string();
        let created = match dir.create(&path, Caching::Buffered) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                dir.open(&path, Caching::Buffered)
            }
            created => created,
        };
        let file = created.map_err(|error| Error::io(format!("creating {name}"), error))?;
        Ok(Self { name, file })
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupted(format!("{} is cut short", self.name)),
            _ => Error::io(format!("reading {}", self.name), error),
        })
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes).map_err(|error| self.writing(error))
    }

    /// Makes what was written durable, and the length, but not the name.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|error| self.writing(error))
    }

    /// Cuts off what lies behind `end`.
    pub(super) fn cut(&self, end: u64) -> Result<()> {
        self.file.set_len(end).map_err(|error| self.writing(error))
    }

    fn writing(&self, error: io::Error) -> Error {
        Error::io(format!("writing {}", self.name), error)
    }

    fn len(&self) -> u64 {
        self.file.len().unwrap_or(0)
    }

    /// Gives the last bytes of a removed file back to the filesystem, which for all of a large file at
    /// once takes long, and holds up whoever syncs another; gives whether some are left.
    fn shrink(&self, bytes: u64) -> bool {
        let left = self.len().saturating_sub(bytes);
        // What can not be cut goes when the file is closed.
        left > 0 && self.file.set_len(left).is_ok()
    }

    /// Copies what lies before `end` into a new file of the same name in `target`. Durable, but for
    /// its name.
    pub(super) fn copy_to(&self, target: &dyn Directory, end: u64) -> Result<()> {
        let name = self.name;
        let failed = |error| Error::io(format!("writing the copy of {name}"), error);
        let copy = target.create(&name.to_string(), Caching::Buffered).map_err(failed)?;
        let mut buffer = vec![0; COPY_BYTES.min(end) as usize];
        let mut offset = 0;
        while offset < end {
            let len = (end - offset).min(COPY_BYTES) as usize;
            self.read(offset, &mut buffer[..len])?;
            copy.write_at(offset, &buffer[..len]).map_err(failed)?;
            offset += len as u64;
        }
        copy.sync().map_err(failed)
    }
}

/// The files that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(BTreeMap<FileName, Arc<StoredFile>>);

impl Files {
    /// Opens listed files.
    pub(super) fn open(
        dir: &dyn Directory,
        names: impl IntoIterator<Item = FileName>,
    ) -> Result<Self> {
        let mut files = Self::default();
        names.into_iter().try_for_each(|name| files.add(dir, name))?;
        Ok(files)
    }

    /// Opens a listed file.
    pub(super) fn add(&mut self, dir: &dyn Directory, name: FileName) -> Result<()> {
        self.0.insert(name, Arc::new(StoredFile::open(dir, name)?));
        Ok(())
    }

    pub(super) fn get(&self, name: FileName) -> Result<&Arc<StoredFile>> {
        self.0.get(&name).ok_or_else(|| Error::corrupted(format!("{name} is not open")))
    }

    /// Opens a file that may not be there yet.
    pub(super) fn create(
        &mut self,
        dir: &dyn Directory,
        name: FileName,
    ) -> Result<&Arc<StoredFile>> {
        use std::collections::btree_map::Entry;
        Ok(match self.0.entry(name) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(Arc::new(StoredFile::create(dir, name)?)),
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = FileName> {
        self.0.keys().copied()
    }

    /// Takes the file out. It is closed once its last reader has let go of it.
    pub(super) fn take(&mut self, name: FileName) -> Option<Arc<StoredFile>> {
        self.0.remove(&name)
    }
}

/// Removes a file. That it is gone already is fine.
pub(super) fn remove(dir: &dyn Directory, name: FileName) -> Result<()> {
    match dir.remove(&name.to_string()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {name}"), error))
        }
        _ => Ok(()),
    }
}

/// Removed files that are still open: their space is given back step by step.
#[derive(Debug, Default)]
pub(super) struct Removed(Vec<Arc<StoredFile>>);

impl Removed {
    pub(super) fn extend(&mut self, files: impl IntoIterator<Item = Arc<StoredFile>>) {
        self.0.extend(files);
    }

    /// Gives some space back, and whether some of the same file is left; `None` when none can be given
    /// back now.
    pub(super) fn shrink(&mut self) -> Option<bool> {
        // Through a view that was made before, somebody may read the file still.
        let unread = self.0.iter().position(|file| Arc::strong_count(file) == 1)?;
        let all: u64 = self.0.iter().map(|file| file.len()).sum();
        let left = self.0[unread].shrink(SHRINK_BYTES.max(all / SHRINK_STEPS));
        if !left {
            self.0.swap_remove(unread);
        }
        Some(left)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_the_file_is() {
        for name in [FileName::Records(0), FileName::Records(u64::MAX), FileName::Run(0x1_2345)] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        assert_eq!(FileName::Run(255).to_string(), "run-00000000000000ff");
        for other in
            ["run-ff", "records-", "run-00000000000000fg", "store.redb", "journal-0001.seg"]
        {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }
}
