//! Request ids of a [`Caller`](crate::Caller): which slot, or which stream, a reply belongs to.
//!
//! | bits | call | stream |
//! |---|---|---|
//! | 63 | 0 | 1 |
//! | 62..32 | generation of the slot, never 0 | stream id |
//! | 31..0 | slot | stream id |
//!
//! The server echoes the id, so a stream's replies find their way whatever their other fields say
//! (a reply's `stream` is also the leader hint). The top bit tells the server that the frame takes
//! no credit: streams are bounded by their own window, and only chunkservers may open them.

use ogee_proto::id::RequestId;

const STREAM_BIT: u64 = 1 << 63;
/// Generations wrap within 31 bits.
pub(crate) const GENERATION_MAX: u32 = (1 << 31) - 1;

/// A slot of the call table, at one of its uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CallId {
    /// Which use of the slot, `1..=GENERATION_MAX`.
    pub(crate) generation: u32,
    /// Which slot.
    pub(crate) slot: u32,
}

/// What a reply answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// One call.
    Call(CallId),
    /// A frame of a stream.
    Stream(u64),
}

impl CallId {
    /// On the wire.
    pub(crate) const fn encode(self) -> RequestId {
        RequestId::new(((self.generation as u64) << 32) | self.slot as u64)
    }
}

/// A stream's id on the wire.
pub(crate) const fn encode_stream(stream: u64) -> RequestId {
    RequestId::new(STREAM_BIT | stream)
}

/// Whether the frame belongs to a stream.
pub(crate) const fn is_stream(id: RequestId) -> bool {
    id.get() & STREAM_BIT != 0
}

/// What the id names.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a u64")]
pub(crate) const fn decode(id: RequestId) -> Target {
    let raw = id.get();
    if is_stream(id) {
        return Target::Stream(raw & !STREAM_BIT);
    }
    Target::Call(CallId {
        generation: (raw >> 32) as u32,
        slot: raw as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::{CallId, GENERATION_MAX, Target, decode, encode_stream};

    #[test]
    fn there_and_back() {
        let call = CallId {
            generation: GENERATION_MAX,
            slot: u32::MAX,
        };
        assert_eq!(decode(call.encode()), Target::Call(call));
        assert_eq!(decode(encode_stream(77)), Target::Stream(77));
    }
}
