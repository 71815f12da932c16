//! Ordered bytes in both directions, whatever carries them.
//!
//! *Place*: under the frame code, over the runtime's sockets. *Owner*: one connection.
//! *Invariants*: a read or write that is dropped before it finishes has taken no byte that it did
//! not report. The carrier is chosen once, at connect or accept. *On failure*: the system's error.

mod loopback;

pub(crate) use loopback::{LoopbackListener, connect as connect_loopback};

use bytes::BytesMut;
use loopback::{PipeReader, PipeWriter};
use ogee_runtime::net;
use std::io::{self, IoSlice};

/// Both directions of a connection.
pub(crate) type Duplex = (ReadEnd, WriteEnd);

/// Bytes from the peer.
pub(crate) enum ReadEnd {
    /// Over TCP.
    Tcp(net::ReadHalf),
    /// Within the executor.
    Loopback(PipeReader),
}

/// Bytes to the peer. Dropping it ends this direction: the peer reads the rest, then the end.
pub(crate) enum WriteEnd {
    /// Over TCP.
    Tcp(net::WriteHalf),
    /// Within the executor.
    Loopback(PipeWriter),
}

impl ReadEnd {
    /// Reads some bytes; zero is the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.read(buffer).await,
            Self::Loopback(pipe) => pipe.read(buffer).await,
        }
    }

    /// Reads some bytes behind those in `buffer`; zero is the end.
    pub(crate) async fn read_into(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.read_into(buffer).await,
            Self::Loopback(pipe) => pipe.read_into(buffer).await,
        }
    }
}

impl WriteEnd {
    /// Writes everything.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.write_all(bytes).await,
            Self::Loopback(pipe) => pipe.write_all(bytes).await,
        }
    }

    /// Writes every slice, in order, with as few calls as the system allows.
    pub(crate) async fn write_all_vectored(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        match self {
            Self::Tcp(half) => half.write_vectored(parts).await,
            Self::Loopback(pipe) => {
                for part in parts {
                    pipe.write_all(part).await?;
                }
                Ok(())
            }
        }
    }
}
