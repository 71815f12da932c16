//! One group's view of the log.
//!
//! *Place*: the API for `group/`. *Owner*: any task of the log's executor; cheap to clone.
//! *Invariants*: calls take effect in the order in which they are made: what was accepted is seen
//! by the next call and stands in that order in the group's stream. *On failure*: a refused call
//! changes nothing and says why; once the log has stopped, every call that writes says so.

use crate::completion::Completion;
use crate::damage::Damage;
use crate::entry::{Entry, EntryRef, GroupState, LinkedEntry, Vote};
use crate::error::LogError;
use crate::group::{Front, Loss};
use crate::log::Handle;
use crate::placed::Placed;
use crate::reader;
use crate::reservation::Reservation;
use crate::state::NewEntry;
use ogee_proto::id::{CopysetId, LogId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Payload, seeded_bug};
use std::ops::Range;
use std::rc::Rc;

/// Handle of one group. The group exists once something was written to it.
#[derive(Clone)]
pub struct GroupLog {
    handle: Rc<Handle>,
    group: CopysetId,
}

/// Writing.
impl GroupLog {
    pub(crate) const fn new(handle: Rc<Handle>, group: CopysetId) -> Self {
        Self { handle, group }
    }

    /// Appends entries that follow the last one (any index, in a log without history).
    ///
    /// Returns at once; the entries are readable at once. `done` is called when all of them are
    /// durable, after the callbacks of everything appended to the group before, or with the reason
    /// why they never will be. A refusal (full, not consecutive, checksum wrong) calls `done`
    /// before this returns, and nothing was appended. Durable together or not at all only as far
    /// as one batch goes: after a crash a prefix may be there.
    pub fn append(&self, entries: Vec<Entry>, done: impl FnOnce(Result<(), LogError>) + 'static) {
        let inline = entries.into_iter().map(|entry| (entry, Vec::new()));
        self.append_placed(inline.collect(), done);
    }

    /// As [`append`](Self::append), with extents of the store for the payloads of some entries: each
    /// fills those given with it, in order, instead of room in the log. They are the log's from here
    /// on, also if it refuses the entries; it gives each back once no record names it.
    ///
    /// # Panics
    /// When the log has not been [attached](crate::Log::attach), or a payload does not fill its extents.
    pub fn append_placed(
        &self,
        entries: Vec<(Entry, Vec<ByteOffset>)>,
        done: impl FnOnce(Result<(), LogError>) + 'static,
    ) {
        let core = &self.handle.core;
        let entries: Vec<NewEntry> = {
            let state = core.state.borrow();
            let entries = entries.into_iter();
            entries
                .map(|(entry, places)| state.new_entry(entry, places))
                .collect()
        };
        let checked = core.state.borrow_mut().check_append(self.group, &entries);
        match checked {
            Ok(()) => {
                core.state
                    .borrow_mut()
                    .append(self.group, entries, Box::new(done));
                core.work.raise();
            }
            Err(error) => done(Err(error)),
        }
    }

    /// Promises room for entries of `cost` bytes (see [`Log::entry_cost`](crate::Log::entry_cost)),
    /// waiting for it if need be: everything that is on its way to the log together never exceeds
    /// what the log and its queue can take, nor what is of this group its share of the queue. Hold
    /// the reservation until the entries' outcome is known.
    ///
    /// # Errors
    /// When the log has stopped.
    pub async fn reserve(&self, cost: ByteLen) -> Result<Reservation, LogError> {
        Reservation::wait(&self.handle, self.group, cost).await
    }

    /// Saves the vote.
    pub fn save_vote(&self, vote: Vote) -> Completion {
        self.handle.core.accept(|state, done| {
            state.check_control(self.group)?;
            state.check_whole(self.group)?;
            state.save_vote(self.group, vote, done);
            Ok(())
        })
    }

    /// Notes the committed id. It joins the next batch, or is written after 10 ms without one; it
    /// is never durable before the entry that it names. Lost at a crash, without harm.
    pub fn save_committed(&self, committed: LogId) {
        let core = &self.handle.core;
        let mut state = core.state.borrow_mut();
        if state.check_control(self.group).is_ok() && state.check_whole(self.group).is_ok() {
            state.save_committed(self.group, committed);
            drop(state);
            core.work.raise();
        }
    }

