//! An error as C sees it: a status, and a text with what to do.
//!
//! *Place*: what every fallible function of this crate ends with. *Owner*: plain values.
//! *Invariants*: each text says what was found, and what to try. *On failure*: it is the failure.

use crate::abi::OgeeStatus;
use ogee_client::{ClientError, ControlError};
use ogee_proto::fault::chain;
use std::error::Error;

/// An error as C sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) status: OgeeStatus,
    pub(crate) text: String,
}

impl Failure {
    /// `what`, and what to `try_this`.
    pub(crate) fn new(status: OgeeStatus, what: &str, try_this: &str) -> Self {
        let text = format!("{what}; try: {try_this}");
        Self { status, text }
    }

    pub(crate) fn null(argument: &str) -> Self {
        let what = format!("{argument} is NULL");
        Self::new(OgeeStatus::Invalid, &what, "pass an address")
    }

    pub(crate) fn invalid(what: &str, try_this: &str) -> Self {
        Self::new(OgeeStatus::Invalid, what, try_this)
    }

    pub(crate) fn cancelled() -> Self {
        let what = "closing the volume did not wait for this request";
        let remedy = "open the volume again and read what was to be written";
        Self::new(OgeeStatus::Cancelled, what, remedy)
    }

    pub(crate) fn closed() -> Self {
        let what = "the volume was closed meanwhile";
        Self::new(OgeeStatus::Closed, what, "open it again")
    }

    /// The I/O thread has ended: only a bug does that before its client is closed.
    pub(crate) fn stopped() -> Self {
        let what = "the client's I/O thread has ended";
        Self::new(
            OgeeStatus::Internal,
            what,
            "restart the program, and report it",
        )
    }

    pub(crate) fn panicked() -> Self {
        let what = "a bug in libogee";
        Self::new(
            OgeeStatus::Internal,
            what,
            "restart the program, and report it",
        )
    }

    pub(crate) fn system(what: &str, error: &dyn Error) -> Self {
        let what = format!("{what}: {}", chain(error));
        let remedy = "`ogee doctor` says what this host lacks";
        Self::new(OgeeStatus::System, &what, remedy)
    }

    pub(crate) fn control(error: &ControlError) -> Self {
        let (status, remedy) = match error {
            ControlError::Refused(refusal) => {
                let status = match refusal.grpc_code() as i32 {
                    GRPC_NOT_FOUND => OgeeStatus::NotFound,
                    _ => OgeeStatus::Refused,
                };
                if let Some(fault) = refusal.fault() {
                    let what = format!("{} {}: {}", fault.code(), fault.what(), fault.cause());
                    return Self::new(status, &what, fault.remedy());
                }
                (status, "`ogee volume ls` shows what there is")
            }
            ControlError::Unreachable { .. } => (
                OgeeStatus::Unreachable,
                "check the addresses, and that `ogee status` answers",
            ),
            ControlError::OutcomeUnknown { .. } => (
                OgeeStatus::Unreachable,
                "`ogee volume show` tells the state; then repeat the call",
            ),
            ControlError::Address(_) => {
                (OgeeStatus::Invalid, "write HOST:PORT, separated by commas")
            }
            ControlError::NoEndpoints => (
                OgeeStatus::Invalid,
                "name them in the options, or set OGEE_MDS",
            ),
            ControlError::Map(_) => (OgeeStatus::Protocol, "run one version of Ogee everywhere"),
            // This library keeps none; it would be a metadata server that does not answer.
            ControlError::Record(_) => (
                OgeeStatus::Unreachable,
                "check the addresses, and that `ogee status` answers",
            ),
            ControlError::Thread(_) => (
                OgeeStatus::System,
                "`ogee doctor` says what this host lacks",
            ),
            ControlError::Stopped => return Self::stopped(),
        };
        Self::new(status, &chain(error), remedy)
    }
}

/// gRPC's NOT_FOUND.
const GRPC_NOT_FOUND: i32 = 5;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (status, remedy) = match &error {
            ClientError::Control(control) => return Self::control(control),
            ClientError::Fenced { .. } => (
                OgeeStatus::Fenced,
                "close it; open it again to take it back",
            ),
            ClientError::Closed => return Self::closed(),
            ClientError::ReadOnly => (OgeeStatus::ReadOnly, "open it without OGEE_READ_ONLY"),
            ClientError::Unaligned { .. } => (OgeeStatus::Unaligned, "use multiples of 4096"),
            ClientError::OutOfRange { .. } => (
                OgeeStatus::OutOfRange,
                "stay within ogee_volume_size, or `ogee volume resize`",
            ),
            ClientError::TimedOut(_) => (
                OgeeStatus::TimedOut,
                "`ogee status` says what the cluster lacks",
            ),
            ClientError::Corrupt { .. } => (OgeeStatus::Corrupt, "restore the range from a backup"),
            ClientError::BadRequest { .. }
            | ClientError::Stale { .. }
            | ClientError::ReplyLength { .. } => (
                OgeeStatus::Protocol,
                "run one version of Ogee everywhere; else report it",
            ),
        };
        Self::new(status, &chain(&error), remedy)
    }
}
