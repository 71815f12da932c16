//! The border: what comes from C and goes back.
//!
//! *Place*: around every call. *Owner*: none; the last error is the thread's.
//! *Invariants*: every call is total: each argument is checked before it is used, and no error of the
//! outside panics. A panic all the same becomes `INTERNAL` where panics unwind; release builds abort.
//! *On failure*: a status, and a text for the thread.

use crate::abi::OgeeStatus;
use crate::failure::Failure;
use crate::limit::{STRUCT_SIZE_MAX, TEXT_MAX};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs a call.
pub(crate) fn entry(call: impl FnOnce() -> Result<(), Failure>) -> OgeeStatus {
    let ended = catch_unwind(AssertUnwindSafe(call));
    match ended.unwrap_or_else(|_| Err(Failure::panicked())) {
        Ok(()) => OgeeStatus::Ok,
        Err(failure) => {
            // A thread that is ending may have no room for it any more.
            let _ = LAST.try_with(|last| last.replace(text(failure.text)));
            failure.status
        }
    }
}

/// The text of this thread's last failure; valid until its next one.
pub(crate) fn last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}

/// As a C string.
pub(crate) fn text(mut from: String) -> CString {
    from.retain(|letter| letter != '\0');
    CString::new(from).unwrap_or_default()
}

/// A struct of C that begins with its size and may grow: what the caller does not have is zero.
pub(crate) trait Sized32: Copy {
    /// Its name in C.
    const NAME: &'static str;
}

/// Reads a struct; a null pointer is all zeros.
///
/// # Safety
/// `from` is null, or points at a struct as long as its first field says.
pub(crate) unsafe fn read_struct<T: Sized32>(from: *const T) -> Result<T, Failure> {
    let mut read = MaybeUninit::<T>::zeroed();
    if !from.is_null() {
        // SAFETY: the caller's promise.
        let given = unsafe { size_of_struct(from) }?;
        let known = given.min(size_of::<T>());
        // SAFETY: so many bytes can be read there, and are written within `read`.
        unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), read.as_mut_ptr().cast(), known) };
        // SAFETY: within the struct, by its size.
        let rest = unsafe { from.cast::<u8>().add(known) };
        // SAFETY: the rest of the struct, by its size.
        let rest = unsafe { slice::from_raw_parts(rest, given - known) };
        if rest.iter().any(|byte| *byte != 0) {
            let what = format!("a field of {} is unknown to this library", T::NAME);
            let remedy = "install a newer libogee, or leave the field zero";
            return Err(Failure::new(OgeeStatus::Unsupported, &what, remedy));
        }
    }
    // SAFETY: our structs are integers and pointers, of which all zeros is one, and what was copied is
    // what C had in the same fields.
    Ok(unsafe { read.assume_init() })
}

/// Fills a struct as far as the caller has it.
///
/// # Safety
/// `into` is null, or points at a struct as long as its first field says, for us alone.
pub(crate) unsafe fn write_struct<T: Sized32>(into: *mut T, value: &T) -> Result<(), Failure> {
    if into.is_null() {
        return Err(Failure::null(T::NAME));
    }
    // SAFETY: the caller's promise.
    let given = unsafe { size_of_struct(into) }?;
    let skipped = size_of::<u32>();
    let len = given.min(size_of::<T>()) - skipped;
    let value: *const T = value;
    // SAFETY: within our struct, which is longer.
    let from = unsafe { value.cast::<u8>().add(skipped) };
    // SAFETY: within the caller's, whose size is kept.
    let into = unsafe { into.cast::<u8>().add(skipped) };
    // SAFETY: so many bytes are in both, and ours is on our stack.
    unsafe { ptr::copy_nonoverlapping(from, into, len) };
    Ok(())
}

/// # Safety
/// `of` points at a struct that begins with its size.
unsafe fn size_of_struct<T: Sized32>(of: *const T) -> Result<usize, Failure> {
    // SAFETY: the caller's promise; it need not be aligned.
    let size = unsafe { of.cast::<u32>().read_unaligned() } as usize;
    if !(size_of::<u32>() * 2..=STRUCT_SIZE_MAX).contains(&size) {
        let what = format!("the size in {} is {size}", T::NAME);
        let remedy = format!("set its field size to sizeof({})", T::NAME);
        return Err(Failure::invalid(&what, &remedy));
    }
    Ok(size)
}

