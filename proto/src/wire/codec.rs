//! Bounded cursor over the structured part of a body: little-endian integers, length-checked bytes.

use super::WireError;

/// Reads fields in order; each names itself for the error.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Appends fields in order to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

macro_rules! ints {
    ($($name:ident: $type:ty),*) => {
        impl<'a> Reader<'a> {
            $(
                /// The next integer.
                ///
                /// # Errors
                /// [`WireError::Truncated`] when too few bytes are left.
                pub fn $name(&mut self, field: &'static str) -> Result<$type, WireError> {
                    let (head, rest) =
                        self.rest.split_first_chunk().ok_or(WireError::Truncated { field })?;
                    self.rest = rest;
                    Ok(<$type>::from_le_bytes(*head))
                }
            )*
        }

        impl<'a> Writer<'a> {
            $(
                /// Appends an integer.
                pub fn $name(&mut self, value: $type) -> &mut Self {
                    self.out.extend_from_slice(&value.to_le_bytes());
                    self
                }
            )*
        }
    };
}

ints!(u8: u8, u16: u16, u32: u32, u64: u64);

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when too few bytes are left.
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    /// Bytes not yet read.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that everything was read.
    ///
    /// # Errors
    /// [`WireError::Field`] with the number of bytes left over.
    pub const fn finish(self, field: &'static str) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Field {
                field,
                value: self.rest.len() as u64,
            })
        }
    }
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }
}
