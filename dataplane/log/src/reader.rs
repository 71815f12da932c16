//! Reading entries: from memory, else from the device, verified.
//!
//! *Place*: below [`GroupLog`](crate::GroupLog). *Owner*: the caller's task. *Invariants*: a slot
//! is pinned while it is read, so it is not overwritten under the read; no payload is returned
//! that does not match its checksum. *On failure*: `LogError::Read` or `LogError::Corrupt`, which
//! concern one group; the payload is then a loss of the group, and the log goes on.

use crate::core::Core;
use crate::entry::{Entry, LinkedEntry};
use crate::error::LogError;
use crate::group::Slot;
use crate::limit::READ_LEN_MAX;
use crate::placed::Placed;
use crate::state::State;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogIndex};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Payload, seeded_bug};
use std::ops::Range;
use std::rc::Rc;

/// Keeps a slot from being overwritten.
struct Pin {
    core: Rc<Core>,
    slot: usize,
}

impl Pin {
    fn new(core: &Rc<Core>, state: &mut State, at: ByteOffset) -> Self {
        let slot = state.segments.slot_of(at);
        state.segments.pin(slot);
        Self {
            core: Rc::clone(core),
            slot,
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.core.state.borrow_mut().segments.unpin(self.slot);
        self.core.work.raise();
    }
}

/// Entries without the payloads that are not in memory, and what must be read.
struct Collected {
    entries: Vec<Entry>,
    fetches: Vec<Fetch>,
    placed: Vec<PlacedFetch>,
}

/// A payload that must be read from extents of the store.
struct PlacedFetch {
    position: usize,
    placed: Rc<Placed>,
    serial: u64,
}

/// A payload that must be read.
struct Fetch {
    /// Position in the answer.
    position: usize,
    at: ByteOffset,
    len: usize,
    serial: u64,
    _pin: Pin,
}

/// Live entries of `range`, at most `max_bytes` of head and payload but at least one.
pub(crate) async fn entries(
    core: &Rc<Core>,
    group: CopysetId,
    range: Range<LogIndex>,
    max_bytes: usize,
) -> Result<Vec<Entry>, LogError> {
    let Collected {
        mut entries,
        fetches,
        placed,
    } = collect(core, group, &range, max_bytes)?;
    for fetch in placed {
        let entry = &mut entries[fetch.position];
        let (index, whole) = (entry.id.index, 0..fetch.placed.len());
        let at = (group, index, fetch.serial);
        entry.payload = read_placed(core, at, &fetch.placed, whole).await?;
    }
    for run in runs(&fetches) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        let len = last.at.get() + last.len as u64 - first.at.get();
        let read = core.device.read(first.at, ByteLen::new(len)).await.ok();
        for fetch in run {
            let start = ByteLen::new(fetch.at.get() - first.at.get()).as_usize();
            let entry = &mut entries[fetch.position];
            if let Some(read) = &read {
                entry.payload = Payload::from(read.slice(start..start + fetch.len));
            }
            if read.is_none() || !is_sound(entry) {
                look_again(core, group, entry, fetch).await?;
            }
        }
    }
    Ok(entries)
}

/// A part of a payload in extents of the store. If it is not there, the group is told.
async fn read_placed(
    core: &Rc<Core>,
    (group, index, serial): (CopysetId, LogIndex, u64),
    placed: &Placed,
    part: Range<usize>,
) -> Result<Payload, LogError> {
    let error = match placed.read_twice(core.data(), part).await {
        Ok(Some(payload)) => return Ok(payload),
        Ok(None) => LogError::Corrupt { group, index },
        Err((offset, source)) => LogError::Read { offset, source },
    };
    Err(lose(core, (group, index, serial), error))
}

/// Tells the group that a payload is lost.
fn lose(
    core: &Core,
    (group, index, serial): (CopysetId, LogIndex, u64),
    error: LogError,
) -> LogError {
    tracing::error!(%error, %group, %index, "the payload of an entry is lost");
    core.state
        .borrow_mut()
        .note_loss(group, index.get(), serial);
    core.damage.notify_all();
    error
}

/// Part of a live entry's payload, if it is to be read from extents of the store, where blocks have
/// checksums of their own; `None` if it is not.
pub(crate) async fn placed_part(
    core: &Rc<Core>,
    group: CopysetId,
    index: u64,
    part: &Range<usize>,
) -> Result<Option<Payload>, LogError> {
    let found = {
        let state = core.state.borrow();
        let front = state.front(group);
        let slot = front.and_then(|front| {
            let is_lost = front.losses.contains_key(&index);
            front.entry(index).filter(|_| !is_lost)
        });
        let slot = slot.filter(|slot| slot.cached.is_none());
        slot.and_then(|slot| Some((slot.record.placed.clone()?, slot.serial)))
    };
    let Some((placed, serial)) = found else {
        return Ok(None);
    };
    if part.start > part.end || part.end > placed.len() {
        return Ok(None);
    }
    core.state.borrow_mut().counters.cache_misses += 1;
    let at = (group, LogIndex::new(index), serial);
    read_placed(core, at, &placed, part.clone()).await.map(Some)
}

/// A payload that could not be read, or does not match, may only have been garbled on its way. If it
/// is so a second time, it is lost, and the group is told.
async fn look_again(
    core: &Rc<Core>,
    group: CopysetId,
    entry: &mut Entry,
    fetch: &Fetch,
) -> Result<(), LogError> {
    let index = entry.id.index;
    let read = core.device.read(fetch.at, ByteLen::from_usize(fetch.len));
    let error = match read.await {
        Ok(data) => {
            entry.payload = Payload::from(data);
            if is_sound(entry) {
                return Ok(());
            }
            LogError::Corrupt { group, index }
        }
        Err(source) => LogError::Read {
            offset: fetch.at,
            source,
        },
    };
    Err(lose(core, (group, index, fetch.serial), error))
}

