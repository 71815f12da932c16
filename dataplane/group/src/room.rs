//! What the log has promised to the store: extents and map pages that acknowledged writes will take
//! when they are written back.
//!
//! *Place*: apply promises, the keeper settles, admission asks whether new data still fits.
//! *Owner*: [`Room`] per store, [`Promises`] per group; one shard.
//! *Invariants*: entries are let into the log only while every promise of the store, those of requests
//! and entries under way included, fits what is free. So write-back of what was let in finds its room,
//! the log can always be emptied, and no group waits for another one's data. A leader proposes new data
//! only while its own store and a quorum's (`space`) have room beside a reserve; a follower takes what
//! was proposed until three quarters of that reserve are gone. What a leader admitted on word that was
//! a moment old finds its place there, so that discards and removals, which come behind it in the log,
//! go on when the stores are full.
//! *On failure*: what does not fit is refused before the log has it.

use crate::limit::{MAP_PAGES_RESERVE, RESERVE_LAST_SHARE, ROOM_SHARE_MIN, STORE_RESERVE_MAX};
use crate::overlay::Overlay;
use ogee_proto::id::ChunkKey;
use ogee_proto::limit::{BLOCKS_PER_EXTENT, EXTENT_SIZE};
use ogee_proto::unit::{BlockIndex, ByteLen};
use ogee_runtime::seeded_bug;
use ogee_store::{Store, StoreUsage};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Extents and map pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) extents: usize,
    pub(crate) map_pages: usize,
}

impl Amount {
    const fn plus(self, more: Self) -> Self {
        Self {
            extents: self.extents + more.extents,
            map_pages: self.map_pages + more.map_pages,
        }
    }

    const fn less(self, less: Self) -> Self {
        Self {
            extents: self.extents - less.extents,
            map_pages: self.map_pages - less.map_pages,
        }
    }
}

/// The promises of all groups of one store.
#[derive(Debug, Default)]
pub(crate) struct Room {
    promised: Cell<Amount>,
    /// New data has been refused since this was asked last.
    refused: Cell<bool>,
    /// There was no room for new data, and has not been much since.
    full: Cell<bool>,
    /// Groups that share it.
    groups: Cell<usize>,
}

/// How much of the reserve is left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reserve {
    /// All of it: for what a leader lets in.
    Whole,
    /// A quarter: for what another leader has let in, and for copies.
    Last,
}

impl Reserve {
    fn extents(self, usage: &StoreUsage) -> usize {
        let reserve = (usage.capacity.get() / 16).min(STORE_RESERVE_MAX);
        let whole = extents_in(ByteLen::new(reserve));
        match self {
            Self::Whole => whole,
            Self::Last => whole / RESERVE_LAST_SHARE,
        }
    }

    const fn map_pages(self) -> usize {
        match self {
            Self::Whole => MAP_PAGES_RESERVE,
            Self::Last => MAP_PAGES_RESERVE / RESERVE_LAST_SHARE,
        }
    }
}

/// How many extents so many bytes are.
pub(crate) fn extents_in(bytes: ByteLen) -> usize {
    usize::try_from(bytes.get() / EXTENT_SIZE as u64).unwrap_or(usize::MAX)
}

impl Room {
    /// What is promised now.
    #[cfg(test)]
    pub(crate) fn promised(&self) -> Amount {
        self.promised.get()
    }

    /// Whether new data may be let in by a leader: thin volumes can promise more than there is.
    pub(crate) fn has_space(&self, store: &Store) -> bool {
        self.note(store) > 0
    }

    /// Whether new data that another leader has let in may be taken, its claim included.
    pub(crate) fn takes(&self, store: &Store) -> bool {
        let fits = self.fits(&store.usage(), Reserve::Last);
        if !fits {
            self.note(store);
        }
        fits
    }

    /// Extents of new data that one of the groups may be let in, as their leaders are told: each gets
    /// its share, so that all of them together are not let in more than there is.
    pub(crate) fn share(&self, store: &Store) -> u32 {
        u32::try_from(self.share_of(self.note(store))).unwrap_or(u32::MAX)
    }

    fn share_of(&self, left: usize) -> usize {
        left / self.groups.get().max(1)
    }

    /// Whether a group's share of what is left may be too small for a single request.
    fn is_short(&self, left: usize) -> bool {
        self.share_of(left) < ROOM_SHARE_MIN
    }

