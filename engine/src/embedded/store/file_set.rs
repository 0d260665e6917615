//! The files beside `store.redb`: the completed records of each expiry bucket, and the runs that index
//! them.
//!
//! A file and its name are durable before a commit lists the file. The listed part of a file never
//! changes. A file is removed as a whole, once no commit lists it and no view reads it. A file that
//! no commit lists is left over from work that did not commit, or from a process that ended before
//! it removed the file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::base::error::is_descriptor_shortage;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Mutex, Swap};
use crate::embedded::disk::{AlignedBuffer, BLOCK, Caching, Directory, DiskFile};

/// The bytes that a backup reads or writes between two rests: few, because the journal waits behind
/// them.
pub(super) const COPY_BYTES: u64 = 128 << 10;
/// The smallest piece of a removed file that is freed at once: about a millisecond's work of a
/// filesystem.
const SHRINK_BYTES: u64 = 4 << 20;
/// Each step frees at least one part in this many of all removed bytes, so that they cannot pile
/// up.
const SHRINK_STEPS: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileName {
    /// The records of the bucket with this end.
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

/// Called with the number of bytes that were read for verification, or copied. It may sleep, and
/// its error ends the copy.
pub(super) type Copied<'a> = dyn FnMut(u64) -> Result<()> + 'a;

/// A file that is or was listed. A read opens it, and it may be closed between reads. It is removed
/// only after its last reader has dropped it.
#[derive(Debug)]
pub(super) struct StoredFile {
    name: FileName,
    opener: Arc<Opener>,
    handle: Arc<Handle>,
}

impl StoredFile {
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        // The loaded slot keeps the file open although it may be closed for others meanwhile.
        let read = self.handle.file.load().0.as_ref().map(|file| {
            self.handle.mark_used();
            file.read_at(offset, buffer)
        });
        let read = match read {
            Some(read) => read,
            None => self.opener.open(self.name, &self.handle)?.read_at(offset, buffer),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupted(format!("{} is cut short", self.name)),
            _ => Error::io(format!("reading {}", self.name), error),
        })
    }

    /// Copies the bytes before `end` into a new file of the same name in `target`. The copy is
    /// durable, its name is not.
    pub(super) fn copy_to(
        &self,
        target: &dyn Directory,
        end: u64,
        copied: &mut Copied<'_>,
    ) -> Result<()> {
        let name = self.name;
        let failed = |error| Error::io(format!("writing the copy of {name}"), error);
        let copy = target.create(&name.to_string(), Caching::Direct).map_err(failed)?;
        // Past the page cache, in whole blocks: a flush of the copy would hold up the journal.
        let mut buffer = AlignedBuffer::zeroed(COPY_BYTES as usize);
        let mut offset = 0;
        while offset < end {
            let len = (end - offset).min(COPY_BYTES) as usize;
            self.read(offset, &mut buffer[..len])?;
            let blocks = len.next_multiple_of(BLOCK);
            buffer[len..blocks].fill(0);
            copy.write_at(offset, &buffer[..blocks]).map_err(failed)?;
            offset += len as u64;
            copied(len as u64)?;
        }
        copy.set_len(end).and_then(|()| copy.sync()).map_err(failed)
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// The place of an open file; empty while the file is closed.
#[derive(Debug)]
struct Handle {
    file: Swap<Slot>,
    /// Read since the opener last looked for a file to close.
    used: AtomicBool,
}

#[derive(Debug)]
struct Slot(Option<Arc<dyn DiskFile>>);

impl Handle {
    fn closed() -> Self {
        Self { file: Swap::new(Arc::new(Slot(None))), used: AtomicBool::new(false) }
    }

    fn mark_used(&self) {
        // Threads that read one file write to this only once.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn close(&self) {
        self.used.store(false, Ordering::Relaxed);
        drop(self.file.swap(Arc::new(Slot(None))));
    }
}

/// Opens the files of a store for its readers, and keeps at most [`Options::max_open_files`] open.
///
/// [`Options::max_open_files`]: crate::Options::max_open_files
#[derive(Debug)]
pub(super) struct Opener {
    dir: Arc<dyn Directory>,
    most: usize,
    /// The open files, and some that were dropped. The next one to close is the first.
    open: Mutex<VecDeque<Arc<Handle>>>,
}

impl Opener {
    pub(super) fn new(dir: Arc<dyn Directory>, most: usize) -> Arc<Self> {
        Arc::new(Self { dir, most, open: Mutex::default() })
    }

    fn open(&self, name: FileName, handle: &Arc<Handle>) -> Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some(file) = &handle.file.load().0 {
            return Ok(file.clone());
        }
        while open.len() >= self.most {
            close_one(&mut open);
        }
        let opened = loop {
            match self.dir.open(&name.to_string(), Caching::Buffered) {
                // The descriptors of this process are used up: one file makes way for another.
                Err(error) if is_descriptor_shortage(&error) && !open.is_empty() => {
                    close_one(&mut open);
                }
                opened => break opened,
            }
        };
        let file = opened.map_err(|error| missing_or(name, "opening", error))?;
        drop(handle.file.swap(Arc::new(Slot(Some(file.clone())))));
        handle.mark_used();
        open.push_back(handle.clone());
        Ok(file)
    }

    /// Opens an unlisted file for writing: a new one, or one left over from work that did not
    /// commit.
    pub(super) fn create(&self, name: FileName, caching: Caching) -> Result<NewFile> {
        let path = name.to_string();
        let created = match self.dir.create(&path, caching) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.dir.open(&path, caching)
            }
            created => created,
        };
        let file = created.map_err(|error| Error::io(format!("creating {name}"), error))?;
        Ok(NewFile { name, file })
    }

    /// Opens a listed file for writing.
    pub(super) fn open_listed(&self, name: FileName) -> Result<NewFile> {
        let file = self.dir.open(&name.to_string(), Caching::Buffered);
        Ok(NewFile { name, file: file.map_err(|error| missing_or(name, "opening", error))? })
    }

    /// A reader of the file. Does not open the file.
    pub(super) fn reader(self: &Arc<Self>, name: FileName) -> Arc<StoredFile> {
        let handle = Arc::new(Handle::closed());
        Arc::new(StoredFile { name, opener: self.clone(), handle })
    }

    pub(super) fn close_all(&self) {
        self.open.lock().drain(..).for_each(|handle| handle.close());
    }

    /// The length of a listed file. Does not open the file.
    fn len(&self, name: FileName) -> Result<u64> {
        let len = self.dir.file_len(&name.to_string());
        len.map_err(|error| missing_or(name, "measuring", error))
    }

    /// Removes a file, if it is still there.
    pub(super) fn remove(&self, name: FileName) -> Result<()> {
        match self.dir.remove(&name.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {name}"), error))
            }
            _ => Ok(()),
        }
    }
}

