//! What a drive warns of: one byte, as NVMe has it.

use std::fmt;

/// Bits of the byte, in order (NVM Express Base Specification 2.0, 5.16.1.3).
const WORDS: [&str; 8] = [
    "few spare blocks are left",
    "its temperature is beyond a threshold",
    "it is not reliable any more",
    "it takes no writes any more",
    "its volatile memory's backup failed",
    "its persistent memory is read-only",
    "something that bit 6 of its warnings stands for",
    "something that bit 7 of its warnings stands for",
];

/// Critical warnings of a drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriveWarnings(u8);

impl DriveWarnings {
    /// From the byte.
    #[must_use]
    pub const fn new(bits: u8) -> Self {
        Self(bits)
    }

    /// The byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// It warns of nothing.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that the other does not have.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// In words, one for each bit.
    #[must_use]
    pub fn words(self) -> Vec<&'static str> {
        let bits = WORDS.iter().enumerate();
        bits.filter(|(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, words)| *words)
            .collect()
    }
}

impl fmt::Display for DriveWarnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&self.words().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DriveWarnings;

    #[test]
    fn each_bit_has_words() {
        assert_eq!(DriveWarnings::default().to_string(), "none");
        let two = DriveWarnings::new(0b1001);
        assert_eq!(
            two.to_string(),
            "few spare blocks are left, it takes no writes any more"
        );
        let new = two.without(DriveWarnings::new(0b1111_1110));
        assert_eq!(new.words(), ["few spare blocks are left"]);
        for bit in 0..8 {
            assert_eq!(DriveWarnings::new(1 << bit).words().len(), 1, "bit {bit}");
        }
    }
}
