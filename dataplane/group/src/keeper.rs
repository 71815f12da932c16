//! The write-back task of one store: moves committed blocks from the log to their extents, makes
//! checkpoints, and lets the log go.
//!
//! *Place*: above log and store, beside the groups; nothing waits for it but a full log.
//! *Owner*: one task per store.
//! *Invariants*: a checkpoint D is made only after every block written at or before D has been
//! written back or superseded by a newer entry that the log keeps; nothing is written back that is not
//! durable in this replica's log; a log is purged only up to a durable D (DESIGN 4.5, 4.6).
//! *On failure*: a device error ends the task for good and is reported once: the store's groups
//! stop acknowledging, because their log can no longer be freed.
//!
//! Lazy on purpose: on a device with a volatile cache every durable log write also pays for the
//! unsynced data in that cache, so data goes out in sorted bursts, paced by how full the log is.

use crate::burst::{Burst, bursts};
use crate::error::GroupError;
use crate::group::Group;
use crate::limit::{OVERLAY_BLOCKS_START, ROOM_CYCLE_GAP, WRITE_BACK_INFLIGHT};
use crate::looks::next_look;
use crate::overlay::DirtyBlock;
use crate::pacer::Pacer;
use crate::replica::{Cut, Replica};
use crate::room::Room;
use futures_util::stream::{self, StreamExt};
use ogee_log::{Log, LogUsage};
use ogee_proto::id::CopysetId;
use ogee_proto::limit::BLOCKS_PER_EXTENT;
use ogee_proto::unit::ByteLen;
use ogee_runtime::channel::{Notify, Permit, Semaphore, oneshot};
use ogee_runtime::{Instant, seeded_bug};
use ogee_store::Store;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// Log fill, in percent, at which a cycle starts by itself.
///
/// Low enough that what a cycle reads back is still in the log's cache, and that a cycle is over
/// before its writers have filled the rest.
const START_PERCENT: u64 = 20;
/// Log fill at which a cycle stops pausing between bursts.
const HURRY_PERCENT: u64 = 35;
/// Log fill that writers may have reached at the end of a cycle: they are paced to that.
const PACED_PERCENT: u64 = 75;
/// What they may add during one. What a cycle leaves behind is what the next one begins with: with all of the room, each
/// second cycle would begin with hardly any.
const ADDED_PERCENT: u64 = PACED_PERCENT / 2;
/// Where a cycle began with more than it should have, they may have half of what is left up to this.
const OVER_PERCENT: u64 = 95;
/// A cycle starts after this time if anything was written: bounds the replay after a restart.
const IDLE_CYCLE: Duration = Duration::from_secs(30);
/// How often the fill is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The same while it grows: a cycle that begins late begins with less room for its writers.
const LOOK_BUSY: Duration = Duration::from_millis(20);

/// [`IDLE_CYCLE`]; in the simulator, whose runs are short, less, and another time for each process.
fn idle_cycle() -> Duration {
    if cfg!(ogee_sim) {
        let doublings = ogee_runtime::random_u64() % 7;
        return Duration::from_millis(125 << doublings);
    }
    IDLE_CYCLE
}

/// What the keeper has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeeperMetrics {
    /// Checkpoints made durable.
    pub checkpoints: u64,
    /// Blocks written back.
    pub blocks_written: u64,
    /// Blocks whose extent changed hands: large writes, which went there in the first place.
    pub blocks_adopted: u64,
    /// Blocks that a newer write made needless to write.
    pub blocks_superseded: u64,
}

/// Handle of a store's write-back task.
#[derive(Clone)]
pub struct StoreKeeper {
    inner: Rc<Inner>,
}

