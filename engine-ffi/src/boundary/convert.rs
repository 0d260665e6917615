//! Turns the pointers of C into Rust values: the one module that dereferences pointers.
//!
//! Exported functions are `unsafe` with the contract of the crate's documentation. Each makes one [`Caller`],
//! the proof that the contract holds. The functions here need a `Caller`, so that lifetimes of values
//! borrowed from C end with the call.

use std::mem::MaybeUninit;
use std::path::Path;

use crate::abi::plain::Plain;
use crate::abi::types::{Key, Slice};
use crate::boundary::failure::Failure;

/// The largest size that a struct with a size field may claim to have.
const MAX_SIZED: usize = 4096;

/// Proves that the pointers of a call obey the contract.
pub(crate) struct Caller(());

impl Caller {
    /// # Safety
    /// The pointers that are given to the methods come from one exported call whose caller keeps the contract
    /// of this crate, and the `Caller` does not outlive that call.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }

    /// An output. It is zeroed at once. Whether it may be NULL is decided when it is used.
    pub(crate) fn out<T: Plain>(&self, pointer: *mut T) -> Out<'_, T> {
        if !pointer.is_null() {
            // SAFETY: not NULL, so by contract valid for one T that no other thread uses now; zeros are a T.
            unsafe { pointer.write_bytes(0, 1) };
        }
        // SAFETY: NULL or, see above, valid and initialized for the length of the call.
        Out(unsafe { pointer.as_mut() })
    }

    /// An array of outputs whose first `len` elements are zeroed.
    #[allow(clippy::mut_from_ref, reason = "the borrow is from C; the caller is the proof of it")]
    pub(crate) fn zeroed_array<T: Plain>(&self, first: *mut T, len: usize) -> Option<&mut [T]> {
        if len == 0 {
            return Some(&mut []);
        }
        if first.is_null() || !fits::<T>(len) {
            return None;
        }
        // SAFETY: not NULL, so by contract valid for `len` values that no other thread uses now; zeros are
        // values.
        unsafe {
            first.write_bytes(0, len);
            Some(std::slice::from_raw_parts_mut(first, len))
        }
    }

    /// An array of outputs that is too large to zero at every call: only written elements are set.
    #[allow(clippy::mut_from_ref, reason = "the borrow is from C; the caller is the proof of it")]
    pub(crate) fn uninit_array<T: Plain>(
        &self,
        first: *mut T,
        len: usize,
    ) -> Option<&mut [MaybeUninit<T>]> {
        if len == 0 {
            return Some(&mut []);
        }
        if first.is_null() || !fits::<T>(len) {
            return None;
        }
        // SAFETY: not NULL, so by contract valid for `len` values that no other thread uses now; they need
        // not be initialized.
        Some(unsafe { std::slice::from_raw_parts_mut(first.cast(), len) })
    }

    /// An input that may be NULL.
    pub(crate) fn optional<T: Plain>(&self, pointer: *const T) -> Option<&T> {
        // SAFETY: NULL, or by contract valid for one T; any bits are a T.
        unsafe { pointer.as_ref() }
    }

    pub(crate) fn required<T: Plain>(
        &self,
        pointer: *const T,
        what: &'static str,
    ) -> Result<&T, Failure> {
        self.optional(pointer).ok_or_else(|| Failure::null(what))
    }

    pub(crate) fn array<T: Plain>(
        &self,
        first: *const T,
        len: usize,
        what: &'static str,
    ) -> Result<&[T], Failure> {
        if len == 0 {
            return Ok(&[]);
        }
        if first.is_null() {
            return Err(Failure::null(what));
        }
        if !fits::<T>(len) {
            return Err(Failure::invalid(format!("{what} is longer than memory")));
        }
        // SAFETY: not NULL, so by contract valid for `len` values; any bits are values.
        Ok(unsafe { std::slice::from_raw_parts(first, len) })
    }

    pub(crate) fn bytes(&self, slice: Slice, what: &'static str) -> Result<&[u8], Failure> {
        if slice.ptr.is_null() && slice.len > 0 {
            return Err(Failure::null(what));
        }
        if slice.len == 0 {
            return Ok(&[]);
        }
        if !fits::<u8>(slice.len) {
            return Err(Failure::invalid(format!("{what} is longer than memory")));
        }
        // SAFETY: not NULL, so by contract valid for `len` bytes.
        Ok(unsafe { std::slice::from_raw_parts(slice.ptr, slice.len) })
    }

    pub(crate) fn text(&self, slice: Slice, what: &'static str) -> Result<&str, Failure> {
        let bytes = self.bytes(slice, what)?;
        std::str::from_utf8(bytes).map_err(|_| Failure::invalid(format!("{what} is not UTF-8")))
    }

    pub(crate) fn key(&self, key: Key) -> Result<oncekey::Key, Failure> {
        let scope = self.bytes(key.scope, "the scope")?;
        Ok(oncekey::Key::new(scope, self.bytes(key.key, "the key")?)?)
    }

    pub(crate) fn path(&self, path: Slice) -> Result<&Path, Failure> {
        if path.len == 0 {
            return Err(Failure::invalid("the path is empty"));
        }
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let bytes = self.bytes(path, "the path")?;
            Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
        }
        #[cfg(not(unix))]
        Ok(Path::new(self.text(path, "the path")?))
    }

    /// A struct that starts with its size in a `u32`. The struct of an older caller is shorter: the missing
    /// fields are zero. The struct of a newer caller is longer: the fields that this library does not know
    /// must be zero.
    pub(crate) fn sized<T: Plain>(&self, pointer: *const T) -> Result<Option<T>, Failure> {
        if pointer.is_null() {
            return Ok(None);
        }
        let bytes = pointer.cast::<u8>();
        let size = self.size_of(bytes)?;
        // SAFETY: by contract valid for as many bytes as it says it has.
        let given = unsafe { std::slice::from_raw_parts(bytes, size) };
        let known = size.min(size_of::<T>());
        if given[known..].iter().any(|byte| *byte != 0) {
            return Err(Failure::invalid("the struct sets what this library does not know"));
        }
        // SAFETY: zeros are a T, and so are any bytes copied over them; `known` bytes fit.
        let value = unsafe {
            let mut value: T = std::mem::zeroed();
            std::ptr::copy_nonoverlapping(bytes, (&raw mut value).cast::<u8>(), known);
            value
        };
        Ok(Some(value))
    }

    /// A struct whose fields are all unset.
    pub(crate) fn zeroed<T: Plain>(&self) -> T {
        // SAFETY: zeros are a T.
        unsafe { std::mem::zeroed() }
    }

    /// Fills in a struct that starts with its size, up to that size. The size field stays.
    pub(crate) fn fill_sized<T: Plain>(&self, pointer: *mut T, value: &T) -> Result<(), Failure> {
        let bytes = pointer.cast::<u8>();
        let size = self.size_of(bytes)?;
        let known = size.min(size_of::<T>());
        let header = size_of::<u32>();
        // SAFETY: by contract valid for as many bytes as it says it has, and `value` is another
        // object; both are at least `known` long, which is at least the header.
        unsafe {
            bytes.add(header).write_bytes(0, size - header);
            let from = std::ptr::from_ref(value).cast::<u8>().add(header);
            std::ptr::copy_nonoverlapping(from, bytes.add(header), known - header);
        }
        Ok(())
    }

    fn size_of(&self, bytes: *const u8) -> Result<usize, Failure> {
        if bytes.is_null() {
            return Err(Failure::null("the struct"));
        }
        // SAFETY: not NULL, so by contract at least its size can be read; alignment is not needed.
        let size = unsafe { bytes.cast::<u32>().read_unaligned() } as usize;
        if (2 * size_of::<u32>()..=MAX_SIZED).contains(&size) {
            Ok(size)
        } else {
            Err(Failure::invalid(format!("the struct says that it has {size} bytes")))
        }
    }
}

/// No object is larger than `isize::MAX`, so a greater length is a mistake of the caller.
fn fits<T>(len: usize) -> bool {
    len.checked_mul(size_of::<T>()).is_some_and(|bytes| isize::try_from(bytes).is_ok())
}

/// The place of a result.
pub(crate) struct Out<'c, T>(Option<&'c mut T>);

impl<'c, T> Out<'c, T> {
    /// Sets an output that the caller may leave out.
    pub(crate) fn set(&mut self, value: T) {
        if let Some(target) = &mut self.0 {
            **target = value;
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// An output that the caller must provide.
    pub(crate) fn required(self, what: &'static str) -> Result<&'c mut T, Failure> {
        self.0.ok_or_else(|| Failure::null(what))
    }
}
