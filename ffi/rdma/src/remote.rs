//! Memory of a peer, as it is named in messages.
//!
//! *Place*: in requests for RDMA READ and WRITE. *Owner*: plain values. *Invariants*: none: it may be the peer's word. *On
//! failure*: a key that is not good there breaks the connection, see [`Pair`](crate).

/// Memory of a peer, for RDMA READ and WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteMemory {
    /// Its address there.
    pub address: u64,
    /// Its key.
    pub key: u32,
    /// Its length.
    pub len: u32,
}
