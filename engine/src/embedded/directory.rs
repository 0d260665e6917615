//! The store directory: `store.redb`, `records-*`, `run-*`, `journal-*.seg`, `LOCK`.
//!
//! A directory is a store from the moment `store.redb` has its name. Creation writes the first
//! journal segment, then the store file under a temporary name, and renames it last. A crash before
//! the rename leaves files that the next creation replaces: no record in them was ever
//! acknowledged.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::error::{Error, ErrorKind, Result};
use crate::base::sync::{Instant, after};
use crate::embedded::disk::{Directory, Disk, Lockable};
use crate::embedded::journal::{self, JournalId, Position};
use crate::embedded::options::Options;
use crate::embedded::store::{self, Store, StoreState};
use crate::semantics::secret::Secret;
use crate::semantics::time::Time;

/// The marker of a backup that is not complete. A directory with this file is no store.
pub(crate) const UNFINISHED: &str = "backup.unfinished";

pub(crate) const LOCK: &str = "LOCK";

/// Keeps other processes and engines out of the directory until the last clone is dropped.
pub(crate) type Lock = Arc<dyn Any + Send + Sync>;

/// The directory of a store.
pub(crate) struct StoreDirectory {
    pub(crate) handle: Arc<dyn Directory>,
    /// The path as it was given, for people: the directory may have moved since.
    pub(crate) path: PathBuf,
}

/// The time between two tries to open a directory that is in use.
const LOCK_TRY: Duration = Duration::from_millis(20);

/// Repeats `open` while the directory is in use, for as long as the options allow.
pub(crate) fn when_free<T>(options: &Options, open: impl Fn() -> Result<T>) -> Result<T> {
    let until = after(options.lock_wait);
    loop {
        match open() {
            Err(error) if error.kind() == ErrorKind::StoreInUse && Instant::now() < until => {
                std::thread::sleep(LOCK_TRY.min(options.lock_wait));
            }
            opened => return opened,
        }
    }
}

/// Locks the directory of a store to read it: takes every lock that [`open`] takes, and changes
/// nothing. Where the file `LOCK` is missing, the locks on the directory and on the store file keep
/// every open out.
pub(crate) fn open_to_read(options: &Options, path: &Path) -> Result<(StoreDirectory, Lock)> {
    let handle = open_dir(&options.disk, path)?.ok_or_else(|| missing(path))?;
    let names = list(&*handle, path)?;
    refuse_unfinished(&names, path)?;
    if !names.iter().any(|name| name == store::FILE) {
        return Err(without_store_file(&*handle, path));
    }
    refuse_network_filesystem(options, path)?;
    // If LOCK cannot be locked, these two tell whether the store is in use.
    let mut locks = vec![
        lock(&*handle, path, Lockable::File(store::FILE))?,
        lock(&*handle, path, Lockable::Directory)?,
    ];
    if names.iter().any(|name| name == LOCK) {
        locks.push(lock(&*handle, path, Lockable::File(LOCK))?);
    }
    Ok((StoreDirectory { handle, path: path.to_owned() }, Arc::new(locks)))
}

/// Opens and locks the directory, creating the store if there is none and `create` allows it.
///
/// Nothing is written before it is clear that the directory is a store, or may become one.
pub(crate) fn open(options: &Options, path: &Path, create: bool) -> Result<(StoreDirectory, Lock)> {
    let disk = &options.disk;
    let opened = open_dir(disk, path)?;
    let names = opened.as_ref().map_or(Ok(Vec::new()), |handle| list(&**handle, path))?;
    let has_store = names.iter().any(|name| name == store::FILE);
    refuse_unfinished(&names, path)?;
    if !has_store && !create {
        let handle = opened.as_deref().ok_or_else(|| missing(path))?;
        return Err(without_store_file(handle, path));
    }
    if let Some(foreign) = names.iter().find(|name| !has_store && !may_stand_beside(name)) {
        let message =
            format!("{} holds {foreign:?}; give an empty or new directory", path.display());
        return Err(Error::new(ErrorKind::StoreForeign, message));
    }
    refuse_network_filesystem(options, path)?;
    let handle = match opened {
        Some(handle) => handle,
        None => create_dir(disk, path)?,
    };
    let locked = lock(&*handle, path, Lockable::Created(LOCK));
    if has_store && locked.as_ref().is_err_and(|error| error.kind() != ErrorKind::StoreInUse) {
        // If LOCK cannot be locked, these two tell whether the store is in use.
        lock(&*handle, path, Lockable::File(store::FILE))?;
        lock(&*handle, path, Lockable::Directory)?;
    }
    // ORDER: the file LOCK is easily removed, so the directory and the store file are locked, too:
    // neither can be replaced without losing the store itself. The directory is locked before the
    // creation, which removes the leftovers of an earlier one.
    let mut locks = vec![locked?, lock(&*handle, path, Lockable::Directory)?];
    // Check again: the previous holder of the lock may have created the store, or begun a backup.
    refuse_unfinished(&list(&*handle, path)?, path)?;
    if !has_store && !Store::exists(&*handle)? {
        create_store(options, &handle)?;
    }
    locks.push(lock(&*handle, path, Lockable::File(store::FILE))?);
    Ok((StoreDirectory { handle, path: path.to_owned() }, Arc::new(locks)))
}