struct Inner {
    store: Store,
    log: Log,
    groups: RefCell<BTreeMap<CopysetId, Group>>,
    asked: RefCell<Vec<oneshot::Sender<bool>>>,
    wake: Notify,
    stopping: Cell<bool>,
    failed: RefCell<Option<Rc<GroupError>>>,
    metrics: Cell<KeeperMetrics>,
    pacer: Rc<Pacer>,
    room: Rc<Room>,
    /// The end of one copy at a time: it needs most of the log.
    last_pass: Semaphore,
    /// What was used of the log since the last cycle at the least.
    used_least: Cell<u64>,
    /// How long checkpoints take, about.
    checkpoint_took: Cell<Duration>,
}

/// A group's way to the task, which does not keep it alive.
#[derive(Clone, Default)]
pub(crate) struct KeeperLink(Weak<Inner>);

impl KeeperLink {
    /// See [`StoreKeeper::checkpoint_now`].
    pub(crate) async fn checkpoint_now(&self) -> bool {
        match self.0.upgrade() {
            Some(inner) => StoreKeeper { inner }.checkpoint_now().await,
            None => false,
        }
    }

    /// Waits for the turn of a copy's end; `None` when nobody keeps the store any more.
    pub(crate) async fn last_pass(&self) -> Option<Permit> {
        let turns = self.0.upgrade()?.last_pass.clone();
        Some(turns.acquire(1).await)
    }
}

impl StoreKeeper {
    /// Starts the task, before any group of the store is opened: it brings log and store together,
    /// which must know what extents the log's records name before it gives any away.
    ///
    /// If they do not fit together, the task has [failed](Self::failure), and no group can be opened.
    #[must_use]
    pub fn start(store: Store, log: Log) -> Self {
        let failed = hand_over_pins(&store, &log).err().map(Rc::new);
        let inner = Rc::new(Inner {
            store,
            log,
            groups: RefCell::default(),
            asked: RefCell::default(),
            wake: Notify::new(),
            stopping: Cell::new(false),
            failed: RefCell::new(failed),
            metrics: Cell::default(),
            pacer: Rc::default(),
            room: Rc::default(),
            last_pass: Semaphore::new(1),
            used_least: Cell::new(0),
            checkpoint_took: Cell::default(),
        });
        let task = inner.clone();
        drop(ogee_runtime::spawn(async move { task.run().await }));
        Self { inner }
    }

    /// Takes a group into care.
    pub fn add(&self, group: Group) {
        let link = KeeperLink(Rc::downgrade(&self.inner));
        group.replica().kept_by(link, self.inner.pacer.clone());
        group.replica().shares(self.inner.room.clone());
        self.inner
            .groups
            .borrow_mut()
            .insert(group.copyset(), group);
    }

    /// Lets a group go.
    pub fn remove(&self, copyset: CopysetId) {
        self.inner.groups.borrow_mut().remove(&copyset);
    }

    /// Runs a cycle now and waits for its end; `false` if it could not be done.
    pub async fn checkpoint_now(&self) -> bool {
        if self.inner.has_ended() {
            return false;
        }
        let (sender, receiver) = oneshot::channel();
        self.inner.asked.borrow_mut().push(sender);
        self.inner.wake.notify_all();
        receiver.await.unwrap_or(false)
    }

    /// Ends the task after the cycle under way.
    pub fn stop(&self) {
        self.inner.stopping.set(true);
        self.inner.wake.notify_all();
    }

    /// Whether the store refuses new data for want of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.inner.room.is_full(&self.inner.store)
    }

    /// The error that ended the task, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<Rc<GroupError>> {
        self.inner.failed.borrow().clone()
    }

    /// What has been done so far.
    #[must_use]
    pub fn metrics(&self) -> KeeperMetrics {
        self.inner.metrics.get()
    }
}

