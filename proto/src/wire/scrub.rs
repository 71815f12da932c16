//! What operators want of scrubbing.

/// The last byte of a [`FrameKind::Scrub`](super::FrameKind::Scrub) request's meta.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScrubWish {
    /// Nothing is read or compared until that is taken back.
    Pause,
    /// A pause is over.
    Resume,
    /// A pass of each begins at once.
    Now,
    /// All metadata is verified at once.
    LightNow,
}

impl ScrubWish {
    /// As it is sent.
    #[must_use]
    pub const fn raw(self) -> u8 {
        match self {
            Self::Pause => 1,
            Self::Resume => 2,
            Self::Now => 3,
            Self::LightNow => 4,
        }
    }

    /// What was sent; `None` for what this version does not know.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Pause),
            2 => Some(Self::Resume),
            3 => Some(Self::Now),
            4 => Some(Self::LightNow),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ScrubWish;

    #[test]
    fn what_is_sent_is_what_is_read() {
        for (raw, wish) in [
            (1, ScrubWish::Pause),
            (2, ScrubWish::Resume),
            (3, ScrubWish::Now),
            (4, ScrubWish::LightNow),
        ] {
            assert_eq!(wish.raw(), raw);
            assert_eq!(ScrubWish::from_raw(raw), Some(wish));
        }
        for raw in [0, 5, u8::MAX] {
            assert_eq!(ScrubWish::from_raw(raw), None);
        }
    }
}
