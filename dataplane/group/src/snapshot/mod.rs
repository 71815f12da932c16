//! Copying a whole group to a replica whose log has fallen behind the leader's purge.
//!
//! *Place*: leader side under openraft's replication, follower side under the shard's service.
//! *Owner*: one group.
//! *Invariants*: below.
//! *On failure*: openraft backs off and asks for the copy again; it goes on where it was if both
//! processes still run and nobody else led meanwhile, otherwise it starts from nothing.
//!
//! | module | holds |
//! |---|---|
//! | `send` | the leader's side |
//! | `track` | what the target has got already |
//! | `receive` | the follower's side |
//! | `wire` | the steps as frames |
//! | `budget` | what copies may take from clients |
//!
//! # Why the result is right
//!
//! A copy is *fuzzy*: sessions and membership exactly as of the leader's checkpoint D, each block as
//! of some moment after D. Block writes are blind, their dedupe state is as of D, and no entry's
//! effect depends on a block's contents, so replaying (D, E], where E is what the leader had applied
//! when the last block was read, gives the contents as of E: a block that was written in (D, E] gets
//! its last write again, and one that was not is as of D wherever it was read.
//!
//! An attempt that breaks off and goes on against a newer checkpoint D' may skip a block only if it
//! did not change between when it was read and D'. The leader takes a block off its list of good
//! ones in the very step in which it applies a change (`track`), and D' is not after what it has applied when
//! the attempt begins, so what is still good then has not changed up to D'. The target must still be
//! as the copy left it: a token, new with every copy that it begins from nothing, says so. After an
//! installation nothing is good: replay may put an older write over a newer block for a while.
//!
//! # What a broken-off copy leaves
//!
//! Blocks are written in place, into extents that the target's own last checkpoint A names, and
//! checkpoints of other groups make the newer map durable. Such a replica is not merely old: its
//! state is as of A, its log goes up to L, and some blocks are as of moments after that. It may still
//! open, vote, and replay its log, since
//! - everything that the leader of term T read was committed in T or before, so each of those entries
//!   is in the log of every later leader, before that one's own first entry. Replaying from A past
//!   the first entry of a later term gives exact contents, by the argument above. In term T itself
//!   the target gets no entries before a whole copy: the leader lacks what comes next;
//! - until then it cannot be elected: it lacks committed entries. If it is elected later, it applies
//!   all of them, and its own first entry, before it serves a read;
//! - a block whose checksum is wrong after a crash (new bytes, older map) has changed since the map
//!   was made, so that replay, or the next copy, writes it again. Bytes that did not change match.
//!
//! But nobody may take it for more than it is: before the first block is written, the mark
//! `fuzzy_until` = (T + 1, 0) is made durable, and log ids compare by term first. An installed copy
//! puts E there. Until a replica has applied that much it digests nothing, sends no copy, serves no
//! read, and is reported as installing. Its log and vote stay: they may be part of a majority.
//!
//! # How it gives way
//!
//! A copy has a connection of its own, so that heartbeats and entries do not queue behind pieces. At
//! most [`COPY_WINDOW`](crate::limit::COPY_WINDOW) pieces of 128 KiB are on their way, two while
//! clients or leaders want anything of the sender's shard, one while answers are slow; a rate may be
//! set on top. Chunks and runs of blocks without data cost a few bytes.
//!
//! When the log behind D is gone by the end, because writers were faster, nothing is installed: the
//! next attempt, on a newer checkpoint, sends only what has changed since.

mod budget;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod receive;
mod send;
mod track;
mod wire;

pub use budget::CopyBudget;
pub(crate) use receive::Incoming;
pub(crate) use track::Copies;

#[cfg(test)]
mod tests;