    /// Takes note of how much room there is, has the keeper make some if there is too little, and
    /// returns it. It is said again only when there is so much that a few requests do not change it.
    fn note(&self, store: &Store) -> usize {
        let usage = store.usage();
        let left = self.left(&usage, Reserve::Whole);
        let (id, free, promised) = (store.id(), usage.free, self.promised.get());
        if self.is_short(left) {
            self.refused.set(true);
            if !self.full.replace(true) {
                tracing::warn!(store = %id, %free, promised = promised.extents, pages_free = usage.map_pages_free,
                    "the store is full: new data waits until volumes or parts of them are removed");
            }
        } else if left > Reserve::Last.extents(&usage)
            && !self.is_short(left / 2)
            && self.full.replace(false)
        {
            tracing::info!(store = %id, %free, "the store has room again");
        }
        left
    }

    /// Whether `count` extents more can be taken, for data on its way, without taking what is promised.
    pub(crate) fn leaves_promised(&self, store: &Store, count: u32) -> bool {
        let extents = self.promised.get().extents as u64 + u64::from(count);
        store.usage().free.get() > extents * EXTENT_SIZE as u64
    }

    /// Extents that a group may take which gives up what was promised to itself, `own`: all but the
    /// last of the reserve, and what is promised to others.
    pub(crate) fn left_without(&self, store: &Store, own: Amount) -> usize {
        let usage = store.usage();
        let others = self.promised.get().extents.saturating_sub(own.extents);
        extents_in(usage.free).saturating_sub(others + Reserve::Last.extents(&usage))
    }

    /// Whether the store has no room for new data, as of the last time and now.
    pub(crate) fn is_full(&self, store: &Store) -> bool {
        self.full.get() && self.is_short(self.left(&store.usage(), Reserve::Whole))
    }

    /// What is promised and must be left over.
    fn counted(&self) -> Amount {
        match seeded_bug!("admitted-without-counting") {
            false => self.promised.get(),
            true => Amount::default(),
        }
    }

    /// Extents that can be promised, as long as each needs at most one map page.
    fn left(&self, usage: &StoreUsage, reserve: Reserve) -> usize {
        let promised = self.counted();
        let extents = extents_in(usage.free);
        let map_pages = usage.map_pages_free as usize;
        let extents = extents.saturating_sub(promised.extents + reserve.extents(usage));
        extents.min(map_pages.saturating_sub(promised.map_pages + reserve.map_pages()))
    }

    fn fits(&self, usage: &StoreUsage, reserve: Reserve) -> bool {
        let promised = self.counted();
        extents_in(usage.free) >= promised.extents + reserve.extents(usage)
            && usage.map_pages_free as usize >= promised.map_pages + reserve.map_pages()
    }

    /// Whether new data has been refused since the last call.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.take()
    }

    fn add(&self, more: Amount) {
        self.promised.set(self.promised.get().plus(more));
    }

    /// One group less, with its promises.
    fn leave(&self, amount: Amount) {
        self.take(amount);
        self.groups.set(self.groups.get().saturating_sub(1));
    }

    fn take(&self, less: Amount) {
        self.promised.set(self.promised.get().less(less));
    }
}

/// A request or an entry under way: what it would take.
pub(crate) struct Claim {
    room: Rc<Room>,
    /// What its group has under way.
    claimed: Rc<Cell<Amount>>,
    amount: Amount,
}

impl Claim {
    /// Whether all that it writes has its place already.
    pub(crate) fn is_empty(&self) -> bool {
        self.amount == Amount::default()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.room.take(self.amount);
        self.claimed.set(self.claimed.get().less(self.amount));
    }
}

/// The promises of one group.
#[derive(Default)]
pub(crate) struct Promises {
    room: RefCell<Rc<Room>>,
    places: RefCell<Places>,
    /// Of requests and entries under way.
    claimed: Rc<Cell<Amount>>,
}

/// What a set of blocks lacks in the store: positions of extents and map pages in their chunks.
#[derive(Default)]
struct Places {
    extents: BTreeSet<(ChunkKey, u16)>,
    map_pages: BTreeSet<(ChunkKey, u8)>,
}

impl Places {
    fn amount(&self) -> Amount {
        Amount {
            extents: self.extents.len(),
            map_pages: self.map_pages.len(),
        }
    }

