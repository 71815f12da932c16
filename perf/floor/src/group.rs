//! One group's replica: what is appended, durable and applied.
//!
//! *Owner*: the shard; changed by plain calls only. *Invariants*: entries apply in order; the leader
//! applies what two replicas have durable, a follower what it has durable itself.

use crate::disk::Disk;
use crate::error::FloorError;
use crate::index::Index;
use crate::limit::{NODES, QUORUM};
use crate::recover::Heard;
use crate::wire::Place;
use bytes::Bytes;
use ogee_log::{Entry, GroupLog, LogError};
use ogee_proto::id::{CopysetId, LogId, LogIndex, Term};
use ogee_proto::wire::{FrameHeader, Status};
use ogee_runtime::Payload;
use ogee_transport::{Frame, Peer};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// All entries are of one term: nobody was ever elected.
const TERM: Term = Term::new(1);
/// The log's word for what an entry is.
const KIND: u8 = 1;

/// One group's replica.
pub(crate) struct Group {
    pub(crate) id: CopysetId,
    pub(crate) log: GroupLog,
    /// The process that leads it.
    pub(crate) leader: usize,
    /// What is in the log only, of the entries that are applied.
    pub(crate) index: RefCell<Index>,
    /// The last entry that the store holds, durably.
    pub(crate) checkpoint: Cell<u64>,
    /// The last entry that all replicas have durable, as far as it is known here.
    pub(crate) everywhere: Cell<u64>,
    /// On the leader, once it has all that any follower has.
    pub(crate) is_serving: Cell<bool>,
    me: usize,
    applied: Cell<u64>,
    /// On the leader: the last entry that each replica has durable.
    durable: Cell<[u64; NODES]>,
    /// On the leader: what followers had when they connected.
    heard: Cell<Heard>,
    /// Appended and not applied.
    pending: RefCell<VecDeque<Pending>>,
}

/// An entry to append.
pub(crate) struct New {
    pub(crate) place: Place,
    pub(crate) blocks: usize,
    pub(crate) head: Bytes,
    pub(crate) crc: u32,
    pub(crate) payload: Payload,
    /// Who waits for it.
    pub(crate) client: Option<(Peer, FrameHeader)>,
}

struct Pending {
    index: u64,
    place: Place,
    blocks: usize,
    client: Option<(Peer, FrameHeader)>,
}

impl Group {
    /// Loads what store and log have of it.
    pub(crate) fn load(
        id: CopysetId,
        disk: &Disk,
        me: usize,
        leader: usize,
    ) -> Result<Self, FloorError> {
        let log = disk.log.group(id);
        if log.damage().is_some() {
            return Err(FloorError::Damaged(id));
        }
        let saved = disk.store.group(id).map(|saved| saved.applied.index.get());
        let checkpoint = saved.unwrap_or(0);
        let last = log.last().map_or(0, |last| last.index.get());
        let group = Self {
            id,
            log,
            leader,
            index: RefCell::default(),
            checkpoint: Cell::new(checkpoint),
            everywhere: Cell::new(0),
            is_serving: Cell::new(false),
            me,
            applied: Cell::new(last),
            durable: Cell::new([0; NODES]),
            heard: Cell::default(),
            pending: RefCell::default(),
        };
        for entry in group.log.peek(indexes(checkpoint + 1, last), usize::MAX) {
            let index = entry.id.index.get();
            let place = Place::decode(&entry.head, entry.payload_len as usize);
            let (place, blocks) = place.map_err(|_| FloorError::Foreign { group: id, index })?;
            let mut known = group.index.borrow_mut();
            known.insert(place.key, place.first, blocks, index);
        }
        if group.is_led() {
            group.stored(me, last);
        }
        Ok(group)
    }

    /// Whether this process leads it.
    pub(crate) const fn is_led(&self) -> bool {
        self.leader == self.me
    }

    /// The last entry appended.
    pub(crate) fn last(&self) -> u64 {
        self.log.last().map_or(0, |last| last.index.get())
    }

    /// The last entry that is durable here.
    pub(crate) fn last_durable(&self) -> u64 {
        let last = self.log.durable_state().last;
        last.map_or(0, |last| last.index.get())
    }

    /// The last entry applied.
    pub(crate) const fn applied(&self) -> u64 {
        self.applied.get()
    }

    /// Appends; `done` hears once all of it is durable here.
    pub(crate) fn append(
        self: &Rc<Self>,
        new: Vec<New>,
        done: impl FnOnce(Result<(), LogError>) + 'static,
    ) {
        let mut index = self.last();
        let mut entries = Vec::with_capacity(new.len());
        for new in new {
            index += 1;
            entries.push(Entry {
                id: log_id(index),
                kind: KIND,
                head: new.head,
                payload: new.payload,
                payload_crc: new.crc,
            });
            self.pending.borrow_mut().push_back(Pending {
                index,
                place: new.place,
                blocks: new.blocks,
                client: new.client,
            });
        }
        let group = self.clone();
        self.log.append(entries, move |result| {
            if result.is_ok() {
                match group.is_led() {
                    true => group.stored(group.me, index),
                    false => group.settle(index),
                }
            }
            done(result);
        });
    }

    /// On the leader: a replica has everything up to `index` durable.
    pub(crate) fn stored(&self, node: usize, index: u64) {
        let mut durable = self.durable.get();
        if let Some(known) = durable.get_mut(node) {
            *known = index.max(*known);
        }
        self.durable.set(durable);
        durable.sort_unstable();
        self.everywhere.set(durable[0]);
        self.settle(durable[NODES - QUORUM]);
    }

    /// On the leader: a follower had everything up to `last` when it connected. Whether all have said so.
    pub(crate) fn heard_from(&self, node: usize, last: u64) -> bool {
        let mut heard = self.heard.get();
        let is_complete = heard.note(node, last, self.me);
        self.heard.set(heard);
        is_complete
    }

    /// On the leader: who has more than it has itself, and how much.
    pub(crate) fn longer(&self) -> Option<(usize, u64)> {
        self.heard.get().longer_than(self.last())
    }

    /// Applies everything up to `index`, and answers who waits for it.
    fn settle(&self, index: u64) {
        let mut pending = self.pending.borrow_mut();
        let mut known = self.index.borrow_mut();
        while let Some(first) = pending.pop_front_if(|first| first.index <= index) {
            let Place { key, first: block } = first.place;
            known.insert(key, block, first.blocks, first.index);
            self.applied.set(first.index);
            if let Some((peer, header)) = first.client {
                answer(&peer, Frame::new(FrameHeader::reply(&header, Status::Ok)));
            }
        }
    }
}

/// The range from `first` to `last`, both included.
pub(crate) const fn indexes(first: u64, last: u64) -> std::ops::Range<LogIndex> {
    LogIndex::new(first)..LogIndex::new(last + 1)
}

pub(crate) const fn log_id(index: u64) -> LogId {
    LogId {
        term: TERM,
        index: LogIndex::new(index),
    }
}

/// Answers; a peer that is gone needs no answer.
pub(crate) fn answer(peer: &Peer, frame: Frame) {
    if let Err(error) = peer.reply(frame) {
        tracing::debug!(peer = %peer.id(), %error, "an answer found no peer");
    }
}
