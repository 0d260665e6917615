//! The operating system's filesystem.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::standard_streams::above_standard_streams;
use super::{Caching, Directory, Disk, DiskFile, Lockable};

/// Only the owner may access a store: it holds responses of customers and the store's secret.
const OWNER_DIRECTORY: Mode = Mode::RWXU;
const OWNER_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const GROUP_AND_OTHERS: Mode = Mode::RWXG.union(Mode::RWXO);

/// The operating system's filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

/// Makes one directory, for its owner alone, where there is none.
fn make_dir(path: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, OWNER_DIRECTORY) {
        // Sets the rights that the umask of the process took away.
        Ok(()) => rustix::fs::chmod(path, OWNER_DIRECTORY),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match make_dir(path) {
            Err(Errno::NOENT) => {
                let parent = path.parent().filter(|parent| *parent != Path::new(""));
                self.create_dir(parent.ok_or(Errno::NOENT)?)?;
                // If the parent is still missing, the directory cannot be made: below a link to
                // nothing, or in /proc.
                Ok(make_dir(path)?)
            }
            made => Ok(made?),
        }
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Directory>> {
        let open = || rustix::fs::open(path, DIRECTORY_FLAGS, Mode::empty());
        Ok(Arc::new(OsDirectory(above_standard_streams(open)?)))
    }

    fn rename_dir(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::rename(from, to)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::rmdir(path)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync()
    }

    fn network_filesystem(&self, path: &Path) -> io::Result<Option<&'static str>> {
        network_filesystem(path)
    }
}

/// The name of the network filesystem that holds `path`, if it is one. A store there is refused,
/// unless the [options](crate::Options::allow_network_filesystem) allow it. Known only on Linux.
///
/// # Errors
/// There is no such path, or it may not be read.
pub fn network_filesystem(path: &Path) -> io::Result<Option<&'static str>> {
    #[cfg(target_os = "linux")]
    // Magic numbers: statfs(2) and linux/magic.h; Lustre and GPFS from their own headers.
    let name = match rustix::fs::statfs(path)?.f_type as u32 {
        0x0000_6969 => Some("NFS"),
        0x0000_517b | 0xfe53_4d42 => Some("SMB"),
        0xff53_4d42 => Some("CIFS"),
        0x0102_1997 => Some("9P"),
        0x5346_414f => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        0x7375_7245 => Some("Coda"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x4750_4653 => Some("GPFS"),
        _ => None,
    };
    #[cfg(not(target_os = "linux"))]
    let name = path.metadata().map(|_| None)?;
    Ok(name)
}

const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[derive(Debug)]
struct OsDirectory(OwnedFd);