/// Closes a file that was not read since the last look, if there is one. A file that was read is
/// passed over once.
fn close_one(open: &mut VecDeque<Arc<Handle>>) {
    for _ in 0..=open.len() {
        let Some(handle) = open.pop_front() else { return };
        if handle.used.swap(false, Ordering::Relaxed) {
            open.push_back(handle);
        } else {
            return handle.close();
        }
    }
    if let Some(handle) = open.pop_front() {
        handle.close();
    }
}

fn missing_or(name: FileName, doing: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::caused_by(ErrorKind::Corrupted, format!("{name} is missing"), error)
        }
        _ => Error::io(format!("{doing} {name}"), error),
    }
}

/// A file that is open for writing.
#[derive(Debug)]
pub(super) struct NewFile {
    name: FileName,
    file: Arc<dyn DiskFile>,
}

impl NewFile {
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset, bytes).map_err(|error| self.failed(error))
    }

    /// Makes the written bytes and the length durable, but not the name.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|error| self.failed(error))
    }

    /// Sets the length of the file to `end`.
    pub(super) fn cut(&self, end: u64) -> Result<()> {
        self.file.set_len(end).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io(format!("writing {}", self.name), error)
    }
}

/// The files that may be read.
#[derive(Clone, Debug)]
pub(super) struct Files {
    opener: Arc<Opener>,
    by_name: BTreeMap<FileName, Arc<StoredFile>>,
}

impl Files {
    /// Checks that the listed files exist, and opens none.
    pub(super) fn listed(
        opener: Arc<Opener>,
        names: impl IntoIterator<Item = FileName>,
    ) -> Result<Self> {
        let mut files = Self::none(opener);
        names.into_iter().try_for_each(|name| files.add(name))?;
        Ok(files)
    }

    pub(super) fn none(opener: Arc<Opener>) -> Self {
        Self { opener, by_name: BTreeMap::new() }
    }

    /// Adds a listed file, which must exist. Of a file that is cut short, the present part still
    /// answers.
    pub(super) fn add(&mut self, name: FileName) -> Result<()> {
        self.opener.len(name)?;
        self.insert(name);
        Ok(())
    }

    /// Adds a file that is durable.
    pub(super) fn insert(&mut self, name: FileName) {
        self.by_name.entry(name).or_insert_with(|| self.opener.reader(name));
    }

    pub(super) fn get(&self, name: FileName) -> Result<&Arc<StoredFile>> {
        self.by_name.get(&name).ok_or_else(|| Error::corrupted(format!("{name} is not listed")))
    }

    pub(super) fn opener(&self) -> &Arc<Opener> {
        &self.opener
    }

    pub(super) fn names(&self) -> impl Iterator<Item = FileName> {
        self.by_name.keys().copied()
    }

    pub(super) fn contains(&self, name: FileName) -> bool {
        self.by_name.contains_key(&name)
    }

    /// Takes the file out. It lives on for its readers.
    pub(super) fn take(&mut self, name: FileName) -> Option<Arc<StoredFile>> {
        self.by_name.remove(&name)
    }
}

/// Files that are no longer listed. Once no view can read a file, its space is given back step by
/// step, and then its name.
#[derive(Debug, Default)]
pub(super) struct Removed(Vec<Arc<StoredFile>>);

impl Removed {
    pub(super) fn extend(&mut self, files: impl IntoIterator<Item = Arc<StoredFile>>) {
        self.0.extend(files);
    }

    /// Gives some space back. Returns whether the same file has more, `None` when no space can be
    /// given back now.
    ///
    /// To free a large file at once takes the filesystem long, and holds up the sync of other
    /// files.
    pub(super) fn shrink(&mut self) -> Result<Option<bool>> {
        // Another thread may still read a file through an earlier view.
        let Some(unread) = self.0.iter().position(|file| Arc::strong_count(file) == 1) else {
            return Ok(None);
        };
        let all: u64 = self.0.iter().map(|file| file.opener.len(file.name).unwrap_or(0)).sum();
        let StoredFile { name, opener, .. } = &*self.0[unread];
        let bytes = SHRINK_BYTES.max(all / SHRINK_STEPS);
        let left = opener.len(*name).unwrap_or(0).saturating_sub(bytes);
        // A file that cannot be cut is removed as a whole.
        let cut = left > 0
            && opener
                .dir
                .open(&name.to_string(), Caching::Buffered)
                .and_then(|file| file.set_len(left))
                .is_ok();
        if !cut {
            opener.remove(*name)?;
            self.0.swap_remove(unread);
        }
        Ok(Some(cut))
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
