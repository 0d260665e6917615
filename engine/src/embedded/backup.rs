//! A consistent copy of a store, made while the engine runs, on the thread that asks for it.
//!
//! The copy is taken from one [view](crate::embedded::store::View): the commit that the view shows stays
//! readable, although the fold worker goes on meanwhile. Nothing of the engine waits for the copy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::backend::telemetry;
use crate::base::error::{Error, ErrorKind, Result};
use crate::embedded::directory::{self, LOCK, StoreDirectory, UNFINISHED};
use crate::embedded::disk::{Caching, Directory, Disk, Lockable};
use crate::embedded::journal::{self, JournalId, Position, Reached};
use crate::embedded::options::Options;
use crate::embedded::session::Session;

/// Keeps the pace of one backup, and ends it when the engine ends.
struct Pace<'a> {
    session: &'a Session,
    started: Instant,
    /// The bytes of the whole backup, and those copied so far.
    bytes: u64,
    copied: u64,
}

impl<'a> Pace<'a> {
    fn start(session: &'a Session, bytes: u64) -> Self {
        let progress = &session.backups;
        progress.running.fetch_add(1, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { session, started: Instant::now(), bytes, copied: 0 }
    }

    /// Counts bytes that were verified or copied, and sleeps when the backup is faster than
    /// allowed.
    ///
    /// # Errors
    /// `Closed` when the engine was closed meanwhile, `Unavailable` when it was reopened. The files
    /// of the view then belong to another session, which frees their space.
    fn copied(&mut self, bytes: u64) -> Result<()> {
        /// The longest rest: a close is noticed after it.
        const LONGEST: Duration = Duration::from_millis(100);
        self.copied += bytes;
        self.session.backups.copied.fetch_add(bytes, Ordering::Relaxed);
        loop {
            if self.session.is_over() {
                return Err(self.session.refusal());
            }
            let Some(rate) = self.session.options.backup_rate() else { return Ok(()) };
            let due = Duration::from_secs_f64(self.copied as f64 / rate as f64);
            let rest = due.saturating_sub(self.started.elapsed());
            if rest.is_zero() {
                return Ok(());
            }
            std::thread::sleep(rest.min(LONGEST));
        }
    }
}

impl Drop for Pace<'_> {
    fn drop(&mut self) {
        let progress = &self.session.backups;
        progress.running.fetch_sub(1, Ordering::Relaxed);
        progress.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        progress.copied.fetch_sub(self.copied, Ordering::Relaxed);
    }
}

/// Copies the store, as of the last fold, into the new or empty directory `path`.
pub(crate) fn back_up(session: &Session, path: &Path) -> Result<()> {
    make(&session.options.disk, path, |target| {
        copy(session, target, path).map_err(|error| {
            // The files of a session that is over belong to another session: their error says
            // nothing.
            if session.is_over() { session.refusal() } else { session.unreadable(error) }
        })
    })
}

/// Copies the files of a store that the caller has locked into the new or empty directory `path`.
pub(crate) fn copy_files(disk: &Arc<dyn Disk>, home: &StoreDirectory, path: &Path) -> Result<()> {
    make(disk, path, |target| {
        let mut names = directory::list(&*home.handle, &home.path)?;
        names.retain(|name| directory::holds_store(name));
        let mut bytes = 0;
        for name in &names {
            let len = home.handle.file_len(name);
            bytes += len.map_err(|error| Error::io(format!("measuring {name}"), error))?;
        }
        check_space(&**target, bytes, path)?;
        names.iter().try_for_each(|name| copy_file(&*home.handle, &**target, name))?;
        let named = target.sync();
        named.map_err(|error| Error::io("naming the copies of the store's files", error))?;
        finish(&**target)
    })
}

