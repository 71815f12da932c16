//! Where a peer listens.

use ogee_proto::limit::NAME_LEN_MAX;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

const LOOPBACK_PREFIX: &str = "loopback:";
const RDMA_PREFIX: &str = "rdma:";
const BOTH_SUFFIX: &str = "+rdma";

/// Where a peer listens. Written `127.0.0.1:7001`, `[::1]:7001`, `10.0.0.1:7001+rdma`,
/// `rdma:10.0.0.1:7001` or `loopback:name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// A TCP address. Port 0 in `bind` asks the system for a free one.
    Tcp(SocketAddr),
    /// The same address over TCP and, where both sides have it, over RDMA.
    Both(SocketAddr),
    /// An address of an RDMA device; a build without the feature `rdma` cannot reach it.
    Rdma(SocketAddr),
    /// A name within this executor: for tests and the simulator.
    Loopback(String),
}

/// The text is not an endpoint. The operator corrects the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an endpoint: write ADDRESS:PORT, ADDRESS:PORT+rdma, rdma:ADDRESS:PORT, or loopback:NAME"
)]
pub struct EndpointParseError {
    /// What was given.
    pub text: Box<str>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Both(address) => write!(f, "{address}{BOTH_SUFFIX}"),
            Self::Rdma(address) => write!(f, "{RDMA_PREFIX}{address}"),
            Self::Loopback(name) => write!(f, "{LOOPBACK_PREFIX}{name}"),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = if let Some(name) = text.strip_prefix(LOOPBACK_PREFIX) {
            is_name(name).then(|| Self::Loopback(name.to_owned()))
        } else if let Some(address) = text.strip_prefix(RDMA_PREFIX) {
            address.parse().ok().map(Self::Rdma)
        } else if let Some(address) = text.strip_suffix(BOTH_SUFFIX) {
            address.parse().ok().map(Self::Both)
        } else {
            text.parse().ok().map(Self::Tcp)
        };
        parsed.ok_or_else(|| EndpointParseError { text: text.into() })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_LEN_MAX && !name.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn text_and_back() {
        for text in [
            "127.0.0.1:7001",
            "[::1]:7001",
            "10.9.0.1:7001+rdma",
            "rdma:10.9.0.1:7001",
            "loopback:name",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_neither() {
        let long = format!("loopback:{}", "x".repeat(64));
        for text in [
            "",
            "localhost",
            "127.0.0.1",
            "loopback:",
            "loopback:a b",
            "rdma:name",
            "rdma:10.9.0.1:7001+rdma",
            long.as_str(),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(&*error.text, text);
        }
    }
}