fn missing(path: &Path) -> Error {
    Error::new(ErrorKind::StoreMissing, path.display().to_string())
}

/// The error of a directory in which `store.redb` was not seen: `Corrupted` when it holds other files
/// of a store, else `StoreMissing`. Under the lock, since a creation under way makes such files, too.
fn without_store_file(handle: &dyn Directory, path: &Path) -> Error {
    let looked = lock(handle, path, Lockable::Directory).and_then(|_lock| {
        let names = list(handle, path)?;
        let is_made = names.iter().any(|name| name == store::FILE);
        if is_made { Ok(()) } else { refuse_remains(handle, &names) }
    });
    looked.err().unwrap_or_else(|| missing(path))
}

/// Refuses files of a store without `store.redb`. The remains of a creation hold no record.
fn refuse_remains(handle: &dyn Directory, names: &[String]) -> Result<()> {
    for name in names {
        let holds_records = if journal::is_segment(name) {
            !journal::is_unused_first(handle, name)?
        } else {
            store::is_stored_file(name)
        };
        if holds_records {
            return Err(Error::corrupted(format!(
                "{} is missing, but {name} is there",
                store::FILE
            )));
        }
    }
    Ok(())
}

fn refuse_unfinished(names: &[String], path: &Path) -> Result<()> {
    if !names.iter().any(|name| name == UNFINISHED) {
        return Ok(());
    }
    let message =
        format!("{} is a backup that was not finished; remove it and take another", path.display());
    Err(Error::new(ErrorKind::StoreForeign, message))
}

/// `None` when there is nothing at `path`.
pub(crate) fn open_dir(disk: &Arc<dyn Disk>, path: &Path) -> Result<Option<Arc<dyn Directory>>> {
    match disk.open_dir(path) {
        Ok(handle) => Ok(Some(handle)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let message = format!("{} is not a directory", path.display());
            Err(Error::caused_by(ErrorKind::StoreForeign, message, error))
        }
        Err(error) => Err(Error::io(path.display().to_string(), error)),
    }
}

pub(crate) fn list(handle: &dyn Directory, path: &Path) -> Result<Vec<String>> {
    handle.list().map_err(|error| Error::io(path.display().to_string(), error))
}

/// Whether a store, or its creation, has a file of this name.
pub(crate) fn is_ours(name: &str) -> bool {
    [LOCK, store::FILE, store::TEMPORARY_FILE].contains(&name)
        || journal::is_segment(name)
        || store::is_stored_file(name)
}

/// Whether a file of this name is a part of a store that a copy of the store needs.
pub(crate) fn holds_store(name: &str) -> bool {
    is_ours(name) && name != LOCK && name != store::TEMPORARY_FILE
}

/// Whether a store may be created beside a file of this name: a file of a store, or one that
/// filesystems, desktops, editors and version control leave in a directory. A copy of a file of a
/// store is refused: it may be all that is left of a store.
pub(crate) fn may_stand_beside(name: &str) -> bool {
    const LEFT_BY_OTHERS: [&str; 18] = [
        "lost+found",
        ".snapshot",
        ".snapshots",
        ".zfs",
        ".DS_Store",
        ".localized",
        ".Spotlight-V100",
        ".Trashes",
        ".fseventsd",
        ".directory",
        "@eaDir",
        "Thumbs.db",
        "desktop.ini",
        "System Volume Information",
        "$RECYCLE.BIN",
        ".gitignore",
        ".gitkeep",
        ".keep",
    ];
    // AppleDouble files; files of NFS and FUSE that were removed while open; the trash of desktops.
    const PREFIXES: [&str; 4] = [".nfs", "._", ".fuse_hidden", ".Trash-"];
    is_ours(name)
        || LEFT_BY_OTHERS.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || edited(name).is_some_and(|edited| !is_ours(edited))
}

/// The name of the edited file, if an editor leaves a file `name` beside it.
fn edited(name: &str) -> Option<&str> {
    let swap = |end| name.strip_prefix('.').and_then(|name| name.strip_suffix(end));
    name.strip_suffix('~').or_else(|| swap(".swp")).or_else(|| swap(".swo"))
}

