//! The raw limit: the simplest group commit there can be, as the yardstick for the engine.
//!
//! One queue behind one lock, one thread: drain, copy into an aligned buffer, one direct write at
//! the next block of a file that was written before and wraps around, one sync, wake everybody.
//! No keys, no index, no answer but "it is durable".

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::queue::Queue;

const BLOCK: usize = 4096;
/// Two journal segments of the engine.
const FILE_BYTES: usize = 64 << 20;
/// The most bytes of one group, as in the engine's journal.
const GROUP_BYTES: usize = 1 << 20;
/// What the engine's journal puts before each group.
const GROUP_HEADER: usize = 56;

/// Appends records, each durable before its receiver hears of it.
#[derive(Debug)]
pub struct RawLog {
    queue: Arc<Queue<Record>>,
    committer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Record {
    bytes: Box<[u8]>,
    done: oneshot::Sender<io::Result<()>>,
}

impl RawLog {
    /// Writes the file at `path`, which must not exist, once over, and starts the committer.
    ///
    /// # Errors
    /// Those of the filesystem; one without direct I/O is an error too.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
            .open(path)?;
        let zeros = Buffer::with_capacity(GROUP_BYTES);
        for offset in (0..FILE_BYTES).step_by(GROUP_BYTES) {
            file.write_all_at(zeros.block_aligned(GROUP_BYTES), offset as u64)?;
        }
        file.sync_all()?;
        let queue = Arc::new(Queue::default());
        let committer = Committer { file, queue: queue.clone(), offset: 0 };
        let committer = std::thread::Builder::new()
            .name("raw-commit".to_owned())
            .spawn(move || committer.run())?;
        Ok(Self { queue, committer: Some(committer) })
    }

    /// Queues one record; the receiver hears when it is durable.
    pub fn append(&self, bytes: Box<[u8]>) -> oneshot::Receiver<io::Result<()>> {
        let (done, receiver) = oneshot::channel();
        self.queue.push(Record { bytes, done });
        receiver
    }
}

impl Drop for RawLog {
    fn drop(&mut self) {
        self.queue.stop();
        if let Some(committer) = self.committer.take() {
            // A committer that panicked has dropped its senders, so every caller learns of it.
            drop(committer.join());
        }
    }
}

struct Committer {
    file: File,
    queue: Arc<Queue<Record>>,
    offset: usize,
}

impl Committer {
    fn run(mut self) {
        let mut records = Vec::new();
        let mut buffer = Buffer::with_capacity(GROUP_BYTES + (1 << 20));
        while self.queue.take(&mut records) {
            let mut rest = records.drain(..);
            while rest.len() > 0 {
                let (len, group) = buffer.fill(&mut rest);
                let written = self.commit(buffer.block_aligned(len));
                for done in group {
                    let answer = match &written {
                        Ok(()) => Ok(()),
                        Err(error) => Err(error.kind().into()),
                    };
                    // A caller that went away needs no answer.
                    drop(done.send(answer));
                }
            }
        }
    }

    fn commit(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.offset + bytes.len() > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(bytes, self.offset as u64)?;
        self.offset += bytes.len();
        self.file.sync_data()
    }
}

/// Bytes that start at a multiple of the block size.
struct Buffer {
    storage: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn with_capacity(bytes: usize) -> Self {
        let storage = vec![0; bytes + 2 * BLOCK];
        let start = storage.as_ptr().align_offset(BLOCK);
        Self { storage, start }
    }

    /// Copies records until the group is large enough; returns its length and whom to wake.
    fn fill(
        &mut self,
        records: &mut impl Iterator<Item = Record>,
    ) -> (usize, Vec<oneshot::Sender<io::Result<()>>>) {
        let mut len = GROUP_HEADER;
        let mut group = Vec::new();
        while len < GROUP_BYTES
            && let Some(Record { bytes, done }) = records.next()
        {
            let at = self.start + len;
            self.storage[at..at + bytes.len()].copy_from_slice(&bytes);
            len += bytes.len();
            group.push(done);
        }
        (len, group)
    }

    fn block_aligned(&self, len: usize) -> &[u8] {
        &self.storage[self.start..self.start + len.next_multiple_of(BLOCK)]
    }
}
