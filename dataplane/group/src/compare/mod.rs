//! Whether all replicas hold the same, piece by piece, and what is done where they do not.
//!
//! *Place*: between the shard, which says when, and log, store and peers. *Owner*: the leader's shard; every replica
//! answers for itself.
//!
//! A leader puts a digest entry into the log that names a *piece* (1 MiB of a chunk). Each replica that applies it takes
//! the overlay's view of that piece and sums up its blocks as of this entry, each by itself ([`BlockSum`]), so that what
//! differs is known to the block at once. Nothing is held meanwhile: neither writers, nor write-back, nor the log. A
//! replica that begins to write a newer version of a block of the piece back before it has read all of it says so, and the
//! piece is tried again ([`Pieces::note_cut`]). So nobody waits for a comparison, however slow a device is.
//!
//! Only *all voters* are compared, in a configuration without learners, and only when all of them know how
//! (`lead::are_able`): what one of them does not answer is compared later. Each says as well where it holds anything
//! next, so that the leader, which may itself be the one that has lost something, passes over nothing that anybody has.
//!
//! *What differs.* A block that one replica cannot read is repaired by itself (`repair`), and its piece compared after that.
//! Only if no other replica has what this one's map names, it counts like one that differs. Where more than half of all voters hold the same, that is what was written. Where not,
//! nothing is guessed: it is reported with volume and range until it was written anew, or is found equal.
//!
//! *How it is put right*, and why no write is lost: the leader closes the piece to writers ([`crate::gate`]), waits until
//! those under way have been handed to openraft, and compares again. What most of them hold as of that entry N then goes
//! into the log as a [`crate::CommandKind::Rewrite`] M, which takes effect on every replica like a write: overlay,
//! write-back, checkpoint and replay are those of any write. Between N and M no entry changes the piece: both are of one
//! term, all entries of a term are proposed by its leader, and this one lets none in. M says which term that was, and does
//! nothing in another one. So it does not matter whether the leader still leads, or learns what became of it. For those
//! that were right M changes nothing.
//!
//! *On failure*: a piece that could not be compared is asked for again by the shard; a rewrite that was not made is made
//! when the piece is compared the next time.

mod dispute;
mod lead;
mod piece;
mod verdict;
mod wire;

pub(crate) use dispute::Disputed;
pub use lead::Compared;
pub use piece::Place;
pub(crate) use piece::{PieceAsk, Pieces};
pub use wire::ASK_PIECE;
#[cfg(test)]
pub(crate) use wire::some_disputed;
pub(crate) use wire::{get_disputed, put_disputed};
