//! A store that another process holds: its owner, and the socket on which the owner answers.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::exit::Failure;

/// The note that the owner of a store writes into `LOCK`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) pid: Option<u32>,
    pub(crate) control: Option<PathBuf>,
}

/// Reads lines of a word and a value. Lines with an unknown word are skipped.
pub(crate) fn read(note: &[u8]) -> Note {
    let mut read = Note::default();
    for line in String::from_utf8_lossy(note).lines() {
        match line.split_once(' ') {
            Some(("pid", pid)) => read.pid = pid.parse().ok(),
            Some(("control", place)) => read.control = place.strip_prefix("unix:").map(Into::into),
            _ => {}
        }
    }
    read
}

/// The process that has locked the store, according to the kernel.
pub(crate) fn holder(store: &Path) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let inodes: Vec<_> = ["LOCK", "store.redb"]
        .iter()
        .filter_map(|name| fs::metadata(store.join(name)).ok())
        .map(|file| file.ino().to_string())
        .collect();
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        // A line is, for example: 1: FLOCK  ADVISORY  WRITE 4242 fe:01:131 0 EOF
        let at = words.iter().position(|word| *word == "FLOCK")?;
        let inode = words.get(at + 4)?.rsplit(':').next()?;
        let held = inodes.iter().any(|known| known == inode);
        held.then(|| words.get(at + 3)?.parse().ok())?
    })
}

/// The failure for a held store whose owner cannot be asked.
pub(crate) fn refusal(store: &Path, pid: Option<u32>) -> Failure {
    let shown = store.display();
    let name = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    let owner = match (pid, name) {
        (Some(pid), Some(name)) => format!("process {pid} ({})", name.trim()),
        (Some(pid), None) => format!("process {pid}"),
        (None, _) => "another process".to_owned(),
    };
    Failure::held(format!("{shown} is held by {owner}, which offers no control socket."))
        .hint("It may have an admin router: oncekey stats --url http://127.0.0.1:8080/admin/idempotency --token-file …")
        .hint("Or take a backup there and look at the copy.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_lines_of_words_and_values() {
        let note = read(b"pid 4242\ncontrol unix:/run/oncekey/3f1c.sock\nlater thing\n");
        assert_eq!(note.pid, Some(4242));
        assert_eq!(note.control.as_deref(), Some(Path::new("/run/oncekey/3f1c.sock")));
        assert_eq!(read(b"anything \xff"), Note::default());
        assert_eq!(read(b"pid x\ncontrol tcp:1\n"), Note::default());
    }

    #[test]
    fn the_holder_of_a_store_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let engine = oncekey::Engine::open(dir.path().join("store")).unwrap();
        if Path::new("/proc/locks").exists() {
            assert_eq!(holder(&dir.path().join("store")), Some(std::process::id()));
        }
        drop(engine);
    }
}