/// Copies one file. The copy is durable, its name is not.
fn copy_file(from: &dyn Directory, to: &dyn Directory, name: &str) -> Result<()> {
    const STEP: u64 = 1 << 20;
    let reading = |error| Error::io(format!("reading {name}"), error);
    let writing = |error| Error::io(format!("writing the copy of {name}"), error);
    let source = from.open(name, Caching::Buffered).map_err(reading)?;
    let copy = to.create(name, Caching::Buffered).map_err(writing)?;
    let end = source.len().map_err(reading)?;
    let mut buffer = vec![0; STEP.min(end) as usize];
    let mut offset = 0;
    while offset < end {
        let piece = &mut buffer[..STEP.min(end - offset) as usize];
        source.read_at(offset, piece).map_err(reading)?;
        copy.write_at(offset, piece).map_err(writing)?;
        offset += piece.len() as u64;
    }
    copy.sync().map_err(writing)
}

/// Lets `fill` make a store in the new or empty directory `path`. A directory whose filling fails is
/// emptied, and removed if it is new.
///
/// An existing directory is marked as unfinished before it is filled. A new directory gets its name
/// with the marker inside: an unmarked directory of that name would open as a new store.
fn make(
    disk: &Arc<dyn Disk>,
    path: &Path,
    fill: impl FnOnce(&Arc<dyn Directory>) -> Result<()>,
) -> Result<()> {
    // Without a `.` at the end, which no rename takes.
    let path = &path.components().collect::<PathBuf>();
    refuse_name(path)?;
    let place = Place::of(disk, path)?;
    refuse_occupied(&*place.target, path)?;
    let lock = directory::lock(&*place.target, place.built_at(), Lockable::Created(LOCK))?;
    // ORDER: check again. The previous holder of the lock may have made a store, which must stay.
    refuse_occupied(&*place.target, path)?;
    let filled =
        mark(&*place.target).and_then(|()| place.name(disk)).and_then(|()| fill(&place.target));
    if filled.is_ok() {
        let narrowed = place.target.narrow(&[]);
        let narrowed =
            narrowed.map_err(|error| Error::io(format!("narrowing {}", path.display()), error));
        narrowed.unwrap_or_else(|error| telemetry::stays_wide(&error));
    } else {
        // ORDER: the marker goes last; without it, the rest could become a store.
        let removed =
            remove_parts(&*place.target).and_then(|()| remove(&*place.target, UNFINISHED));
        drop(lock);
        if removed.is_ok() {
            place.remove_if_new(disk);
        }
    }
    filled
}

/// The directory that a backup goes to.
struct Place<'a> {
    target: Arc<dyn Directory>,
    path: &'a Path,
    /// The name that a new directory has until it is marked.
    unmarked: Option<PathBuf>,
}

impl<'a> Place<'a> {
    fn of(disk: &Arc<dyn Disk>, path: &'a Path) -> Result<Self> {
        if let Some(target) = directory::open_dir(disk, path)? {
            return Ok(Self { target, path, unmarked: None });
        }
        let name = path.file_name().ok_or_else(|| {
            Error::invalid(format!("{} does not name a directory", path.display()))
        })?;
        let mut unmarked = name.to_owned();
        // No name that means something in a store: the parent may be the directory of a store.
        unmarked.push(".unmarked");
        let unmarked = path.with_file_name(unmarked);
        // A directory that a killed backup left here unmarked is used again.
        let target = directory::create_dir(disk, &unmarked)?;
        Ok(Self { target, path, unmarked: Some(unmarked) })
    }

    fn built_at(&self) -> &Path {
        self.unmarked.as_deref().unwrap_or(self.path)
    }

    /// Gives a marked new directory its name.
    fn name(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let Some(unmarked) = &self.unmarked else { return Ok(()) };
        match disk.rename_dir(unmarked, self.path) {
            Err(error) if is_taken(&error) => {
                let message = format!("{} was created meanwhile", self.path.display());
                return Err(Error::invalid(message));
            }
            result => result,
        }
        .and_then(|()| disk.sync_dir(directory::parent(self.path)))
        .map_err(|error| Error::io(format!("naming {}", self.path.display()), error))
    }

