//! The seam between the engine and a filesystem: everything that oncekey reads, writes or syncs
//! goes through [`Disk`], so that a test can put a disk that fails in its place.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Alignment, in bytes, of offsets and buffers on a file opened with [`Caching::Direct`].
pub const BLOCK: usize = 4096;

/// Whether a file's bytes pass through the operating system's page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Through the page cache.
    Buffered,
    /// Past the page cache where the filesystem allows it, else buffered. Offsets, lengths and the
    /// addresses of buffers must be multiples of [`BLOCK`].
    Direct,
}

/// A filesystem, as far as the engine needs one.
///
/// Implementations must be safe to call from several threads at once. A failed call may have
/// happened: the engine never assumes that an error means "nothing changed".
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a directory and its missing parents; an existing one is fine.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names of the files and directories in `path`, in no particular order.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file that must not exist yet, for reading and writing.
    fn create(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing `to`. Durable only after [`sync_dir`](Self::sync_dir).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable only after [`sync_dir`](Self::sync_dir).
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock that `path` stands for, creating the file if need be, and keeps it
    /// until the returned guard is dropped. Fails with [`io::ErrorKind::WouldBlock`] when taken.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// The name of the network filesystem that holds `path`, if it is one.
    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>>;
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`; reading past the end is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file if need be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the length; new bytes are zero.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes all that was written to the file durable, through whichever handle, and its length.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        open_file(fs::OpenOptions::new().read(true).write(true), path, caching)
    }

    fn create(&self, path: &Path, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        open_file(fs::OpenOptions::new().read(true).write(true).create_new(true), path, caching)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>> {
        // Magic numbers: statfs(2) and linux/magic.h; Lustre and GPFS from their own headers.
        let name = match rustix::fs::statfs(path)?.f_type as u32 {
            0x0000_6969 => "NFS",
            0x0000_517b | 0xfe53_4d42 => "SMB",
            0xff53_4d42 => "CIFS",
            0x0102_1997 => "9P",
            0x5346_414f => "AFS",
            0x00c3_6400 => "Ceph",
            0x7375_7245 => "Coda",
            0x0bd0_0bd0 => "Lustre",
            0x4750_4653 => "GPFS",
            _ => return Ok(None),
        };
        Ok(Some(name))
    }

    #[cfg(not(target_os = "linux"))]
    fn network_filesystem(&self, _path: &Path) -> io::Result<Option<&'static str>> {
        Ok(None)
    }
}

fn open_file(
    options: &mut fs::OpenOptions,
    path: &Path,
    caching: Caching,
) -> io::Result<Arc<dyn DiskFile>> {
    #[cfg(target_os = "linux")]
    if caching == Caching::Direct {
        use std::os::unix::fs::OpenOptionsExt;
        let mut direct = options.clone();
        direct.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
        match direct.open(path) {
            // The filesystem has no direct I/O; a file created by the attempt is opened below.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                options.create_new(false).create(true);
            }
            result => return Ok(Arc::new(OsFile(result?))),
        }
    }
    let _ = caching;
    Ok(Arc::new(OsFile(options.open(path)?)))
}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync writes a changed length too, as a read would need it: fdatasync(2).
        self.0.sync_data()
    }
}

/// A buffer whose bytes start at a multiple of [`BLOCK`], as direct I/O needs, grown by whole
/// blocks and without unsafe code: the allocation is one block larger than what is used.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    len: usize,
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