    fn note(&mut self, store: &Store, key: ChunkKey, block: BlockIndex) {
        let lacks = store.lacks(key, block);
        self.extents.extend(lacks.extent.map(|at| (key, at)));
        self.map_pages.extend(lacks.map_page.map(|at| (key, at)));
    }

    fn note_all(&mut self, store: &Store, key: ChunkKey, first: usize, count: usize) {
        extents(first, count).for_each(|block| self.note(store, key, block));
    }
}

/// A block of each extent of a range.
fn extents(first: usize, count: usize) -> impl Iterator<Item = BlockIndex> {
    let extents = first / BLOCKS_PER_EXTENT..(first + count).div_ceil(BLOCKS_PER_EXTENT);
    extents.filter_map(|extent| BlockIndex::new(extent * BLOCKS_PER_EXTENT))
}

impl Promises {
    /// Counts with the other groups of the store from now on.
    pub(crate) fn join(&self, room: Rc<Room>) {
        let amount = self.places.borrow().amount();
        room.add(amount);
        room.groups.set(room.groups.get() + 1);
        self.room.replace(room).leave(amount);
    }

    /// The store's account.
    pub(crate) fn room(&self) -> Rc<Room> {
        Rc::clone(&self.room.borrow())
    }

    /// Counts what a write of `count` blocks from `first` would take, until the claim is dropped.
    pub(crate) fn claim(&self, store: &Store, key: ChunkKey, first: usize, count: usize) -> Claim {
        let (mut amount, mut newest_page) = (Amount::default(), None);
        for block in extents(first, count) {
            let lacks = store.lacks(key, block);
            amount.extents += usize::from(lacks.extent.is_some());
            let is_new = lacks.map_page.is_some() && lacks.map_page != newest_page;
            amount.map_pages += usize::from(is_new);
            newest_page = lacks.map_page;
        }
        let (room, claimed) = (self.room(), Rc::clone(&self.claimed));
        room.add(amount);
        claimed.set(claimed.get().plus(amount));
        Claim {
            room,
            claimed,
            amount,
        }
    }

    /// What is claimed for requests and entries under way.
    pub(crate) fn claimed(&self) -> Amount {
        self.claimed.get()
    }

    /// What applied writes were promised, and those under way claim.
    pub(crate) fn own(&self) -> Amount {
        self.places.borrow().amount().plus(self.claimed.get())
    }

    /// Extents promised to applied writes.
    pub(crate) fn extents(&self) -> usize {
        self.places.borrow().extents.len()
    }

    /// A write has been applied.
    pub(crate) fn promise(&self, store: &Store, key: ChunkKey, first: usize, count: usize) {
        self.change(|places| places.note_all(store, key, first, count));
    }

    /// Blocks were written back: what the store allocated for them is promised no longer.
    pub(crate) fn kept(&self, store: &Store, blocks: impl Iterator<Item = (ChunkKey, BlockIndex)>) {
        self.change(|places| {
            for (key, block) in blocks {
                let lacks = store.lacks(key, block);
                let extent = block.as_usize() / BLOCKS_PER_EXTENT;
                if lacks.extent.is_none()
                    && let Ok(extent) = u16::try_from(extent)
                {
                    places.extents.remove(&(key, extent));
                }
                if lacks.map_page.is_none() {
                    places.map_pages.remove(&(key, Store::map_page_of(block)));
                }
            }
        });
    }