impl Inner {
    async fn run(&self) {
        let (mut idle, mut since_end) = (Duration::ZERO, Duration::ZERO);
        let mut seen = ByteLen::ZERO;
        let idle_max = idle_cycle();
        while !self.has_ended() {
            let woken = self.wake.notified();
            let used = self.log.usage().used;
            let look = if used == seen { LOOK } else { LOOK_BUSY };
            seen = used;
            if self.asked.borrow().is_empty()
                && ogee_runtime::timeout_at(next_look(look), woken)
                    .await
                    .is_err()
            {
                idle += look;
                since_end += look;
            }
            let asked = std::mem::take(&mut *self.asked.borrow_mut());
            let wanted = since_end >= ROOM_CYCLE_GAP && self.room.take_refused();
            let due = self.is_due() || wanted || idle >= idle_max;
            if asked.is_empty() && !due {
                continue;
            }
            let done = self.cycle(wanted || !asked.is_empty()).await;
            (idle, since_end) = (Duration::ZERO, Duration::ZERO);
            self.used_least.set(self.log.usage().used.get());
            self.pacer.release();
            for waiter in asked {
                // A waiter that gave up is none of our business.
                let _ = waiter.send(done.is_ok());
            }
            if let Err(error) = done {
                tracing::error!(store = %self.store.id(), %error, "write-back has failed");
                *self.failed.borrow_mut() = Some(Rc::new(error));
            }
        }
        // Who asked too late learns it by the end of the channel.
        self.asked.borrow_mut().clear();
    }

    /// Whether the log or the index of what is only in it has grown enough. What is kept for a copy
    /// goes at no cycle's end.
    fn is_due(&self) -> bool {
        let groups = self.groups.borrow();
        let blocks: usize = groups.values().map(Group::overlay_blocks).sum();
        let usage = self.log.usage();
        self.used_least
            .set(self.used_least.get().min(usage.used.get()));
        let kept = match groups.values().any(|group| group.replica().is_log_kept()) {
            true => self.used_least.get(),
            false => 0,
        };
        let grown = (usage.used.get() - kept) * 100 / usage.capacity.get().max(1);
        grown >= START_PERCENT || blocks >= OVERLAY_BLOCKS_START
    }

    fn has_ended(&self) -> bool {
        self.stopping.get() || self.failed.borrow().is_some()
    }

    fn fill_percent(&self) -> u64 {
        let usage = self.log.usage();
        usage.used.get() * 100 / usage.capacity.get().max(1)
    }

    async fn cycle(&self, hurry: bool) -> Result<(), GroupError> {
        let groups: Vec<Group> = self.groups.borrow().values().cloned().collect();
        let cuts: Vec<Cut> = groups
            .iter()
            .filter_map(|group| group.replica().cut())
            .collect();
        let (mut done, mut freed) = (Vec::with_capacity(cuts.len()), None);
        let cycle = Cycle::new(&cuts, hurry, self.log.usage().used);
        for mut cut in cuts {
            if !cut.replica.await_durable(cut.state.applied).await {
                cut.replica.remove_later(&cut.removed);
                continue;
            }
            // Removals first: they free what the writes may need, after the next checkpoint.
            self.remove_volumes(&cut).await?;
            match self.write_back(&cut.replica, &cut.dirty, &cycle).await {
                Ok(()) => {
                    if seeded_bug!("sessions-ahead-of-checkpoint") {
                        cut.state.sessions = cut.replica.state.borrow().sessions.clone();
                    }
                    done.push(cut);
                }
                Err(error) if error.is_no_space() || error.is_lost_entry() => {
                    // Not fatal: its log is kept, new data is refused, and the next cycle tries
                    // again with what this one's checkpoint frees, or other replicas gave back.
                    tracing::warn!(store = %self.store.id(), %error, "write-back waits");
                    if error.is_no_space() {
                        // What takes no room may make some.
                        let discards = cut.discards();
                        self.write_back(&cut.replica, &discards, &cycle).await?;
                        freed = freed.or((!discards.is_empty()).then_some(cut.replica.copyset));
                    }
                    cut.replica.remove_later(&cut.removed);
                }
                Err(error) => return Err(error),
            }
        }
        let cuts = done;
        self.checkpoint(&cuts, freed).await?;
        for cut in &cuts {
            cut.replica.checkpointed(cut.state.clone());
        }
        drop(cuts);
        for group in &groups {
            group.replica().settle_promises();
        }
        // Also groups without a new cut: an earlier purge may have had to wait for a follower.
        for group in groups {
            group.purge_behind_checkpoint();
        }
        Ok(())
    }

