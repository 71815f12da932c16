//! Calls about the library itself.

use crate::abi::{OGEE_ABI_VERSION, OgeeStatus};
use crate::entry::{entry, last_error, read_text};
use crate::failure::Failure;
use std::ffi::{c_char, c_int};
use tracing_subscriber::EnvFilter;

/// The interface of this library: compare with OGEE_ABI_VERSION, the interface of the header.
#[unsafe(no_mangle)]
pub extern "C" fn ogee_abi_version() -> u32 {
    OGEE_ABI_VERSION
}

/// The version of this library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn ogee_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// What the last call on this thread that failed says: what was wrong, and what to try. Valid until the next one
/// that fails on this thread; empty if there was none.
#[unsafe(no_mangle)]
pub extern "C" fn ogee_last_error() -> *const c_char {
    last_error()
}

/// The name of a status, such as "AGAIN". It takes any number.
#[unsafe(no_mangle)]
pub extern "C" fn ogee_status_name(status: c_int) -> *const c_char {
    const NAMES: [&str; 23] = [
        "OK\0",
        "AGAIN\0",
        "TIMED_OUT\0",
        "INVALID\0",
        "BAD_HANDLE\0",
        "UNALIGNED\0",
        "OUT_OF_RANGE\0",
        "TOO_LONG\0",
        "READ_ONLY\0",
        "CLOSED\0",
        "CANCELLED\0",
        "FENCED\0",
        "NOT_FOUND\0",
        "REFUSED\0",
        "UNREACHABLE\0",
        "CORRUPT\0",
        "PROTOCOL\0",
        "SYSTEM\0",
        "FORKED\0",
        "BUSY\0",
        "UNSUPPORTED\0",
        "LIMIT\0",
        "INTERNAL\0",
    ];
    const _: () = assert!(NAMES.len() == OgeeStatus::Internal as usize + 1);
    let at = usize::try_from(status).ok();
    let name = at.and_then(|at| NAMES.get(at));
    name.map_or(c"UNKNOWN".as_ptr(), |name| name.as_ptr().cast())
}

/// Has the library write what it does to stderr: slow requests, connections that break, and so on. The filter
/// is such as "info" or "ogee_client=debug"; NULL is "warn". Once per process; without it the library writes
/// nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ogee_log_to_stderr(filter: *const c_char) -> OgeeStatus {
    entry(|| {
        // SAFETY: the caller's promise.
        let filter = unsafe { read_text(filter, "filter") }?;
        let filter = filter.unwrap_or_else(|| "warn".into());
        let parsed = EnvFilter::try_new(&filter);
        let parsed = parsed.map_err(|error| {
            let what = format!("\"{filter}\" is no filter: {error}");
            Failure::invalid(&what, "pass error, warn, info, debug or CRATE=LEVEL")
        })?;
        let logger = tracing_subscriber::fmt()
            .with_env_filter(parsed)
            .with_writer(std::io::stderr);
        logger.try_init().map_err(|_| {
            let what = "the process has a log already";
            Failure::new(
                OgeeStatus::Busy,
                what,
                "call it once, before other threads do",
            )
        })
    })
}