    /// Removes the directory if it is the backup's own and empty but for its lock.
    fn remove_if_new(&self, disk: &Arc<dyn Disk>) {
        let Some(unmarked) = &self.unmarked else { return };
        if self.target.remove(LOCK).is_ok() {
            // A rename that was reported as failed may have happened.
            disk.remove_dir(self.path).or_else(|_| disk.remove_dir(unmarked)).ok();
        }
    }
}

/// Whether a directory cannot get a name because something else has it.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::NotADirectory
    )
}

/// Refuses a directory whose name would make it a part of a store, if it lies in one: that store would
/// not open again.
fn refuse_name(path: &Path) -> Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy());
    let Some(name) = name.filter(|name| is_part(name)) else { return Ok(()) };
    Err(Error::invalid(format!("{name} is the name of a file of a store; a backup needs another")))
}

/// Refuses a directory that holds anything but the files of a killed backup and the files that
/// other programs leave in every directory.
fn refuse_occupied(target: &dyn Directory, path: &Path) -> Result<()> {
    let names = directory::list(target, path)?;
    let is_rest = names.iter().any(|name| name == UNFINISHED);
    let may_stay = |name: &str| {
        name == LOCK
            || (is_rest && is_part(name))
            || (directory::may_stand_beside(name) && !directory::is_ours(name))
    };
    let Some(other) = names.iter().find(|name| !may_stay(name)) else { return Ok(()) };
    let message = format!(
        "{} is not empty, it holds {other:?}; a backup needs a new directory",
        path.display()
    );
    Err(Error::invalid(message))
}

/// Creates the marker, then removes the files of a killed backup.
fn mark(target: &dyn Directory) -> Result<()> {
    let failed = |error| Error::io("marking a backup", error);
    match target.create(UNFINISHED, Caching::Buffered) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // DURABLE: the marker comes before any file that looks like a store.
    target.sync().map_err(failed)?;
    remove_parts(target)
}

/// Whether a backup makes a file of this name.
fn is_part(name: &str) -> bool {
    name == UNFINISHED || directory::is_ours(name)
}

/// Removes the files of a backup but for the marker and the lock.
fn remove_parts(target: &dyn Directory) -> Result<()> {
    let mut names = target.list().map_err(|error| Error::io("an unfinished backup", error))?;
    names.retain(|name| directory::is_ours(name) && name != LOCK);
    names.iter().try_for_each(|name| remove(target, name))
}

fn remove(target: &dyn Directory, name: &str) -> Result<()> {
    match target.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {name} of an unfinished backup"), error))
        }
        _ => Ok(()),
    }
}

fn copy(session: &Session, target: &Arc<dyn Directory>, path: &Path) -> Result<()> {
    let options: &Options = &session.options;
    let view = session.view();
    let size = view.size()?;
    check_space(&**target, size.on_disk + options.segment_sizes().first, path)?;
    // The copy is a store of its own: its journal goes another way than that of the original.
    let identity = directory::random_number(options)?;
    // Every record is read to be verified, then copied.
    let mut pace = Pace::start(session, 2 * size.bytes);
    view.copy_to(target, &mut |bytes| pace.copied(bytes), |state| {
        let id = JournalId::new(identity, &state.secret);
        journal::create(target, id, options.segment_sizes())?;
        state.identity = identity;
        state.replay_from = Position::FIRST;
        state.reached = Reached { sequence: state.folded_through, epoch: state.epoch };
        Ok(())
    })?;
    finish(&**target)
}

/// Turns the marked files into a store.
fn finish(target: &dyn Directory) -> Result<()> {
    let failed = |error| Error::io("finishing a backup", error);
    // DURABLE: the marker is removed after everything else. From here on the copy is a store.
    target.remove(UNFINISHED).map_err(failed)?;
    target.sync().map_err(failed)
}

fn check_space(target: &dyn Directory, needed: u64, path: &Path) -> Result<()> {
    let available =
        target.free_bytes().map_err(|error| Error::io("asking for free space", error))?;
    if available >= needed {
        return Ok(());
    }
    let message =
        format!("the backup needs {needed} bytes in {}, {available} are free", path.display());
    Err(Error::new(ErrorKind::StoreFull, message))
}
