//! Operations of a disk and the faults that can be injected into them.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum OpKind {
    CreateDir,
    OpenDir,
    List,
    Open,
    Create,
    Rename,
    RenameDir,
    Remove,
    RemoveDir,
    SyncDir,
    Lock,
    NetworkFilesystem,
    Len,
    Read,
    Write,
    SetLen,
    Sync,
}

impl OpKind {
    /// Whether the operation needs a descriptor that the process does not hold yet.
    pub fn opens(self) -> bool {
        matches!(self, Self::List | Self::OpenDir | Self::Open | Self::Create | Self::Lock)
    }

    /// Whether the operation can change the disk or make a change durable.
    pub fn is_change(self) -> bool {
        !matches!(
            self,
            Self::OpenDir
                | Self::List
                | Self::Open
                | Self::NetworkFilesystem
                | Self::Len
                | Self::Read
        )
    }
}

/// One operation, as a trace records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The kind.
    pub kind: OpKind,
    /// The file or directory. For an open file, its path at open; for a rename, `from`.
    pub path: PathBuf,
    /// The start of a read or write, else 0.
    pub offset: u64,
    /// The number of bytes read or written, or the length that is set, else 0.
    pub len: u64,
}

/// The operations that a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// All operations.
    All,
    /// The operations with [`OpKind::is_change`].
    Changes,
    /// The operations with [`OpKind::opens`].
    Opening,
    /// The operations of one kind.
    Kind(OpKind),
}

/// A failure to come: the nth operation, counted from 0 and from the injection, fails. Unless told
/// otherwise, the error is EIO and the operation has no effect.
#[derive(Clone, Debug)]
pub struct Fault {
    ops: Ops,
    path: Option<String>,
    nth: u64,
    forever: bool,
    error: FaultError,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
enum FaultError {
    Os(i32),
    Kind(io::ErrorKind),
}

/// The effect that a failing operation still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// The full effect; only the answer is wrong.
    Applied,
    /// A write writes only this number of bytes; other operations do nothing.
    Partial(usize),
    /// A sync makes nothing durable, neither now nor later; other operations do nothing.
    DropDirty,
    /// The power fails while the operation is under way.
    PowerOff,
    /// No effect: the operation panics.
    Panic,
}

impl Fault {
    /// Input/output error.
    pub const EIO: i32 = 5;
    /// Too many open files in the system.
    pub const ENFILE: i32 = 23;
    /// Too many open files in the process.
    pub const EMFILE: i32 = 24;
    /// No space left on device.
    pub const ENOSPC: i32 = 28;
    /// Read-only file system.
    pub const EROFS: i32 = 30;

    /// A fault at the nth operation of `ops`.
    pub fn new(ops: Ops, nth: u64) -> Self {
        let error = FaultError::Os(Self::EIO);
        Self { ops, path: None, nth, forever: false, error, effect: Effect::Nothing }
    }

    /// A fault at the nth operation of any kind.
    pub fn at(nth: u64) -> Self {
        Self::new(Ops::All, nth)
    }

    /// A fault at the nth operation that changes something.
    pub fn at_change(nth: u64) -> Self {
        Self::new(Ops::Changes, nth)
    }

    /// A fault at the nth operation of one kind. The engine's threads operate on the disk too, at
    /// times of their own: a fault that a certain call must meet is [`forever`](Self::forever), or
    /// names the file [`on_path`](Self::on_path).
    pub fn at_kind(kind: OpKind, nth: u64) -> Self {
        Self::new(Ops::Kind(kind), nth)
    }

    /// Counts only operations whose path contains `part`.
    pub fn on_path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    /// Fails all operations that follow the nth, too.
    pub fn forever(mut self) -> Self {
        self.forever = true;
        self
    }

    /// Fails with this kind of error.
    pub fn error(mut self, kind: io::ErrorKind) -> Self {
        self.error = FaultError::Kind(kind);
        self
    }

    /// Fails with this error number of the operating system.
    pub fn errno(mut self, errno: i32) -> Self {
        self.error = FaultError::Os(errno);
        self
    }

    /// Lets the operation take effect, even a sync, and reports a failure.
    pub fn applied(mut self) -> Self {
        self.effect = Effect::Applied;
        self
    }

    /// Lets a write write its first `bytes` bytes, at most all but one, before it fails.
    pub fn partial(mut self, bytes: usize) -> Self {
        self.effect = Effect::Partial(bytes);
        self
    }

    /// Makes the failing sync forget the changes that it should have made durable, as on Linux.
    /// Reads still see them, but no later sync makes them durable, until they are written again.
    /// Without this, the sync after the failed one makes everything durable.
    pub fn drop_dirty(mut self) -> Self {
        self.effect = Effect::DropDirty;
        self
    }

    /// Lets the operation panic instead of fail.
    pub fn panic(mut self) -> Self {
        self.effect = Effect::Panic;
        self
    }

    /// Cuts the power during the operation: this one and all later ones fail with an error for
    /// which [`is_power_off`] is true. The seed of the image decides whether the operation took
    /// effect.
    pub fn power_off(mut self) -> Self {
        self.effect = Effect::PowerOff;
        self
    }

    fn counts(&self, op: &Op) -> bool {
        let kind = match self.ops {
            Ops::All => true,
            Ops::Changes => op.kind.is_change(),
            Ops::Opening => op.kind.opens(),
            Ops::Kind(kind) => op.kind == kind,
        };
        kind && self.path.as_ref().is_none_or(|part| op.path.to_string_lossy().contains(part))
    }

    fn io_error(&self) -> io::Error {
        match (self.effect, self.error) {
            (Effect::PowerOff, _) => power_off_error(),
            (_, FaultError::Os(errno)) => io::Error::from_raw_os_error(errno),
            (_, FaultError::Kind(kind)) => io::Error::new(kind, "injected fault"),
        }
    }
}

/// Faults that wait for their operation.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<(Fault, u64)>,
    pub(super) fired: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.push((fault, 0));
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// Counts an operation for every fault; the first one that is due decides.
    pub(super) fn meet(&mut self, op: &Op) -> Option<(Effect, io::Error)> {
        let mut due = None;
        self.armed.retain_mut(|(fault, seen)| {
            if !fault.counts(op) {
                return true;
            }
            let nth = *seen;
            *seen += 1;
            if nth >= fault.nth && due.is_none() {
                due = Some((fault.effect, fault.io_error()));
                return fault.forever;
            }
            true
        });
        self.fired += u64::from(due.is_some());
        due
    }
}

#[derive(Debug)]
struct PowerOff;

impl fmt::Display for PowerOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("power is off")
    }
}

impl std::error::Error for PowerOff {}

pub(super) fn power_off_error() -> io::Error {
    io::Error::other(PowerOff)
}

/// Whether an operation failed because the simulated power is off.
pub fn is_power_off(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<PowerOff>())
}