/// A text of the caller; null is none.
///
/// # Safety
/// `from` is null, or points at a string that ends with a zero byte.
pub(crate) unsafe fn read_text(from: *const c_char, name: &str) -> Result<Option<String>, Failure> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(from) }.to_bytes();
    if bytes.len() > TEXT_MAX {
        let what = format!("{name} has {} bytes", bytes.len());
        return Err(Failure::invalid(&what, &format!("at most {TEXT_MAX}")));
    }
    let text = String::from_utf8(bytes.to_vec());
    let not_text = |_| Failure::invalid(&format!("{name} is not UTF-8"), "pass UTF-8");
    text.map(Some).map_err(not_text)
}

/// Stores a result; checked for null before anything is done.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn new(into: *mut T, name: &str) -> Result<Self, Failure> {
        match into.is_null() {
            true => Err(Failure::null(name)),
            false => Ok(Self(into)),
        }
    }

    /// # Safety
    /// The pointer is for us alone, and room for a `T`.
    pub(crate) unsafe fn set(self, value: T) {
        // SAFETY: not null, and the caller's promise; it need not be aligned.
        unsafe { self.0.write_unaligned(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::{Sized32, entry, last_error, read_struct, write_struct};
    use crate::abi::OgeeStatus;
    use crate::failure::Failure;
    use std::ffi::CStr;

    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Newer {
        size: u32,
        first: u32,
        second: u64,
        third: u64,
    }

    #[repr(C)]
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Older {
        size: u32,
        first: u32,
        second: u64,
    }

    impl Sized32 for Newer {
        const NAME: &'static str = "newer";
    }
    impl Sized32 for Older {
        const NAME: &'static str = "older";
    }

    fn last() -> String {
        // SAFETY: a C string that lives until this thread's next failure.
        let text = unsafe { CStr::from_ptr(last_error()) };
        text.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_is_an_error_where_panics_unwind() {
        let status = entry(|| panic!("seen in this test's output"));
        assert_eq!(status, OgeeStatus::Internal);
        assert!(last().contains("bug"), "{}", last());
        let status = entry(|| Err(Failure::invalid("one\0two", "three")));
        assert_eq!(
            (status, last().as_str()),
            (OgeeStatus::Invalid, "onetwo; try: three")
        );
    }

    #[test]
    fn older_callers_have_zeros_where_they_have_nothing() {
        let given = Older {
            size: 16,
            first: 1,
            second: 2,
        };
        // SAFETY: as long as its size says.
        let read = unsafe { read_struct((&raw const given).cast::<Newer>()) }.expect("fine");
        assert_eq!((read.first, read.second, read.third), (1, 2, 0));
        let mut filled = given;
        let value = Newer {
            size: 0,
            first: 7,
            second: 8,
            third: 9,
        };
        // SAFETY: as long as its size says.
        unsafe { write_struct((&raw mut filled).cast::<Newer>(), &value) }.expect("fine");
        assert_eq!((filled.size, filled.first, filled.second), (16, 7, 8));
    }

    #[test]
    fn newer_callers_may_not_ask_for_what_is_unknown() {
        let mut given = Newer {
            size: 24,
            first: 1,
            second: 2,
            third: 0,
        };
        // SAFETY: as long as its size says.
        let read = unsafe { read_struct((&raw const given).cast::<Older>()) }.expect("fine");
        assert_eq!(read.second, 2);
        given.third = 1;
        // SAFETY: as long as its size says.
        let refused = unsafe { read_struct((&raw const given).cast::<Older>()) }.unwrap_err();
        assert_eq!(refused.status, OgeeStatus::Unsupported);
        given.size = 0;
        // SAFETY: the size is looked at first.
        let refused = unsafe { read_struct(&raw const given) }.unwrap_err();
        assert!(refused.text.contains("sizeof(newer)"), "{}", refused.text);
    }
}
