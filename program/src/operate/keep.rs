//! `oncekey backup --keep N`: recognizes the backups that this command made, and removes the oldest.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::show;
use crate::base::exit::UNFINISHED;
use crate::base::private;

/// The mark of a verified backup. It describes the directory that it was written for, and the state of the
/// files at that time. It does not match a copy of the backup, a renamed backup, or a backup that was opened
/// as a store.
pub(super) const MARK: &str = "backup.verified";

/// Marks a backup as complete and verified.
///
/// DURABLE: the mark is synced before any older backup is removed.
pub(super) fn mark(backup: &Path) -> io::Result<()> {
    let mark = json!({ "v": 1, "takenMs": show::now(), "of": looks(backup)? });
    let mut file = private::create(&backup.join(MARK))?;
    file.write_all(mark.to_string().as_bytes())?;
    file.sync_all()?;
    sync(backup)
}

/// Removes verified backups beside `newest`, the oldest first, until `keep` are left with it. Returns the
/// removed paths. Everything else stays, and so does a backup that was changed in any way.
pub(super) fn prune(newest: &Path, keep: usize) -> io::Result<Vec<PathBuf>> {
    let newest = newest.canonicalize()?;
    let mut removed = Vec::new();
    let mut backups = Vec::new();
    for entry in fs::read_dir(parent(&newest))? {
        let entry = entry?;
        // Only a real directory counts, not the target of a link.
        if !entry.file_type()?.is_dir() || entry.path() == newest {
            continue;
        }
        match found(&entry.path()) {
            Some(Found::Whole(taken)) => backups.push((taken, entry.path())),
            // An interrupted removal.
            Some(Found::HalfRemoved) => {
                remove(&entry.path())?;
                removed.push(entry.path());
            }
            None => {}
        }
    }
    backups.sort();
    let surplus = (backups.len() + 1).saturating_sub(keep.max(1));
    for (_, path) in backups.into_iter().take(surplus) {
        remove(&path)?;
        removed.push(path);
    }
    Ok(removed)
}

enum Found {
    /// Holds the time at which it was taken.
    Whole(u64),
    HalfRemoved,
}

/// Recognizes a directory as a backup of this command, by its marks.
fn found(path: &Path) -> Option<Found> {
    let mark: Value = serde_json::from_slice(&fs::read(path.join(MARK)).ok()?).ok()?;
    let (was, is) = (&mark["of"], looks(path).ok()?);
    if *was == is {
        return Some(Found::Whole(mark["takenMs"].as_u64()?));
    }
    let same = |member: &str| was[member] == is[member];
    let (was, is) = (was["files"].as_object()?, is["files"].as_object()?);
    let is_cut_off = is.contains_key(UNFINISHED)
        && is.iter().all(|(name, looks)| name == UNFINISHED || was.get(name) == Some(looks));
    (same("name") && same("inode") && is_cut_off).then_some(Found::HalfRemoved)
}

/// The identity of a directory and the state of its files, except the mark.
fn looks(backup: &Path) -> io::Result<Value> {
    let backup = backup.canonicalize()?;
    let of = |file: &Metadata| {
        json!([file.is_file(), file.len(), file.ino(), file.mtime(), file.mtime_nsec()])
    };
    let mut files = serde_json::Map::new();
    for entry in fs::read_dir(&backup)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MARK {
            files.insert(name, of(&entry.metadata()?));
        }
    }
    let name = backup.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(json!({ "name": name, "inode": fs::metadata(&backup)?.ino(), "files": files }))
}

/// Removes a backup.
///
/// DURABLE: first write the mark that the backup is incomplete, and remove the mark of this command last.
/// After any interruption the directory does not open as a store, and the next removal finds it.
fn remove(backup: &Path) -> io::Result<()> {
    private::create(&backup.join(UNFINISHED))?.sync_all()?;
    sync(backup)?;
    for entry in fs::read_dir(backup)? {
        let name = entry?.file_name();
        if name != UNFINISHED && name != MARK {
            fs::remove_file(backup.join(name))?;
        }
    }
    sync(backup)?;
    fs::remove_file(backup.join(MARK))?;
    fs::remove_file(backup.join(UNFINISHED))?;
    fs::remove_dir(backup)?;
    sync(parent(backup))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(dir: &Path, name: &str, taken: u64) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("store.redb"), "records").unwrap();
        fs::write(path.join("journal-0000.seg"), "groups").unwrap();
        let mark = json!({ "v": 1, "takenMs": taken, "of": looks(&path).unwrap() });
        fs::write(path.join(MARK), mark.to_string()).unwrap();
        path
    }

    fn names(dir: &Path) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        for (name, taken) in [("b", 2), ("a", 3), ("c", 1)] {
            backup(dir.path(), name, taken);
        }
        let newest = backup(dir.path(), "new", 4);
        assert_eq!(prune(&newest, 4).unwrap(), Vec::<PathBuf>::new());
        let removed = prune(&newest, 2).unwrap();
        assert!(removed[0].ends_with("c") && removed[1].ends_with("b"), "{removed:?}");
        assert_eq!(names(dir.path()), ["a", "new"]);
        // If the clock was set back, the backup that was taken now still counts as the newest.
        let newest = backup(dir.path(), "later", 0);
        prune(&newest, 1).unwrap();
        assert_eq!(names(dir.path()), ["later"]);
    }

    #[test]
    fn nothing_else_counts_or_goes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // A store, an interrupted copy, and files of other programs.
        for name in ["store", "unfinished", "theirs"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("store.redb"), "").unwrap();
        }
        fs::write(at("unfinished").join(UNFINISHED), "").unwrap();
        fs::write(at("theirs").join(MARK), "{}").unwrap();
        fs::write(at("file"), "").unwrap();
        // Backups that were renamed, opened as a store, given a new file, changed, or copied.
        fs::rename(backup(dir.path(), "x", 0), at("renamed")).unwrap();
        fs::write(backup(dir.path(), "used", 0).join("LOCK"), "").unwrap();
        fs::write(backup(dir.path(), "noted", 0).join("NOTES"), "keep this one").unwrap();
        fs::write(backup(dir.path(), "changed", 0).join("store.redb"), "other").unwrap();
        let copied = backup(dir.path(), "copied", 0);
        fs::rename(&copied, at("y")).unwrap();
        fs::create_dir(&copied).unwrap();
        for name in names(&at("y")) {
            fs::copy(at("y").join(&name), copied.join(&name)).unwrap();
        }
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(backup(outside.path(), "far", 0), at("far")).unwrap();
        let before = names(dir.path());
        let newest = backup(dir.path(), "new", 9);
        assert_eq!(prune(&newest, 1).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(names(dir.path()).len(), before.len() + 1);
        assert!(outside.path().join("far/store.redb").exists());
    }

    #[test]
    fn a_removal_that_was_cut_off_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let half = backup(dir.path(), "half", 1);
        fs::write(half.join(UNFINISHED), "").unwrap();
        fs::remove_file(half.join("store.redb")).unwrap();
        let newest = backup(dir.path(), "new", 2);
        assert_eq!(prune(&newest, 9).unwrap(), [half]);
        assert_eq!(names(dir.path()), ["new"]);
    }
}