    async fn write_back(
        &self,
        replica: &Replica,
        dirty: &[DirtyBlock],
        cycle: &Cycle,
    ) -> Result<(), GroupError> {
        let mut running = stream::iter(bursts(dirty))
            .map(|dirty| self.write_back_burst(replica, dirty, cycle))
            .buffer_unordered(WRITE_BACK_INFLIGHT);
        while let Some(done) = running.next().await {
            done?;
        }
        Ok(())
    }

    async fn write_back_burst(
        &self,
        replica: &Replica,
        dirty: &[DirtyBlock],
        cycle: &Cycle,
    ) -> Result<(), GroupError> {
        let copyset = replica.copyset;
        let started = ogee_runtime::now();
        let mut burst = Burst::load(replica, dirty).await?;
        let blocks = std::mem::take(&mut burst.blocks);
        let adoptions = std::mem::take(&mut burst.adoptions);
        let adopted = adoptions.len() * BLOCKS_PER_EXTENT;
        let written = self.store.take_over(copyset, blocks, adoptions).await;
        written.map_err(|source| GroupError::Store { copyset, source })?;
        {
            let mut state = replica.state.borrow_mut();
            for dirty in &burst.taken {
                state.overlay.written_back(dirty);
            }
        }
        replica.kept(dirty);
        self.count(&burst, adopted, dirty.len());
        cycle.advance(dirty.len());
        self.pace(cycle);
        if !cycle.hurry && self.fill_percent() < HURRY_PERCENT {
            let spent = ogee_runtime::now().saturating_duration_since(started);
            ogee_runtime::sleep(spent.min(Duration::from_millis(50))).await;
        }
        Ok(())
    }

    /// Lets writers have what room the log will need to last until the cycle's end.
    fn pace(&self, cycle: &Cycle) {
        let room = room_left(self.log.usage(), cycle.used);
        let time = cycle.time_left() + self.checkpoint_took.get();
        self.pacer.spread(room, time);
    }

    async fn remove_volumes(&self, cut: &Cut) -> Result<(), GroupError> {
        let copyset = cut.replica.copyset;
        for volume in &cut.removed {
            let removed = self.store.remove_volume(copyset, *volume).await;
            removed.map_err(|source| GroupError::Store { copyset, source })?;
        }
        Ok(())
    }

    /// Makes what was written back durable, and free what a group has `freed` that has no cut.
    async fn checkpoint(&self, cuts: &[Cut], freed: Option<CopysetId>) -> Result<(), GroupError> {
        let first = cuts.first().map(|cut| cut.replica.copyset);
        let Some(copyset) = first.or(freed) else {
            return Ok(());
        };
        let groups = cuts.iter().map(Cut::saved);
        let begun = ogee_runtime::now();
        let saved = self.store.checkpoint(groups.collect()).await;
        let took = ogee_runtime::now().saturating_duration_since(begun);
        // What the next one will take, with one odd one evened out.
        self.checkpoint_took
            .set((self.checkpoint_took.get() + took) / 2);
        saved.map_err(|source| GroupError::Store { copyset, source })?;
        let mut metrics = self.metrics.get();
        metrics.checkpoints += 1;
        self.metrics.set(metrics);
        Ok(())
    }

    fn count(&self, burst: &Burst, adopted: usize, dirty: usize) {
        let taken = burst.taken.len();
        let mut metrics = self.metrics.get();
        metrics.blocks_written += (taken - adopted) as u64;
        metrics.blocks_adopted += adopted as u64;
        metrics.blocks_superseded += (dirty - taken) as u64;
        self.metrics.set(metrics);
    }
}

