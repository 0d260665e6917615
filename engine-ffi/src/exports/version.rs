//! The versions of the library and the names of statuses. A forked child may call these, too.

use std::ffi::c_char;

use crate::abi::status::{self, ONCEKEY_ABI_VERSION};

/// The version of the binary interface of the loaded library, to compare with ONCEKEY_ABI_VERSION of the
/// header. Works in a forked child.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_abi_version() -> u32 {
    ONCEKEY_ABI_VERSION
}

/// The version of the loaded library, such as "0.1.0". Never freed. Works in a forked child.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The name of a status without its prefix, such as "FENCED". Never NULL, never freed. Works in a
/// forked child.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_status_name(status: i32) -> *const c_char {
    status::name(status).as_ptr()
}