/// Live entries of `range` that are durable and whole, up to the first that is not, each with the
/// identity of the one before it.
pub(crate) async fn linked(
    core: &Rc<Core>,
    group: CopysetId,
    range: Range<LogIndex>,
    max_bytes: usize,
) -> Result<Vec<LinkedEntry>, LogError> {
    let chains = {
        let state = core.state.borrow();
        state.durable_chains(group, range.start.get()..range.end.get())
    };
    let end = LogIndex::new(range.start.get() + chains.len() as u64);
    let entries = entries(core, group, range.start..end, max_bytes).await?;
    let first = range.start;
    let linked = entries.into_iter().filter_map(|entry| {
        let position = entry.id.index.get().checked_sub(first.get())?;
        let (identity, chain) = *chains.get(usize::try_from(position).ok()?)?;
        // Replaced while it was read, it may not be durable.
        let is_same = entry.identity(group) == identity;
        is_same.then_some(LinkedEntry { entry, chain })
    });
    Ok(linked.collect())
}

/// Serial and payload of one live entry; `None` if there is none.
pub(crate) async fn payload_of(
    core: &Rc<Core>,
    group: CopysetId,
    index: u64,
) -> Result<Option<(u64, Payload)>, LogError> {
    let serial = {
        let state = core.state.borrow();
        state
            .front(group)
            .and_then(|front| front.entry(index))
            .map(|slot| slot.serial)
    };
    let Some(serial) = serial else {
        return Ok(None);
    };
    let range = LogIndex::new(index)..LogIndex::new(index + 1);
    let mut entries = entries(core, group, range, 0).await?;
    Ok(entries.pop().map(|entry| (serial, entry.payload)))
}

/// The entries without the payloads that are not in memory, and what must be read.
fn collect(
    core: &Rc<Core>,
    group: CopysetId,
    range: &Range<LogIndex>,
    max_bytes: usize,
) -> Result<Collected, LogError> {
    let mut state = core.state.borrow_mut();
    let (mut entries, mut wanted, mut bytes) = (Vec::new(), Vec::new(), 0u64);
    let mut placed: Vec<PlacedFetch> = Vec::new();
    if let Some(front) = state.front(group) {
        let live = front.entries.range();
        let (start, end) = (
            range.start.get().max(live.start),
            range.end.get().min(live.end),
        );
        for slot in (start..end).map_while(|index| front.entry(index)) {
            bytes += slot.bytes();
            if !entries.is_empty() && bytes > max_bytes as u64 {
                break;
            }
            let index = slot.record.id.index;
            if front.losses.contains_key(&index.get()) {
                return Err(LogError::EntryLost { group, index });
            }
            let (entry, missing) = entry_of(slot);
            let len = slot.record.payload_len as usize;
            match (missing, &slot.record.placed) {
                (Some(_), Some(lies)) => placed.push(PlacedFetch {
                    position: entries.len(),
                    placed: Rc::clone(lies),
                    serial: slot.serial,
                }),
                (missing, _) => {
                    wanted.extend(missing.map(|at| (entries.len(), at, len, slot.serial)));
                }
            }
            entries.push(entry);
        }
    }
    let missed = wanted.len() + placed.len();
    state.counters.cache_misses += missed as u64;
    state.counters.cache_hits += (entries.len() - missed) as u64;
    let fetch = |(position, at, len, serial)| {
        let pin = Pin::new(core, &mut state, at);
        Fetch {
            position,
            at,
            len,
            serial,
            _pin: pin,
        }
    };
    let fetches = wanted.into_iter().map(fetch).collect();
    Ok(Collected {
        entries,
        fetches,
        placed,
    })
}

/// The entry, and where its payload must be read from if it is not in memory.
fn entry_of(slot: &Slot) -> (Entry, Option<ByteOffset>) {
    let missing = if slot.record.payload_len > 0 && slot.cached.is_none() {
        slot.durable_at
    } else {
        None
    };
    let entry = Entry {
        id: slot.record.id,
        kind: slot.record.kind,
        head: slot.record.head.clone(),
        payload: slot.cached.clone().unwrap_or_default(),
        payload_crc: slot.record.payload_crc,
    };
    (entry, missing)
}

/// Cuts `fetches` into runs that one read serves: in order, close together, not too long.
fn runs(fetches: &[Fetch]) -> impl Iterator<Item = &[Fetch]> {
    let mut rest = fetches;
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let mut count = 1;
        let mut end = first.at.get() + first.len as u64;
        while let Some(next) = rest.get(count) {
            let next_end = next.at.get() + next.len as u64;
            let fits = next.at.get() >= end && next_end - first.at.get() <= READ_LEN_MAX as u64;
            let near = next.at.get().saturating_sub(end) <= GAP_MAX;
            if !(fits && near) {
                break;
            }
            end = next_end;
            count += 1;
        }
        let (run, after) = rest.split_at(count);
        rest = after;
        Some(run)
    })
}

/// Bytes between two payloads that are cheaper to read than to skip: header areas of batches.
const GAP_MAX: u64 = 64 << 10;

fn is_sound(entry: &Entry) -> bool {
    crc32c(&entry.payload) == entry.payload_crc || seeded_bug!("log-payload-not-verified")
}