/// Tells the store which extents the log's live records name, and has the log tell when they are gone.
fn hand_over_pins(store: &Store, log: &Log) -> Result<(), GroupError> {
    let failed = |source| GroupError::Pins {
        store: store.id(),
        source,
    };
    log.placed()
        .into_iter()
        .filter(|_| !seeded_bug!("pins-forgotten-at-restart"))
        .try_for_each(|at| store.pin(at))
        .map_err(failed)?;
    let owner = store.clone();
    log.attach(move |at| owner.unpin(at));
    Ok(())
}

/// What writers may still add to the log, of which so much was `used` when the cycle began.
fn room_left(usage: LogUsage, used: ByteLen) -> ByteLen {
    let below = |percent: u64| (usage.capacity.get() * percent / 100).saturating_sub(used.get());
    let added = below(PACED_PERCENT).max(below(OVER_PERCENT) / 2);
    let end = used.get() + added.min(usage.capacity.get() * ADDED_PERCENT / 100);
    ByteLen::new(end.saturating_sub(usage.used.get()))
}

/// How far one cycle is.
struct Cycle {
    started: Instant,
    /// Of the log.
    used: ByteLen,
    /// Somebody waits for its end.
    hurry: bool,
    blocks: usize,
    done: Cell<usize>,
}

impl Cycle {
    fn new(cuts: &[Cut], hurry: bool, used: ByteLen) -> Self {
        Self {
            started: ogee_runtime::now(),
            used,
            hurry,
            blocks: cuts.iter().map(|cut| cut.dirty.len()).sum(),
            done: Cell::new(0),
        }
    }

    fn advance(&self, blocks: usize) {
        self.done.set(self.done.get() + blocks);
    }

    /// At the speed so far, without the checkpoint; one part in eight more, for what goes slower.
    fn time_left(&self) -> Duration {
        let spent = ogee_runtime::now().saturating_duration_since(self.started);
        let (done, blocks) = (self.done.get().max(1), self.blocks);
        let whole = spent.mul_f64(blocks as f64 / done as f64);
        (whole + whole / 8).saturating_sub(spent)
    }
}

#[cfg(test)]
mod tests {
    use super::room_left;
    use crate::fixture::{Lone, run};
    use futures_util::poll;
    use ogee_proto::unit::ByteLen;
    use std::pin::pin;

    #[test]
    fn a_cycle_gives_half_of_the_room_and_never_all() {
        run(async {
            let mut usage = Lone::open().await.log.usage();
            usage.capacity = ByteLen::new(1000);
            let mut room = |begun, now| {
                usage.used = ByteLen::new(now);
                room_left(usage, ByteLen::new(begun)).get()
            };
            assert_eq!([room(200, 200), room(200, 500)], [370, 70]);
            assert_eq!(room(200, 600), 0, "used up");
            assert_eq!(room(375, 375), 370, "as much as it began with");
            assert_eq!(room(500, 500), 250, "up to three quarters");
            assert_eq!(room(700, 700), 125, "half of what is left");
            assert_eq!([room(940, 940), room(960, 960)], [5, 0]);
            assert_eq!(room(200, 100), 470, "what was purged meanwhile");
        });
    }

    #[test]
    fn a_keeper_that_has_stopped_makes_no_checkpoint_and_keeps_nobody_waiting() {
        run(async {
            let lone = Lone::start().await;
            assert!(lone.keeper.checkpoint_now().await);
            let mut early = pin!(lone.keeper.checkpoint_now());
            assert!(poll!(&mut early).is_pending());
            lone.keeper.stop();
            assert!(!lone.keeper.checkpoint_now().await);
            // Asked in time or too late, depending on where the task was: answered either way.
            early.await;
            assert!(!lone.keeper.checkpoint_now().await);
        });
    }
}