impl OsDirectory {
    /// Opens a regular file and nothing else.
    fn open_file(
        &self,
        name: &str,
        flags: OFlags,
        mode: Mode,
        caching: Caching,
    ) -> io::Result<File> {
        // NONBLOCK: the open of a pipe or a device must not wait.
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | flags;
        let open = |flags| {
            above_standard_streams(|| rustix::fs::openat(&self.0, name, flags, mode))
                .map(File::from)
        };
        #[cfg(target_os = "linux")]
        let opened = match caching {
            Caching::Direct => match open(flags | OFlags::DIRECT) {
                // The filesystem has no direct I/O; the attempt may have created the file.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    open(flags - OFlags::EXCL)
                }
                opened => opened,
            },
            Caching::Buffered => open(flags),
        };
        #[cfg(not(target_os = "linux"))]
        let (opened, _) = (open(flags), caching);
        let file = opened.map_err(|error| self.irregular_or(name, error))?;
        if !is_regular(&rustix::fs::fstat(&file)?) {
            return Err(irregular());
        }
        // Reads are of records and pages anywhere. Read ahead by megabytes, they hold up the journal.
        #[cfg(target_os = "linux")]
        if caching == Caching::Buffered {
            let _only_slower = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
        }
        Ok(file)
    }

    /// The error of an open or a look at a file, or [`irregular`] when a directory, a socket or a
    /// link stands in the place of the file.
    fn irregular_or(&self, name: &str, error: io::Error) -> io::Error {
        match Errno::from_io_error(&error) {
            // A link that is not followed or leads in a circle (LOOP), a directory (ISDIR) or a
            // socket (NXIO).
            Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => irregular(),
            // A link to nothing.
            Some(Errno::NOENT) if self.is_link(name) => irregular(),
            _ => error,
        }
    }

    fn is_link(&self, name: &str) -> bool {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    fn lock_file(&self, name: &str, create: OFlags) -> io::Result<File> {
        loop {
            // A link is not followed: the lock would be on another file.
            let flags = create | OFlags::NOFOLLOW;
            let file = self.open_file(name, flags, OWNER_FILE, Caching::Buffered)?;
            let opened = rustix::fs::fstat(&file)?;
            if opened.st_size == 0 && create == OFlags::CREATE {
                // Sets the rights that the umask took away from a new file. An older file that
                // belongs to another user stays as it is.
                let _ = rustix::fs::fchmod(&file, OWNER_FILE);
            }
            flock(&file)?;
            // ORDER: the lock counts only if the name still refers to this file. The file may have
            // been removed or replaced between the open and the lock, and another process may hold
            // the new one.
            match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(named) if is_same(&named, &opened) => return Ok(file),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn flock(descriptor: impl std::os::fd::AsFd) -> io::Result<()> {
    match rustix::fs::flock(descriptor, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// The error for a directory, a pipe, a socket or a device in the place of a file.
fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a regular file")
}

fn is_wide(stat: &Stat) -> bool {
    Mode::from_raw_mode(stat.st_mode).intersects(GROUP_AND_OTHERS)
}

impl Directory for OsDirectory {
    fn list(&self) -> io::Result<Vec<String>> {
        let open = || rustix::fs::openat(&self.0, ".", DIRECTORY_FLAGS, Mode::empty());
        let entries = rustix::fs::Dir::new(above_standard_streams(open)?)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OsFile(self.open_file(name, OFlags::empty(), Mode::empty(), caching)?)))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        let stat = rustix::fs::statat(&self.0, name, AtFlags::empty())
            .map_err(|error| self.irregular_or(name, error.into()))?;
        if !is_regular(&stat) {
            return Err(irregular());
        }
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }

    fn create(&self, name: &str, caching: Caching) -> io::Result<Arc<dyn DiskFile>> {
        let flags = OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(name, flags, OWNER_FILE, caching)?;
        // Sets the rights that the umask of the process took away.
        rustix::fs::fchmod(&file, OWNER_FILE)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn lock(&self, what: Lockable<'_>) -> io::Result<Box<dyn Any + Send + Sync>> {
        match what {
            Lockable::Created(name) => Ok(Box::new(self.lock_file(name, OFlags::CREATE)?)),
            Lockable::File(name) => Ok(Box::new(self.lock_file(name, OFlags::empty())?)),
            Lockable::Directory => {
                // A handle of its own, so that the lock ends with the guard and not with the
                // directory.
                let open = || rustix::fs::openat(&self.0, ".", DIRECTORY_FLAGS, Mode::empty());
                let handle = above_standard_streams(open)?;
                match flock(&handle) {
                    // Other users may hold this lock on a directory that they may enter. There the
                    // locks on files count, which only the owner can open.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if !is_wide(&rustix::fs::fstat(&handle)?) {
                            return Err(error);
                        }
                    }
                    result => result?,
                }
                Ok(Box::new(handle))
            }
        }
    }

    fn narrow(&self, names: &[String]) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.0)?;
        if is_wide(&stat) {
            rustix::fs::fchmod(&self.0, Mode::from_raw_mode(stat.st_mode) - GROUP_AND_OTHERS)?;
        }
        for name in names {
            match rustix::fs::statat(&self.0, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_wide(&stat) => {
                    let mode = Mode::from_raw_mode(stat.st_mode) - GROUP_AND_OTHERS;
                    if is_regular(&stat) {
                        rustix::fs::chmodat(&self.0, name.as_str(), mode, AtFlags::empty())?;
                    }
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let filesystem = rustix::fs::fstatvfs(&self.0)?;
        Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
    }

    fn version(&self) -> io::Result<Option<u64>> {
        /// Time stamps come from a clock that ticks each 10 ms at most. Some filesystems round it
        /// down to a second.
        const TICK: Duration = Duration::from_millis(20);
        const COARSE_TICK: Duration = Duration::from_millis(1020);
        let stat = rustix::fs::fstat(&self.0)?;
        let (seconds, nanoseconds) = (stat.st_mtime as u64, stat.st_mtime_nsec as u64);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds as u32);
        let tick = if nanoseconds == 0 { COARSE_TICK } else { TICK };
        let age = SystemTime::now().duration_since(changed).unwrap_or_default();
        Ok((age >= tick).then_some(seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds)))
    }
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
        // fdatasync also writes a changed length, because a read needs it: fdatasync(2).
        self.0.sync_data()
    }

    fn skip_hole(&self, offset: u64) -> io::Result<u64> {
        #[cfg(target_os = "linux")]
        let data = match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => self.len()?,
            // The filesystem may not know its holes.
            data => data.unwrap_or(offset),
        };
        #[cfg(not(target_os = "linux"))]
        let data = offset;
        Ok(data)
    }

    fn is_named(&self) -> io::Result<bool> {
        is_named(&self.0)
    }
}

/// Whether the file has a name.
///
/// Asks only for the number of names. Linux since 6.13 gives a file whose times were asked for a
/// new time stamp at the next write. A group commit then waits for one more change of the inode.
/// <https://docs.kernel.org/filesystems/multigrain-ts.html>
fn is_named(file: &File) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{StatxFlags, statx};
        match statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::NLINK) {
            // A sandbox may not know statx.
            Err(Errno::NOSYS | Errno::PERM) => {}
            stat => return Ok(stat?.stx_nlink > 0),
        }
    }
    Ok(rustix::fs::fstat(file)?.st_nlink > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_a_link_to_nothing_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("nothing"), &link).unwrap();
        let refused = OsDisk.create_dir(&link.join("a/keys")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let made = directory.path().join("b/keys");
        OsDisk.create_dir(&made).unwrap();
        OsDisk.create_dir(&made).unwrap();
        assert!(made.is_dir());
    }

    #[test]
    fn a_file_without_a_name_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        assert!(is_named(&file).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_named(&file).unwrap());
    }
}