    /// Writes the committed id now, unless it is on its way, and resolves when it is durable.
    pub fn committed_durable(&self) -> Completion {
        self.handle.core.accept(|state, done| {
            state.check_control(self.group)?;
            state.flush_committed(self.group, done);
            Ok(())
        })
    }

    /// Waits until entry `upto`, which was accepted, is durable.
    ///
    /// # Errors
    /// When it never will be, or the log has too much to do.
    pub async fn durable_upto(&self, upto: LogId) -> Result<(), LogError> {
        if self.durable_state().last >= Some(upto) {
            return Ok(());
        }
        let settled = self.handle.core.accept(|state, done| {
            state.check_control(self.group)?;
            state.barrier(self.group, done);
            Ok(())
        });
        settled.await
    }

    /// Drops the entries after `after` (all, for `None`). Those up to the purged id stay gone.
    pub fn truncate_after(&self, after: Option<LogIndex>) -> Completion {
        self.handle.core.accept(|state, done| {
            state.check_control(self.group)?;
            state.check_whole(self.group)?;
            let truncated = match state.front(self.group) {
                Some(front) => front.truncated(self.group, after)?,
                None => None,
            };
            match truncated {
                Some(last) => state.truncate(self.group, last, done),
                None => state.barrier(self.group, done),
            }
            Ok(())
        })
    }

    /// Drops the entries up to `upto`. Beyond the last entry (a snapshot was installed), the log
    /// continues after `upto`. Their space is free once the purge is durable.
    pub fn purge(&self, upto: LogId) -> Completion {
        self.handle.core.accept(|state, done| {
            state.check_control(self.group)?;
            state.purge(self.group, upto, done);
            Ok(())
        })
    }
}

/// Damage: what is lost, and putting it back.
impl GroupLog {
    /// What of this group's log is lost. While it is [`Damage::is_blocking`], nothing new is
    /// accepted but purges; so ask before the group is opened.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.handle.core.state.borrow().damage(self.group)
    }

    /// Waits until something is lost: a payload that a read found rotten, for instance.
    pub async fn damaged(&self) -> Damage {
        let core = &self.handle.core;
        loop {
            let noted = core.damage.notified();
            if let Some(damage) = self.damage() {
                return damage;
            }
            noted.await;
        }
    }

    /// Puts a lost entry back, and resolves when it is durable. `chain` is the identity of the entry
    /// before it, from the same replica. Going down, each entry names the one below it.
    ///
    /// Refused as `NoEntry` if it is not lost, as `WrongEntry` if it is not the one that is, or its
    /// identity is not known yet, as `Full` if there is no room.
    pub fn repair(&self, entry: &Entry, chain: u32) -> Completion {
        self.handle.core.accept(|state, done| {
            state.check_repair(self.group, entry, chain)?;
            state.repair(self.group, entry, chain, done);
            Ok(())
        })
    }

    /// Durable live entries of `range` for another replica to repair its log with: as many as
    /// `max_bytes` of head and payload allow, at least one if there is any, up to the first that is
    /// not durable or is lost here too.
    ///
    /// # Errors
    /// `Read` or `Corrupt` of the first entry concerned.
    pub async fn linked_entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: usize,
    ) -> Result<Vec<LinkedEntry>, LogError> {
        reader::linked(&self.handle.core, self.group, range, max_bytes).await
    }
}

/// Reading.
impl GroupLog {
    /// The group.
    #[must_use]
    pub const fn id(&self) -> CopysetId {
        self.group
    }

    /// Everything accepted.
    #[must_use]
    pub fn state(&self) -> GroupState {
        self.with_front(|front| front.facts.state())
            .unwrap_or_default()
    }

    /// What a crash right now would leave.
    #[must_use]
    pub fn durable_state(&self) -> GroupState {
        let state = self.handle.core.state.borrow();
        let group = state.groups.get(&self.group);
        group
            .map(|group| group.durable.facts.state())
            .unwrap_or_default()
    }

    /// Index of the first live entry.
    #[must_use]
    pub fn first_index(&self) -> Option<LogIndex> {
        self.with_front(|front| front.facts.live())
            .filter(|live| !live.is_empty())
            .map(|live| LogIndex::new(live.start))
    }