/// Takes the rights of group and others away from the directory and from the files of the store
/// in it. Called once recovery has succeeded.
pub(crate) fn narrow(home: &StoreDirectory) -> Result<()> {
    let mut names = list(&*home.handle, &home.path)?;
    names.retain(|name| is_ours(name));
    let narrowed = home.handle.narrow(&names);
    narrowed.map_err(|error| Error::io(format!("narrowing {}", home.path.display()), error))
}

fn refuse_network_filesystem(options: &Options, path: &Path) -> Result<()> {
    if options.allow_network_filesystem {
        return Ok(());
    }
    // A directory that is to be created lies where its first existing ancestor lies.
    let here = PathBuf::from(".");
    let ancestors = path.ancestors().map(|path| if path == Path::new("") { &here } else { path });
    for ancestor in ancestors {
        match options.disk.network_filesystem(ancestor) {
            Ok(None) => return Ok(()),
            Ok(Some(name)) => {
                let message = format!(
                    "{} is on {name}, whose locks and syncs cannot be trusted; use a local disk, \
                     or override with `allow_network_filesystem(true)`",
                    path.display()
                );
                return Err(Error::new(ErrorKind::NetworkFilesystem, message));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(ancestor.display().to_string(), error)),
        }
    }
    Ok(())
}

/// Creates the directory, and makes the entry of each created directory durable.
pub(crate) fn create_dir(disk: &Arc<dyn Disk>, path: &Path) -> Result<Arc<dyn Directory>> {
    let failed = |error| Error::io(format!("creating {}", path.display()), error);
    let missing: Vec<_> = path
        .ancestors()
        .take_while(|path| *path != Path::new("") && disk.open_dir(path).is_err())
        .collect();
    disk.create_dir(path).map_err(failed)?;
    for created in missing {
        disk.sync_dir(parent(created)).map_err(failed)?;
    }
    disk.open_dir(path).map_err(failed)
}

/// The directory that contains `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Makes the entries of the directory and of those above it durable, before the first epoch of a
/// store. The process that created them may have been killed before it did so.
pub(crate) fn make_names_durable(disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
    for parent in path.ancestors().skip(1) {
        let parent = if parent == Path::new("") { Path::new(".") } else { parent };
        match disk.sync_dir(parent) {
            Ok(()) => {}
            // This process may not read the directory, so it did not create it; or it cannot be
            // synced.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::Unsupported
                ) => {}
            Err(error) => return Err(Error::io(format!("syncing {}", parent.display()), error)),
        }
    }
    Ok(())
}

pub(crate) fn lock(
    handle: &dyn Directory,
    path: &Path,
    what: Lockable<'_>,
) -> Result<Box<dyn Any + Send + Sync>> {
    let locked = match what {
        Lockable::Created(name) | Lockable::File(name) => path.join(name),
        Lockable::Directory => path.to_owned(),
    };
    handle.lock(what).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::new(
            ErrorKind::StoreInUse,
            format!(
                "{} is locked by another process or by another engine of this one; one engine \
                 holds a store at a time",
                locked.display()
            ),
        ),
        io::ErrorKind::InvalidData => {
            let message = format!("{}: {error}", locked.display());
            Error::caused_by(ErrorKind::StoreForeign, message, error)
        }
        io::ErrorKind::NotFound => {
            Error::caused_by(ErrorKind::StoreMissing, locked.display().to_string(), error)
        }
        _ => Error::io(format!("locking {}", locked.display()), error),
    })
}

/// Creates the store. Replaces the remains of an earlier creation, once it is clear that no other
/// file is there.
fn create_store(options: &Options, dir: &Arc<dyn Directory>) -> Result<()> {
    let names = dir.list().map_err(|error| Error::io("the store's directory", error))?;
    refuse_remains(&**dir, &names)?;
    let is_left = |name: &String| journal::is_segment(name) || name == store::TEMPORARY_FILE;
    let leftovers: Vec<_> = names.into_iter().filter(is_left).collect();
    let mut secret = Secret([0; Secret::LEN]);
    random(options, &mut secret.0)?;
    let identity = random_number(options)?;
    for name in leftovers {
        dir.remove(&name).map_err(|error| Error::io(format!("removing {name}"), error))?;
    }
    let id = JournalId::new(identity, &secret);
    journal::create(dir, id, options.segment_sizes())?;
    let time = Time::from_wall(options.clock.wall());
    let state = StoreState::new(identity, secret, Position::FIRST, time);
    Store::create(dir, options.store_cache_bytes(), &state)
}

#[cfg_attr(not(feature = "stepping"), allow(unused_variables))]
fn random(options: &Options, bytes: &mut [u8]) -> Result<()> {
    #[cfg(feature = "stepping")]
    if let Some(stepper) = &options.stepper {
        stepper.random(bytes);
        return Ok(());
    }
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::io("reading random bytes", error.into())),
        }
    }
    Ok(())
}

pub(crate) fn random_number(options: &Options) -> Result<u64> {
    let mut bytes = [0; 8];
    random(options, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
