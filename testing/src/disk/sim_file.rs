//! An open file of a [`SimDisk`].

use std::io;
use std::path::PathBuf;

use oncekey::disk::{BLOCK, Caching, DiskFile};

use super::contents::PAGE;
use super::fault::{Effect, Fault, Op, OpKind};
use super::tree::NodeId;
use super::{SimDisk, State};

/// The greatest length of a file, as on common filesystems. It is far more than a test needs, and
/// small enough for the list of holes.
const MAX_LEN: u64 = 1 << 40;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) node: NodeId,
    /// The path at open, for the trace.
    pub(super) path: PathBuf,
    pub(super) caching: Caching,
}

impl SimFile {
    fn op(&self, kind: OpKind, offset: u64, len: u64) -> Op {
        Op { kind, path: self.path.clone(), offset, len }
    }

    fn check_alignment(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        let block = BLOCK as u64;
        let unaligned = |what: &str| {
            let text = format!("{what} is no multiple of {BLOCK} on a file opened for direct I/O");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        match self.caching {
            Caching::Direct if !offset.is_multiple_of(block) => unaligned("offset"),
            Caching::Direct if !buffer.len().is_multiple_of(BLOCK) => unaligned("length"),
            Caching::Direct if !buffer.as_ptr().addr().is_multiple_of(BLOCK) => {
                unaligned("buffer address")
            }
            _ => Ok(()),
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.operate(self.op(OpKind::Len, 0, 0), |state, _| {
            Ok(state.tree.file(self.node).seen.len())
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let op = self.op(OpKind::Read, offset, buffer.len() as u64);
        self.disk.operate(op, |state, _| {
            self.check_alignment(offset, buffer)?;
            let seen = &state.tree.file(self.node).seen;
            let there = seen.len().saturating_sub(offset).min(buffer.len() as u64) as usize;
            seen.read(offset, &mut buffer[..there]);
            match there == buffer.len() {
                true => Ok(()),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let op = self.op(OpKind::Write, offset, bytes.len() as u64);
        self.disk.operate(op, |state, effect| {
            self.check_alignment(offset, bytes)?;
            state.check_writable()?;
            check_len(offset.saturating_add(bytes.len() as u64))?;
            let bytes = match effect {
                Effect::Partial(count) => &bytes[..count.min(bytes.len().saturating_sub(1))],
                _ => bytes,
            };
            let fits = state.fitting(self.node, offset, bytes.len());
            state.tree.file_mut(self.node).write(offset, &bytes[..fits]);
            match fits == bytes.len() {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(Fault::ENOSPC)),
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate(self.op(OpKind::SetLen, 0, len), |state, _| {
            state.check_writable()?;
            check_len(len)?;
            state.tree.file_mut(self.node).set_len(len);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(self.op(OpKind::Sync, 0, 0), |state, effect| {
            if effect == Effect::DropDirty {
                state.tree.file_mut(self.node).drop_unsynced();
                return Ok(());
            }
            if !state.tree.file(self.node).is_synced() {
                state.check_writable()?;
            }
            state.tree.file_mut(self.node).sync();
            Ok(())
        })
    }

    /// Not an operation: only looks into memory, which does not fail.
    fn is_named(&self) -> io::Result<bool> {
        Ok(self.disk.state.lock().tree.is_named(self.node))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        let file = state.tree.file_mut(self.node);
        file.handles -= 1;
        if file.handles == 0 {
            state.tree.collect();
        }
    }
}

impl State {
    /// How many of `len` bytes at `offset` fit on the disk.
    fn fitting(&self, node: NodeId, offset: u64, len: usize) -> usize {
        let mut free = self.free_pages();
        if free == u64::MAX || len == 0 {
            return len;
        }
        let seen = &self.tree.file(node).seen;
        let page = PAGE as u64;
        for index in offset / page..=(offset + len as u64 - 1) / page {
            if seen.page(index as usize).is_none() {
                if free == 0 {
                    return (index * page).saturating_sub(offset) as usize;
                }
                free -= 1;
            }
        }
        len
    }
}

fn check_len(len: u64) -> io::Result<()> {
    match len > MAX_LEN {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(()),
    }
}