    /// The last entry's id; the purged one if no entry is left.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.state().last
    }

    /// Id of a live entry, or of the purged one.
    #[must_use]
    pub fn entry_id(&self, index: LogIndex) -> Option<LogId> {
        self.with_front(|front| {
            let purged = front.facts.purged.filter(|purged| purged.index == index);
            let is_lost = front.losses.get(&index.get()) == Some(&Loss::Entry);
            let entry = front.entry(index.get()).filter(|_| !is_lost);
            entry.map(|slot| slot.record.id).or(purged)
        })?
    }

    /// Bytes of heads and payloads of the live entries: for quotas.
    #[must_use]
    pub fn live_len(&self) -> ByteLen {
        ByteLen::new(self.with_front(|front| front.bytes).unwrap_or(0))
    }

    /// The same, of the entries from `index` on.
    #[must_use]
    pub fn live_len_from(&self, index: LogIndex) -> ByteLen {
        ByteLen::new(
            self.with_front(|front| front.bytes_from(index.get()))
                .unwrap_or(0),
        )
    }

    /// Live entries of `range`: as many as `max_bytes` of head and payload allow, at least one if
    /// there is any. Payloads that are not in memory are read from the device and verified.
    ///
    /// # Errors
    /// `Read` or `Corrupt` of the first entry concerned.
    pub async fn entries(
        &self,
        range: Range<LogIndex>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, LogError> {
        reader::entries(&self.handle.core, self.group, range, max_bytes).await
    }

    /// Live entries of `range` as [`entries`](Self::entries) would choose them, without waiting for a
    /// device: a payload that is not in memory is left out and can be had by
    /// [`payload`](Self::payload).
    #[must_use]
    pub fn peek(&self, range: Range<LogIndex>, max_bytes: usize) -> Vec<EntryRef> {
        self.with_front(|front| front.peek(range.start.get()..range.end.get(), max_bytes))
            .unwrap_or_default()
    }

    /// Where the payload of a live entry lies, if it is in extents of the store, and durable there. The
    /// log keeps them as long as the answer is kept.
    #[must_use]
    pub fn placed(&self, index: LogIndex) -> Option<Rc<Placed>> {
        self.with_front(|front| {
            let is_lost = front.losses.contains_key(&index.get());
            let slot = front.entry(index.get()).filter(|_| !is_lost)?;
            if !seeded_bug!("adopted-before-durable") {
                slot.durable_at?;
            }
            slot.record.placed.clone()
        })?
    }

    /// Part of one entry's payload. What is read is verified; that is all of it, or the blocks around
    /// the part if they have checksums of their own.
    ///
    /// # Errors
    /// `NoEntry` if the entry or the part is not there, `Read` or `Corrupt`.
    pub async fn payload(&self, index: LogIndex, part: Range<usize>) -> Result<Payload, LogError> {
        let core = &self.handle.core;
        if let Some(read) = reader::placed_part(core, self.group, index.get(), &part).await? {
            return Ok(read);
        }
        let found = reader::payload_of(core, self.group, index.get()).await?;
        let missing = LogError::NoEntry {
            group: self.group,
            index,
        };
        let (_, payload) = found.ok_or_else(|| missing.clone())?;
        slice(&payload, part).ok_or(missing)
    }

    /// Length of a live entry's payload.
    #[must_use]
    pub fn payload_len(&self, index: LogIndex) -> Option<usize> {
        self.with_front(|front| {
            let is_lost = front.losses.get(&index.get()) == Some(&Loss::Entry);
            let slot = front.entry(index.get()).filter(|_| !is_lost)?;
            Some(slot.record.payload_len as usize)
        })?
    }

    /// A live entry's whole payload and its CRC32C, if it is in memory.
    #[must_use]
    pub fn cached_whole(&self, index: LogIndex) -> Option<(Payload, u32)> {
        self.with_front(|front| {
            let slot = front.entry(index.get())?;
            let payload = slot.cached.clone()?;
            Some((payload, slot.record.payload_crc))
        })?
    }

    /// Part of one entry's payload, if it is in memory.
    #[must_use]
    pub fn cached_payload(&self, index: LogIndex, part: Range<usize>) -> Option<Payload> {
        self.with_front(|front| {
            front
                .entry(index.get())?
                .cached
                .as_ref()
                .and_then(|payload| slice(payload, part))
        })?
    }

    fn with_front<T>(&self, read: impl FnOnce(&Front) -> T) -> Option<T> {
        self.handle.core.state.borrow().front(self.group).map(read)
    }
}

fn slice(payload: &Payload, part: Range<usize>) -> Option<Payload> {
    let inside = part.start <= part.end && part.end <= payload.len();
    inside.then(|| payload.slice(part))
}