    /// Write-back has given the store what it could: what is left in the overlay is promised.
    /// `placed` says whether an entry's data has its extents already.
    pub(crate) fn settle(&self, store: &Store, overlay: &Overlay, placed: impl Fn(u64) -> bool) {
        let mut newest = (0, false);
        self.change(|places| {
            *places = Places::default();
            for (key, block, index) in overlay.data_blocks() {
                if newest.0 != index {
                    newest = (index, placed(index));
                }
                if !newest.1 {
                    places.note(store, key, block);
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Places)) {
        let mut places = self.places.borrow_mut();
        let before = places.amount();
        change(&mut places);
        let room = self.room.borrow();
        room.add(places.amount());
        room.take(before);
    }
}

impl Drop for Promises {
    fn drop(&mut self) {
        let amount = self.places.borrow().amount();
        self.room.borrow().leave(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{CommandHead, CommandKind};
    use crate::fixture::{Lone, run};
    use crate::group::command;
    use crate::limit::ROOM_CYCLE_GAP;
    use ogee_proto::checksum::crc32c;
    use ogee_proto::id::{ChunkIndex, ClientId, Epoch, Incarnation, Sequence, VolumeId};
    use ogee_proto::wire::Status;
    use ogee_runtime::Payload;

    fn key(chunk: u32) -> ChunkKey {
        ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(chunk),
        }
    }

    fn head(kind: CommandKind, sequence: u64, extent: u32) -> CommandHead {
        CommandHead {
            kind,
            key: key(extent / 256),
            offset: extent % 256 * (64 << 10),
            length: 4096,
            client: ClientId::new(1),
            epoch: Epoch::new(1),
            incarnation: Incarnation::new(1),
            sequence: Sequence::new(sequence),
            watermark: Sequence::new(sequence.saturating_sub(1)),
        }
    }

    async fn mutate(lone: &Lone, kind: CommandKind, sequence: u64, extent: u32) -> Status {
        let data = match kind {
            CommandKind::Write => Payload::from(vec![1; 4096]),
            _ => Payload::empty(),
        };
        let crc = crc32c(&data);
        let written = lone
            .group
            .mutate(command(head(kind, sequence, extent), data, crc));
        written.await.status
    }

    /// Writes a block to one extent after the other until one is refused for good; how many were
    /// not. What write-back is moving counts twice, so a refusal counts when it has ended.
    async fn fill(lone: &Lone, first: u32) -> u32 {
        let (mut extent, mut settled) = (first, false);
        loop {
            match mutate(lone, CommandKind::Write, u64::from(extent) + 1, extent).await {
                Status::Ok => (extent, settled) = (extent + 1, false),
                refused => {
                    assert_eq!(refused, Status::NoSpace);
                    if settled {
                        return extent - first;
                    }
                    settled = lone.keeper.checkpoint_now().await;
                }
            }
        }
    }

    #[test]
    fn a_full_store_keeps_what_it_acknowledged_and_takes_more_when_some_is_discarded() {
        run(async {
            let lone = Lone::start().await;
            assert_eq!(mutate(&lone, CommandKind::Seal, 0, 0).await, Status::Ok);
            let store = &lone.group.replica().store;
            let extents = store.capacity().get() / EXTENT_SIZE as u64;
            let filled = fill(&lone, 0).await;
            // All but the reserve.
            assert!(
                u64::from(filled) > extents * 9 / 10,
                "{filled} of {extents}"
            );
            assert!(u64::from(filled) < extents);
            assert!(lone.keeper.checkpoint_now().await);
            assert_eq!(lone.group.overlay_blocks(), 0);
            assert!(lone.keeper.failure().is_none());
            assert_eq!(fill(&lone, filled).await, 0);
            // Discards pass, and what they free is let in again without anybody asking for it.
            let next = u64::from(filled) + 1;
            for (sequence, extent) in (next..).zip(0..100) {
                let discarded = mutate(&lone, CommandKind::Discard, sequence, extent).await;
                assert_eq!(discarded, Status::Ok);
            }
            let first = filled + 100;
            while mutate(&lone, CommandKind::Write, u64::from(first) + 1, first).await != Status::Ok
            {
                ogee_runtime::sleep(ROOM_CYCLE_GAP / 4).await;
            }
            assert_eq!(fill(&lone, first + 1).await, 99);
        });
    }

    #[test]
    fn an_extent_is_promised_once_and_settled_by_what_is_left() {
        run(async {
            let lone = Lone::start().await;
            let (store, promises) = (&lone.group.replica().store, Promises::default());
            let room = Rc::new(Room::default());
            promises.join(Rc::clone(&room));
            let amount = |extents, map_pages| Amount { extents, map_pages };
            promises.promise(store, key(0), 0, 17);
            promises.promise(store, key(0), 3, 4);
            assert_eq!(room.promised(), amount(2, 1));
            let claim = promises.claim(store, key(1), 15, 2);
            assert_eq!(room.promised(), amount(4, 2));
            drop(claim);
            let mut overlay = Overlay::default();
            overlay.insert(key(0), 0, 1, 1, false);
            overlay.insert(key(0), 40, 1, 2, true);
            promises.settle(store, &overlay, |_| false);
            assert_eq!(room.promised(), amount(1, 1));
            let other = Rc::new(Room::default());
            promises.join(Rc::clone(&other));
            assert_eq!(
                (room.promised(), other.promised()),
                (amount(0, 0), amount(1, 1))
            );
            drop(promises);
            assert_eq!(other.promised(), amount(0, 0));
        });
    }
}
