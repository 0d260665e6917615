//! Ways for a test to look at a disk from outside and to damage it. These are no operations: they
//! meet no fault and need no power.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oncekey::disk::BLOCK;

use super::contents::{Contents, PAGE};
use super::{SimDisk, State, tree};

/// Damage changes the seen and the durable bytes alike. Panics where a path is no file.
impl SimDisk {
    /// All files with their lengths, in the order of their paths, which start with `/`.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state.lock();
        let files = state.tree.files().into_iter();
        files.map(|(path, node)| (path, state.tree.file(node).seen.len())).collect()
    }

    /// Whether a file has this path.
    pub fn has_file(&self, path: impl AsRef<Path>) -> bool {
        self.state.lock().tree.lookup_file(path.as_ref()).is_ok()
    }

    /// The bytes of a file, as reads see them.
    #[track_caller]
    pub fn read_file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let state = self.state.lock();
        let node = state.existing(path.as_ref());
        let seen = &state.tree.file(node).seen;
        let mut bytes = vec![0; seen.len() as usize];
        seen.read(0, &mut bytes);
        bytes
    }

    /// Puts a durable file with these bytes on the disk, or replaces the bytes of a file. Its
    /// directories become durable too.
    #[track_caller]
    pub fn put_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let path = path.as_ref();
        let mut state = self.state.lock();
        state.tree.put_file(path).unwrap_or_else(|error| panic!("cannot put a file: {error}"));
        drop(state);
        self.damage(path, |contents| {
            contents.set_len(0);
            contents.write(0, bytes);
        });
    }

    /// Flips one bit, 0 to 7, of the byte at `offset`, which must exist.
    #[track_caller]
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u32) {
        self.check_within(path.as_ref(), offset, 1);
        self.damage(path.as_ref(), |contents| {
            if offset < contents.len() {
                let mut byte = [0];
                contents.read(offset, &mut byte);
                contents.write(offset, &[byte[0] ^ 1 << bit]);
            }
        });
    }

    /// Fills a block with zeros.
    #[track_caller]
    pub fn zero_block(&self, path: impl AsRef<Path>, block: u64) {
        self.check_within(path.as_ref(), block * BLOCK as u64, 1);
        self.damage(path.as_ref(), |contents| put_block(contents, block, &[0; BLOCK]));
    }

    /// Copies the bytes of block `from` over block `to`, as a misdirected write does.
    #[track_caller]
    pub fn copy_block(&self, path: impl AsRef<Path>, from: u64, to: u64) {
        self.check_within(path.as_ref(), from.max(to) * BLOCK as u64, 1);
        self.damage(path.as_ref(), |contents| {
            let mut bytes = [0; BLOCK];
            contents.read(from * BLOCK as u64, &mut bytes);
            put_block(contents, to, &bytes);
        });
    }

    /// Cuts a file to `len` bytes.
    #[track_caller]
    pub fn truncate(&self, path: impl AsRef<Path>, len: u64) {
        self.damage(path.as_ref(), |contents| contents.set_len(contents.len().min(len)));
    }

    /// Writes bytes over those of a file, or past its end.
    #[track_caller]
    pub fn write_bytes(&self, path: impl AsRef<Path>, offset: u64, bytes: &[u8]) {
        self.damage(path.as_ref(), |contents| contents.write(offset, bytes));
    }

    /// Writes all files, as reads see them, into a directory of the real disk.
    pub fn dump_to(&self, dir: impl AsRef<Path>) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        let state = self.state.lock();
        for (path, node) in state.tree.files() {
            let real = dir.as_ref().join(path.strip_prefix("/").unwrap_or(&path));
            fs::create_dir_all(real.parent().unwrap_or(dir.as_ref()))?;
            let seen = &state.tree.file(node).seen;
            let file = fs::File::create(&real)?;
            file.set_len(seen.len())?;
            for index in 0..seen.len().div_ceil(PAGE as u64) {
                if let Some(page) = seen.page(index as usize) {
                    let start = index * PAGE as u64;
                    let len = (seen.len() - start).min(PAGE as u64) as usize;
                    file.write_all_at(&page[..len], start)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a disk with the files of a directory of the real disk. All of them are durable.
    pub fn load_from(dir: impl AsRef<Path>) -> io::Result<Self> {
        let disk = Self::new();
        let mut dirs = vec![(dir.as_ref().to_owned(), PathBuf::from("/"))];
        while let Some((real, path)) = dirs.pop() {
            disk.state.lock().tree.create_dirs(&path)?;
            for entry in fs::read_dir(real)? {
                let entry = entry?;
                let path = path.join(entry.file_name());
                match entry.file_type()?.is_dir() {
                    true => dirs.push((entry.path(), path)),
                    false => disk.put_file(path, &fs::read(entry.path())?),
                }
            }
        }
        disk.sync_all();
        Ok(disk)
    }

    #[track_caller]
    fn damage(&self, path: &Path, change: impl Fn(&mut Contents)) {
        let mut state = self.state.lock();
        let node = state.existing(path);
        state.tree.file_mut(node).corrupt(change);
    }

    #[track_caller]
    fn check_within(&self, path: &Path, offset: u64, bytes: u64) {
        let state = self.state.lock();
        let len = state.tree.file(state.existing(path)).seen.len();
        assert!(offset + bytes <= len, "{} ends at {len}, before {offset}", path.display());
    }
}

impl State {
    #[track_caller]
    fn existing(&self, path: &Path) -> tree::NodeId {
        let found = self.tree.lookup_file(path);
        found.unwrap_or_else(|error| panic!("no file: {error}"))
    }
}

/// Overwrites the part of a block that lies within the file.
fn put_block(contents: &mut Contents, block: u64, bytes: &[u8; BLOCK]) {
    let start = block * BLOCK as u64;
    let len = contents.len().saturating_sub(start).min(BLOCK as u64) as usize;
    if len > 0 {
        contents.write(start, &bytes[..len]);
    }
}
