//! The types that C allocates.

/// Types that C allocates and this library fills in.
///
/// # Safety
/// All zeros, and any other bits, are a value of the type; it has no destructor.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        // SAFETY: integers, raw pointers, and repr(C) structs of them.
        $(unsafe impl $crate::abi::plain::Plain for $type {})*
    };
}
pub(crate) use plain;

plain!(u32, i32, u64, usize);
