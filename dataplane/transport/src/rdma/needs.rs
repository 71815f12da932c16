//! What a port takes of its device and of its host.
//!
//! *Place*: read by the port when it opens, and by `ogee doctor` before that, also in programs without RDMA. *Owner*: plain
//! values. *Invariants*: what is checked before is what is used. *On failure*: nothing fails here.

use super::limit::{
    BODY_LEN, DEPTH, GRANT_MIN, HEAD_LEN, HEADS_SENT, LARGE_LEN, MEDIUM_LEN, PARTS, READS,
};
use crate::options::RdmaOptions;

/// Bytes of a work request, and of a completion, in queues that drivers lock as well; what common ones take at most.
const WORK_LEN: u64 = 256;
const COMPLETION_LEN: u64 = 128;

/// What a port takes of its device and of its host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RdmaNeeds {
    /// Connections.
    pub pairs: u32,
    /// Work requests of one connection.
    pub pair_depth: u32,
    /// Receive buffers of its shared queue.
    pub receives: u32,
    /// Entries of its completion queue.
    pub completions: u32,
    /// RDMA READs under way towards one connection.
    pub reads: u32,
    /// Memory windows: all pieces that may be lent; with fewer, payloads are sent in parts.
    pub windows: u32,
    /// Registered ranges of memory.
    pub regions: u32,
    /// Pieces of one send or receive: head and payload.
    pub parts: u32,
    /// Memory that it locks, by registering it or for queues.
    pub locked_bytes: u64,
    /// Memory of guests and programs that it locks beside that, if they register so much: which they do is not known here.
    pub others_bytes_max: u64,
}

impl RdmaOptions {
    /// With what the port cannot do without.
    #[must_use]
    pub fn checked(mut self) -> Self {
        self.connections_max = self.connections_max.clamp(1, 1 << 15);
        // Each connection finds a few, and as many again are for those that are there.
        let receives = 2 * GRANT_MIN * self.connections_max;
        self.receives = self.receives.clamp(receives, 1 << 20);
        self.mediums = self.mediums.clamp(4, 1 << 18);
        self.larges = self.larges.clamp(4, 1 << 16);
        self.transfers = self.transfers.clamp(2, 1 << 15);
        self
    }

    /// Bytes for transfers that a port with these provides.
    #[cfg(feature = "rdma")]
    pub(super) const fn transfers(&self) -> usize {
        (self.transfers as usize) << 20
    }

    /// What a port with these takes.
    #[must_use]
    pub fn needs(&self) -> RdmaNeeds {
        let options = self.clone().checked();
        let (receives, pairs) = (options.receives, options.connections_max);
        let completions = pairs * DEPTH + receives;
        let pieces = [
            (receives + HEADS_SENT, HEAD_LEN),
            (2 * receives, BODY_LEN),
            (options.mediums, MEDIUM_LEN),
            (options.larges, LARGE_LEN),
        ];
        let slabs: u64 = pieces
            .iter()
            .map(|(count, len)| u64::from(*count) * *len as u64)
            .sum();
        let registered = slabs + (u64::from(options.transfers) << 20);
        let work = u64::from(pairs * DEPTH + receives) * WORK_LEN;
        let completed = u64::from(completions) * COMPLETION_LEN;
        RdmaNeeds {
            pairs,
            pair_depth: DEPTH,
            receives,
            completions,
            reads: READS.into(),
            windows: options.mediums + options.larges,
            // And one for transfers.
            regions: u32::try_from(pieces.len() + 1).expect("invariant: a few"),
            parts: PARTS,
            locked_bytes: registered + work + completed,
            others_bytes_max: (options.registered_max as u64)
                .saturating_sub(u64::from(options.transfers) << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::options::RdmaOptions;

    #[test]
    fn a_port_needs_what_its_options_say() {
        let needs = RdmaOptions::default().needs();
        assert_eq!((needs.pairs, needs.receives), (128, 1024));
        assert_eq!(needs.completions, 128 * 64 + 1024);
        // 512 KiB of heads, 32 MiB of bodies, 16 and 32 MiB of larger pieces, as much for transfers, and the queues.
        let registered = (512 << 10) + (112 << 20);
        assert!((registered..registered + (8 << 20)).contains(&needs.locked_bytes));
        assert_eq!(needs.others_bytes_max, (64 << 30) - (32 << 20));
        let many = RdmaOptions {
            connections_max: 1000,
            ..RdmaOptions::default()
        };
        assert_eq!(many.needs().receives, 8000);
    }
}
