//! What can go wrong, each with what to do.

use std::io;

/// RDMA could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RdmaError {
    /// rdma-core is not installed, or is another version.
    #[error(
        "{library} cannot be used: {reason}. Install rdma-core (Debian: rdma-core ibverbs-providers \
         librdmacm1), or choose transport = \"tcp\""
    )]
    Library {
        /// Which of its libraries.
        library: &'static str,
        /// The loader's words.
        reason: String,
    },
    /// There is no RDMA device.
    #[error(
        "there is no RDMA device: `rdma link` lists them. Load the driver of the adapter (or rdma_rxe, for a \
         trial without one)"
    )]
    NoDevice,
    /// The named one is not there.
    #[error("there is no RDMA device {name}; there are: {found}")]
    UnknownDevice {
        /// The name asked for.
        name: String,
        /// The names there are.
        found: String,
    },
    /// A connection came over another device than the one that memory is registered with.
    #[error(
        "the connection goes over {found}, but {expected} was opened for it: set the device or the address"
    )]
    OtherDevice {
        /// The opened one.
        expected: String,
        /// The connection's.
        found: String,
    },
    /// A call failed.
    #[error("{call} failed: {source}{remedy}")]
    Call {
        /// The function.
        call: &'static str,
        /// The system's reason.
        source: io::Error,
        /// What to do, if the reason tells; begins with a colon.
        remedy: &'static str,
    },
    /// The driver has no such function.
    #[error("the driver of {device} cannot {what}")]
    Unsupported {
        /// The device.
        device: String,
        /// What it should have done.
        what: &'static str,
    },
    /// A queue of the hardware does not work any more.
    #[error("{what} of {device} is broken: drop all connections on it and begin anew")]
    Broken {
        /// The device.
        device: String,
        /// Which one.
        what: &'static str,
    },
    /// The peer did what the protocol does not have; nothing of it counts.
    #[error("the peer touched a key or sent what the protocol does not have: drop the connection")]
    Misbehaved,
    /// More was asked for than fits.
    #[error("{what} is full: it takes {limit}")]
    Full {
        /// What is full.
        what: &'static str,
        /// How much it takes.
        limit: u32,
    },
    /// A value is outside of what verbs allow.
    #[error("{what} is {value}, but must be at most {limit}")]
    TooMuch {
        /// Which one.
        what: &'static str,
        /// As given.
        value: usize,
        /// The largest allowed.
        limit: usize,
    },
}

/// Something that took a value and could not do what it was for: the value comes back.
#[derive(Debug)]
pub struct Failed<T> {
    /// Why.
    pub error: RdmaError,
    /// What was given.
    pub back: T,
}

/// A work request ended badly; its connection is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// The connection was broken or closed before it was done.
    #[error("the connection ended before the request was done")]
    Flushed,
    /// The peer did not answer, however often it was asked.
    #[error("the peer does not answer")]
    NoAnswer,
    /// The peer had no receive buffer, however often it was asked.
    #[error("the peer has no receive buffer left")]
    NoReceiver,
    /// The peer's memory may not be touched: the key is wrong or void.
    #[error("the peer's memory may not be touched by this key")]
    RemoteAccess,
    /// What came is longer than the receive buffer.
    #[error("what came is longer than the receive buffer")]
    TooLong,
    /// Something came that the protocol does not have (with a value, or a key to void).
    #[error("the peer sent what the protocol does not have")]
    Unexpected,
    /// Something else.
    #[error("work completion status {status} (vendor {vendor})")]
    Other {
        /// `ibv_wc_status`.
        status: u32,
        /// The driver's own code.
        vendor: u32,
    },
}

impl RdmaError {
    /// A call that sets `errno`.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::call(call, io::Error::last_os_error())
    }

    pub(crate) fn call(call: &'static str, source: io::Error) -> Self {
        let remedy = match source.raw_os_error() {
            Some(libc::ENOMEM) if call == "ibv_reg_mr" => {
                ": raise the limit of locked memory (ulimit -l, or LimitMEMLOCK= of the service)"
            }
            Some(libc::EADDRNOTAVAIL | libc::ENODEV) => {
                ": no RDMA device has that address; `rdma link` and `ip address` show what there is"
            }
            Some(libc::EADDRINUSE) => ": another process listens there",
            _ => "",
        };
        Self::Call {
            call,
            source,
            remedy,
        }
    }
}

/// The outcome of a call that returns 0, or -1 with `errno`, or (some do) a positive errno.
pub(crate) fn check(call: &'static str, returned: i32) -> Result<(), RdmaError> {
    match returned {
        0 => Ok(()),
        1.. => Err(RdmaError::call(
            call,
            io::Error::from_raw_os_error(returned),
        )),
        _ => Err(RdmaError::last(call)),
    }
}

#[cfg(test)]
mod tests {
    use super::{RdmaError, check};
    use std::io;

    #[test]
    fn both_conventions_of_failure_are_understood() {
        assert!(check("call", 0).is_ok());
        let positive = check("ibv_reg_mr", libc::ENOMEM)
            .expect_err("failed")
            .to_string();
        assert!(positive.contains("ulimit -l"), "{positive}");
        let error = RdmaError::call("bind", io::Error::from_raw_os_error(libc::ENODEV));
        assert!(error.to_string().contains("rdma link"), "{error}");
    }
}
