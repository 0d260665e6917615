//! Calls that make and free fingerprints.

use crate::abi::request::{Part, Request};
use crate::abi::types::{Error, Fingerprint};
use crate::boundary::convert::Caller;
use crate::boundary::entry::entry;
use crate::objects::fingerprint::{FINGERPRINTS, keep, of_parts, of_request};

/// Makes a fingerprint from labelled parts, whose order counts. At most 64 parts, with labels of at most 128
/// bytes. Two requests are identical when they have the same parts with the same bytes.
///
/// The caller frees `fingerprint`, and may use it for any number of begins until then. Fails with
/// INVALID_INPUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_fingerprint_from_parts(
    parts: *const Part,
    count: usize,
    fingerprint: *mut Fingerprint,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let fingerprint = caller.out(fingerprint);
    entry(Some(caller.out(error)), || {
        let fingerprint = fingerprint.required("fingerprint")?;
        fingerprint.id = keep(of_parts(&caller, parts, count)?)?;
        Ok(())
    })
}

/// Makes the fingerprint that the HTTP layers in Rust and Go make from a request: method, target, the headers
/// that count, body.
///
/// The caller frees `fingerprint`. Fails with INVALID_INPUT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn oncekey_fingerprint_from_request(
    request: *const Request,
    fingerprint: *mut Fingerprint,
    error: *mut Error,
) -> i32 {
    // SAFETY: the caller keeps the contract of the crate.
    let caller = unsafe { Caller::new() };
    let fingerprint = caller.out(fingerprint);
    entry(Some(caller.out(error)), || {
        let fingerprint = fingerprint.required("fingerprint")?;
        let request = caller.required(request, "request")?;
        fingerprint.id = keep(of_request(&caller, request)?)?;
        Ok(())
    })
}

/// Frees a fingerprint. Freeing 0 has no effect.
#[unsafe(no_mangle)]
pub extern "C" fn oncekey_fingerprint_free(fingerprint: Fingerprint) -> i32 {
    entry(None, || FINGERPRINTS.remove(fingerprint.id).map(drop))
}
