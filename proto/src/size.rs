//! Sizes as users write them: `4GiB`, `64KiB`, `4k`, `4096`.
//!
//! All units are binary. `k`, `m`, `g`, `t` mean what fio means by them (1024 and its powers);
//! `KB`, `MB` and so on are refused, since half of the world reads them as powers of 1000.

use crate::unit::ByteLen;

/// Why a size was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No leading whole number.
    #[error("size \"{text}\" does not start with a whole number: write it like 4GiB, 64k or 4096")]
    Number {
        /// As given.
        text: Box<str>,
    },
    /// The unit is not one of ours.
    #[error(
        "size \"{text}\" has the unknown unit \"{unit}\": \
         use KiB, MiB, GiB, TiB, one of k, m, g, t (also binary), or nothing for bytes"
    )]
    Unit {
        /// As given.
        text: Box<str>,
        /// What stands behind the number.
        unit: Box<str>,
    },
    /// More bytes than 64 bits can count.
    #[error("size \"{text}\" is past the largest size of {} bytes", u64::MAX)]
    Overflow {
        /// As given.
        text: Box<str>,
    },
}

/// Parses a size. Surrounding white space is ignored, the unit's case does not matter.
///
/// # Errors
/// [`SizeError`] that names the value and the part of it that is wrong.
pub fn parse_size(text: &str) -> Result<ByteLen, SizeError> {
    let trimmed = text.trim();
    let digits_len = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = trimmed.split_at(digits_len);
    if digits.is_empty() {
        return Err(SizeError::Number { text: text.into() });
    }
    let shift = unit_shift(unit).ok_or_else(|| SizeError::Unit {
        text: text.into(),
        unit: unit.into(),
    })?;
    let overflow = || SizeError::Overflow { text: text.into() };
    // The only way for a string of digits not to parse is to be too large.
    let number: u64 = digits.parse().map_err(|_| overflow())?;
    number
        .checked_mul(1 << shift)
        .map(ByteLen::new)
        .ok_or_else(overflow)
}

/// Binary logarithm of a unit, `None` if it is unknown.
fn unit_shift(unit: &str) -> Option<u32> {
    match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        "t" | "tib" => Some(40),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{SizeError, parse_size};
    use crate::unit::ByteLen;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn every_documented_form_is_taken() {
        let cases: [(&str, u64); 12] = [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("64KiB", 65536),
            ("64kib", 65536),
            ("1M", 1 << 20),
            ("4GiB", 4 << 30),
            ("2g", 2 << 30),
            ("1t", 1 << 40),
            (" 3TiB\n", 3 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(ByteLen::new(bytes)), "{text}");
        }
    }

    #[test]
    fn junk_is_refused_and_named() {
        for text in ["", " ", "GiB", "-1", "+1", ".5g", "x4k", "٤"] {
            assert_eq!(
                parse_size(text),
                Err(SizeError::Number { text: text.into() }),
                "{text}"
            );
        }
        for (text, unit) in [
            ("4KB", "KB"),
            ("1.5GiB", ".5GiB"),
            ("4 GiB", " GiB"),
            ("1p", "p"),
            ("4k1", "k1"),
        ] {
            let expected = SizeError::Unit {
                text: text.into(),
                unit: unit.into(),
            };
            assert_eq!(parse_size(text), Err(expected), "{text}");
        }
        let message = parse_size("10MB").expect_err("decimal unit").to_string();
        assert!(
            message.contains("\"10MB\"") && message.contains("\"MB\""),
            "{message}"
        );
    }

    #[test]
    fn overflow_is_refused_at_its_edge() {
        assert_eq!(
            parse_size("18446744073709551615"),
            Ok(ByteLen::new(u64::MAX))
        );
        assert_eq!(
            parse_size("16777215TiB"),
            Ok(ByteLen::new(u64::MAX - ((1 << 40) - 1)))
        );
        for text in [
            "18446744073709551616",
            "16777216TiB",
            "99999999999999999999k",
        ] {
            assert_eq!(
                parse_size(text),
                Err(SizeError::Overflow { text: text.into() }),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_length_displays_parses_back(raw in any::<u64>()) {
            let len = ByteLen::new(raw);
            prop_assert_eq!(parse_size(&len.to_string()), Ok(len));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
            let _ = parse_size(&text);
        }
    }
}
