//! How a control socket is offered.

use crate::abi::plain::plain;
use crate::abi::types::Slice;

plain!(ControlOptions);

/// A control socket: nobody may change anything there.
pub const ONCEKEY_CONTROL_READ_ONLY: u32 = 4_194_304;
/// A control socket: operators may read stored responses.
pub const ONCEKEY_CONTROL_SHOW_RESPONSES: u32 = 8_388_608;

/// Options of a control socket: set `size`, leave everything else 0, and change what is to differ from the
/// defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ControlOptions {
    /// sizeof(oncekey_control_options) of the caller.
    pub size: u32,
    /// ONCEKEY_CONTROL_READ_ONLY and the other, ored.
    pub flags: u32,
    /// The path of the socket. Empty: made of the name of the store, in /run/oncekey where that may be written,
    /// else in $XDG_RUNTIME_DIR/oncekey, else in oncekey-UID of the directory for temporary files. A store in a
    /// database has no such name: its path must be set.
    pub path: Slice,
    /// Operators may take backups, each into a new directory below this one. Empty: they may not.
    pub backups: Slice,
    /// The file that gets a line before each change that an operator makes, and one after it. Empty: none.
    pub audit_log: Slice,
}
