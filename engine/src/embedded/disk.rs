//! The seam between the engine and a filesystem: everything that oncekey reads, writes or syncs
//! goes through [`Disk`], so that a test can use a disk that fails.

pub(crate) mod os;
pub(crate) mod standard_streams;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::base::bytes::Hidden;

pub use os::OsDisk;

/// Alignment, in bytes, of offsets and buffers on a file opened with [`Caching::Direct`].
pub const BLOCK: usize = 4096;

/// Whether a file's bytes pass through the operating system's page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Through the page cache, which reads nothing ahead.
    Buffered,
    /// Past the page cache where the filesystem allows it, else buffered. Offsets, lengths and the
    /// addresses of buffers must be multiples of [`BLOCK`].
    Direct,
}

/// The part of a filesystem that the engine needs: where directories are made and opened.
///
/// Implementations must be safe to call from several threads at once. A failed call may have
/// happened: the engine never assumes that an error means "nothing changed".
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a directory and its missing parents, for their owner alone; an existing one is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens an existing directory. The handle keeps referring to that directory when it is moved,
    /// when another takes its place, and when the process changes its working directory.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>>;
    /// Renames a directory within its parent. `to` must not exist, or be an empty directory, which is replaced. Durable
    /// only after [`sync_dir`](Self::sync_dir) of the parent.
    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of the directory at `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The name of the network filesystem that holds `path`, if it is one.
    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>>;
}

/// An open directory. Names are those of its entries, never paths.
///
/// The promises of [`Disk`] about threads and failed calls hold here too.
pub trait Directory: Debug + Send + Sync + 'static {
    /// The names of its entries, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing. Never waits for a pipe or a device, and
    /// fails with [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::IsADirectory`] when the name
    /// is not that of a regular file.
    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>>;
    /// The length of an existing file in bytes. Needs no descriptor. Fails as [`open`](Self::open)
    /// does when the name is not that of a regular file.
    fn file_len(&self, name: &str) -> io::Result<u64>;
    /// Creates a file that must not exist yet, for reading and writing, by its owner alone.
    fn create(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing `to`. Durable only after [`sync`](Self::sync).
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable only after [`sync`](Self::sync).
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the entries durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes an exclusive lock and keeps it until the returned guard is dropped. Fails with
    /// [`io::ErrorKind::WouldBlock`] when it is taken.
    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// Takes the rights of the group and of others away from the directory and from the named
    /// files.
    fn narrow(&self, names: &[String]) -> io::Result<()>;
    /// The bytes of its filesystem that this process may still use.
    fn free_bytes(&self) -> io::Result<u64>;
    /// A value that changes whenever an entry is added, removed or renamed. `None` while another
    /// change might not show in it, because the last change is too young.
    fn version(&self) -> io::Result<Option<u64>>;
}

/// The object that a lock is taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockable<'a> {
    /// The file of this name, which is created if it is missing.
    Created(&'a str),
    /// The existing file of this name.
    File(&'a str),
    /// The directory itself.
    Directory,
}

/// An open file.
#[allow(clippy::len_without_is_empty, reason = "no list: nothing asks whether a file has no bytes")]
pub trait DiskFile: Debug + Send + Sync {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; reading past the end is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file if need be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the length; new bytes are zero.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes all writes to the file, through any handle, and its length durable.
    fn sync(&self) -> io::Result<()>;
    /// A place at `offset` or behind it before which there are only zeros. The end of a file that
    /// was stretched is found at once.
    fn skip_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(offset)
    }
    /// Whether the file still has a name. Without one it is lost when it is closed.
    fn is_named(&self) -> io::Result<bool>;
}

/// A buffer whose bytes start at a multiple of [`BLOCK`], as direct I/O needs. It grows by whole
/// blocks. No unsafe code is needed, because the allocation is one block larger than the buffer.
#[derive(Default)]
pub(crate) struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    len: usize,
}

impl Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Hidden(self).fmt(f)
    }
}

impl AlignedBuffer {
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buffer = Self::default();
        buffer.reserve(len);
        buffer.len = len;
        buffer
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let end = self.start + self.len;
        self.storage[end..end + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Fills with zeros to the next whole block.
    pub(crate) fn pad(&mut self) {
        let padding = self.len.next_multiple_of(BLOCK) - self.len;
        self.reserve(padding);
        let end = self.start + self.len;
        self.storage[end..end + padding].fill(0);
        self.len += padding;
    }

    fn reserve(&mut self, additional: usize) {
        let needed = self.len + additional;
        if self.start + needed <= self.storage.len() {
            return;
        }
        let mut storage = vec![0; needed.max(self.len * 2).next_multiple_of(BLOCK) + BLOCK];
        let start = storage.as_ptr().align_offset(BLOCK);
        storage[start..start + self.len].copy_from_slice(self);
        (self.storage, self.start) = (storage, start);
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

impl crate::base::codec::Encode for AlignedBuffer {
    fn put(&mut self, bytes: &[u8]) {
        self.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_printed_by_its_length() {
        let mut buffer = AlignedBuffer::default();
        buffer.extend(b"secret");
        assert_eq!(format!("{buffer:?}"), "6 bytes");
    }

    #[test]
    fn an_aligned_buffer_stays_aligned_while_it_grows() {
        let mut buffer = AlignedBuffer::default();
        for round in 0..2000u32 {
            buffer.extend(&round.to_le_bytes());
            assert_eq!(buffer.as_ptr().align_offset(BLOCK), 0);
        }
        let before: Vec<u8> = buffer.to_vec();
        buffer.pad();
        assert_eq!(buffer.len() % BLOCK, 0);
        assert_eq!(&buffer[..before.len()], before);
        assert!(buffer[before.len()..].iter().all(|byte| *byte == 0));
        buffer.clear();
        assert!(buffer.is_empty());
    }
}
