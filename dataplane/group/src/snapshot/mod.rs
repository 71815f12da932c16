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
//! | `flow` | its steps under way |
//! | `track` | what the target has got already |
//! | `gain` | whether the copy gains on the writers, and what it takes for that |
//! | `last_pass` | the end of a copy, for which the log is kept |
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
//! An attempt on a checkpoint D may skip a block that was read before it began only if that did not
//! change between then and D. The leader takes a block off its list of good ones in the very step in
//! which it applies a change (`track`), and D is not after what it has applied when the attempt begins, so
//! what is still good then has not changed up to D. Each block is on its way once at a time: a pass
//! ends when all of it was answered, an attempt when nothing of an earlier one is under way at the
//! target. The target must still be as the copy left it: a token, new with every copy that it begins from
//! nothing, says so. After an installation nothing is good: replay may put an older write over a
//! newer block for a while.
//!
//! # What a target has already
//!
//! A target that was here before lacks only what has changed since. It names the checkpoint C that its store is as of,
//! and the sender knows what has changed after C ([`crate::changes`]), from what it has applied itself, in this process or,
//! by its own checkpoint, in one before: those blocks are what the target lacks, as if the others had been sent and acknowledged. What the target has
//! applied behind C does not count: it may be in its log only, which installing lets go of.
//!
//! That holds for a target with a mark as well. A block that has not changed after C is there as of C, or as a
//! broken-off copy brought it, of a moment after its last change. Replay behind C, and an installation as of a newer
//! D, which is then C, change none of that. One thing more is needed: that no earlier leader's copy brought
//! anything that this one has not applied, since it would not know that it changed. So it must have applied an entry
//! of its own term; if it has not, perhaps because it needs this very target for that, a target with a mark gets
//! everything.
//!
//! # Why it ends
//!
//! What an attempt sends first is whatever the target lacks as it begins. If the log behind its
//! checkpoint D is still there by then, and no more than a share of the log, the target installs. Else
//! the attempt goes on in passes, which need no log, until the rest is small; then it has a checkpoint
//! made, behind which the log is kept (`last_pass`), and ends: openraft asks again, with that checkpoint or a
//! newer one, and this attempt's first pass is short. The rest becomes small because `gain` sees to it that
//! more is sent than is changed, or reports that it cannot.
//!
//! # When nothing is copied
//!
//! A leader may know less of a follower than is there: an answer is lost with its stream, and what
//! comes after the last one that arrived is purged. All that openraft can offer then is a snapshot. If the
//! follower has the snapshot's last entry, durably, it has everything before it, too (log matching), and
//! that entry is committed: no answer about it counts towards anything. So it answers the first step by
//! `Stale`, and the leader goes on by log from there. Not while it is fuzzy: then only a copy, or replay
//! past the mark, makes it whole; what it then takes of a copy stands below.
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
//! puts E there, and so does the end of one of
//! which nothing else is needed any more: entries that were on their way for long may have brought the target beyond what the leader
//! offers, after an earlier attempt of the same leader had left blocks. Were that refused, the target would be fuzzy for as long as
//! the leader leads, and could not be told by log what it lacks, so that with the third replica gone nothing would be committed. So it
//! takes the copy, lets all its blocks be, which its own log makes newer, and waits for E. Until a replica has applied that much it digests nothing, sends no copy, serves no
//! read, and is reported as installing. Its log and vote stay: they may be part of a majority.
//!
//! # How it gives way
//!
//! A copy has a connection of its own, so that heartbeats and entries do not queue behind pieces. At
//! most [`COPY_WINDOW`](crate::limit::COPY_WINDOW) pieces of 128 KiB are on their way; while clients or leaders
//! want anything of the sender's shard one or two, and more only if the copy would not gain on the
//! writers otherwise. A rate may be set on top. Chunks and runs of
//! blocks without data cost a few bytes.

mod budget;
mod flow;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gain;
mod laggards;
mod last_pass;
mod receive;
mod send;
mod track;
mod wire;

pub use budget::CopyBudget;
pub(crate) use receive::Incoming;
pub(crate) use track::{Copies, PIECES};

#[cfg(test)]
mod tests;
