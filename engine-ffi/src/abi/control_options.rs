//! The options of a control socket.

use crate::abi::plain::plain;
use crate::abi::types::Slice;

plain!(ControlOptions);

/// A control socket: all changes are refused.
pub const ONCEKEY_CONTROL_READ_ONLY: u32 = 4_194_304;
/// A control socket: operators may read stored responses.
pub const ONCEKEY_CONTROL_SHOW_RESPONSES: u32 = 8_388_608;

/// Options of a control socket: set `size`, leave everything else 0, and change the fields that must differ
/// from the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ControlOptions {
    /// sizeof(oncekey_control_options) of the caller.
    pub size: u32,
    /// The ONCEKEY_CONTROL_ flags, combined with `|`.
    pub flags: u32,
    /// The path of the socket. Empty: a name made from the path of the store, in /run/oncekey where that can
    /// be written, else in $XDG_RUNTIME_DIR/oncekey, else in oncekey-UID in the directory for temporary
    /// files. A store in a database has no such name: its path must be set.
    pub path: Slice,
    /// The directory in which operators may take backups, each in a new directory. Empty: they may not.
    pub backups: Slice,
    /// The file that gets a line before each change that an operator makes, and one after it. Empty: no file.
    pub audit_log: Slice,
}
