//! Which carrier a connection takes.
//!
//! *Place*: under `connection` and `listener`. *Owner*: one record per executor of peers that RDMA does not reach.
//! *Invariants*: RDMA is tried first where a peer offers it and TCP is allowed; TCP is taken for it only after it
//! worked, so a peer that is not there at all is no reason to do without RDMA later. Why RDMA is not used is
//! said once for each peer, and that it is again. *On failure*: the error of the carrier that was tried last.

use crate::endpoint::Endpoint;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Which carriers may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Transport {
    /// RDMA where both sides have it, else TCP.
    #[default]
    Auto,
    /// RDMA, or nothing.
    Rdma,
    /// TCP only.
    Tcp,
}

/// The text names no transport. The operator corrects the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no transport: write auto, rdma or tcp")]
pub struct TransportParseError {
    /// What was given.
    pub text: Box<str>,
}

impl Transport {
    /// Whether a peer that listens there can be reached. Within an executor there is one carrier, which all may use.
    pub(crate) const fn allows(self, endpoint: &Endpoint) -> bool {
        match endpoint {
            Endpoint::Tcp(_) => !matches!(self, Self::Rdma),
            Endpoint::Rdma(_) => !matches!(self, Self::Tcp),
            Endpoint::Both(_) | Endpoint::Loopback(_) => true,
        }
    }

    /// Where to listen at `address`.
    #[must_use]
    pub const fn listen(self, address: SocketAddr) -> Endpoint {
        match self {
            Self::Auto => Endpoint::Both(address),
            Self::Rdma => Endpoint::Rdma(address),
            Self::Tcp => Endpoint::Tcp(address),
        }
    }
}

impl FromStr for Transport {
    type Err = TransportParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "rdma" => Ok(Self::Rdma),
            "tcp" => Ok(Self::Tcp),
            _ => Err(TransportParseError { text: text.into() }),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Rdma => "rdma",
            Self::Tcp => "tcp",
        })
    }
}

#[cfg(feature = "rdma")]
pub(crate) use fallback::{rdma_helps, took_tcp, tries_rdma};

#[cfg(feature = "rdma")]
mod fallback {
    use crate::error::TransportError;
    use crate::limit::{CONNECTIONS_MAX, RDMA_AGAIN_AFTER};
    use ogee_runtime::{Instant, now};
    use std::cell::RefCell;
    use std::collections::HashMap;
    use std::error::Error;
    use std::net::SocketAddr;

    thread_local! {
        /// Peers that were reached over TCP when RDMA had failed, and when.
        static FALLEN: RefCell<HashMap<SocketAddr, Instant>> = RefCell::default();
    }

    /// Whether RDMA is to be tried: it has not failed there a moment ago.
    pub(crate) fn tries_rdma(address: SocketAddr) -> bool {
        FALLEN.with_borrow(|fallen| {
            let since = fallen.get(&address);
            since.is_none_or(|since| now() - *since >= RDMA_AGAIN_AFTER)
        })
    }

    /// RDMA works there.
    pub(crate) fn rdma_helps(address: SocketAddr) {
        if FALLEN
            .with_borrow_mut(|fallen| fallen.remove(&address))
            .is_some()
        {
            tracing::info!(%address, "RDMA is used again");
        }
    }

    /// TCP works there, where RDMA has failed.
    pub(crate) fn took_tcp(address: SocketAddr, why: &TransportError) {
        let is_new = FALLEN.with_borrow_mut(|fallen| {
            if fallen.len() >= CONNECTIONS_MAX {
                fallen.clear();
            }
            fallen.insert(address, now()).is_none()
        });
        if is_new {
            let cause = why.source().map(ToString::to_string);
            tracing::warn!(%address, error = %why, cause, "RDMA cannot be used, so TCP is");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Transport;
    use crate::endpoint::Endpoint;

    #[test]
    fn what_is_set_is_never_passed_over() {
        let address = "10.9.0.1:7001".parse().unwrap();
        let (tcp, rdma, both) = (
            Endpoint::Tcp(address),
            Endpoint::Rdma(address),
            Endpoint::Both(address),
        );
        for (transport, over_tcp, over_rdma) in [
            (Transport::Auto, true, true),
            (Transport::Rdma, false, true),
            (Transport::Tcp, true, false),
        ] {
            assert_eq!(transport.allows(&tcp), over_tcp);
            assert_eq!(transport.allows(&rdma), over_rdma);
            assert!(transport.allows(&both));
        }
    }

    #[test]
    fn text_and_back() {
        for transport in [Transport::Auto, Transport::Rdma, Transport::Tcp] {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        assert!("TCP".parse::<Transport>().is_err());
    }
}
