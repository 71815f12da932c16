//! Outcome of a request, as it crosses the wire: small, stable, and enough to act on.

use super::WireError;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Outcome of a request. The doc of each says who acts on it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum Status {
            $($(#[$doc])* $name = $value,)*
        }

        impl Status {
            /// Every status, for tests and metrics.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Decodes a status.
            ///
            /// # Errors
            /// [`WireError::Status`] for a value that this version does not know.
            pub const fn decode(raw: u16) -> Result<Self, WireError> {
                match raw {
                    $($value => Ok(Self::$name),)*
                    _ => Err(WireError::Status(raw)),
                }
            }

            /// The value on the wire.
            #[must_use]
            pub const fn encode(self) -> u16 {
                self as u16
            }

            /// A few words for an error message.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    /// Done, and durable on a majority if it was a write.
    Ok = 0, "ok";
    /// This replica does not lead; `hint` names the replica that does, if known. The client retries there.
    NotLeader = 1, "not the leader of this copyset";
    /// Not now: overload, an election, a lease. The client retries here after a pause.
    Retry = 2, "busy, retry";
    /// No room on the devices of this copyset. The client retries; the operator adds space.
    NoSpace = 3, "no space left on the copyset's devices";
    /// The attachment has been superseded. The client stops.
    Fenced = 4, "the attachment has been superseded by a newer one";
    /// A duplicate that arrived after its result was acknowledged. The client forgets it.
    Stale = 5, "a late duplicate of an acknowledged request";
    /// The outcome is unknown: the client retries with the same sequence.
    Unknown = 6, "outcome unknown";
    /// This process does not host the copyset. The client asks the MDS for the map.
    NoCopyset = 7, "copyset is not hosted here";
    /// The request breaks a rule of the protocol. A bug of the client; `meta` holds the reason.
    BadRequest = 8, "malformed request";
    /// The data failed its checksum here and at every peer asked.
    Corrupt = 9, "data failed its checksum";
    /// The device failed. The client retries; the leader will move.
    Io = 10, "device error";
    /// The attachment's epoch is newer than this copyset has sealed: the client seals, then retries.
    NotSealed = 11, "the copyset has not sealed this attachment";
    /// Too much is waiting here already. The client retries here after a pause; looking elsewhere would not help.
    Throttled = 12, "overloaded, asked to wait";
}
