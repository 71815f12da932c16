//! Faults, in an order that the seed chooses.
//!
//! *Place*: acts on the cluster while its clients work; takes everything back in the end. *Owner*: the
//! main task. *Invariants*: what it does is undone by itself at its time, or when healing begins.
//! Power may fail everywhere at once, processes may die and links may break without limit: nothing
//! that was acknowledged may depend on them. Damage to disks keeps to the budget of `damage`.
//! *On failure*: none.

use super::cluster::{Cluster, Seat};
use super::coverage::{Coverage, Fault};
use super::damage;
use super::dice::Dice;
use super::node::{Node, NodeState};
use super::pioneer;
use super::plan::{PAUSE_MAX, Plan};
use super::quitter::QUITTER;
use super::wire::Wire;
use ogee_device::DiskCounts;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_runtime::sim::{self, Death, HostId, Link, LinkCounts, world_time};
use ogee_runtime::sleep;
use std::rc::Rc;
use std::time::Duration;

/// Strikes after the end of the war for faults that have not happened yet.
const EXTRA_STRIKES_MAX: u32 = 60;
/// By so much shorter are the pauses then.
const HASTE: u32 = 4;
/// Slowest and fastest clock: together within what leases allow for.
const RATES: std::ops::Range<u64> = 920_000..1_080_000;
/// How long the power waits for a write that it can interrupt.
const WRITE_WITHIN: Duration = Duration::from_millis(200);

/// What ends a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    Start(HostId),
    /// In the middle of recovering, perhaps.
    CutAgain(HostId),
    GoOn(HostId, Duration),
    Wake(HostId),
    Link(HostId, HostId),
    /// The cut counts if it held anything up since.
    CutLink(HostId, HostId, Fault, u64),
    Frames(HostId, HostId),
    Reach,
    Limp(HostId),
    Attach(usize),
}

/// The enemy.
pub struct Nemesis {
    cluster: Cluster,
    plan: Plan,
    dice: Dice,
    coverage: Coverage,
    /// What was ordered last, first out of the bag next.
    bag: Vec<Fault>,
    undos: Vec<(Duration, Undo)>,
    wire: Option<Rc<Wire>>,
}

impl Nemesis {
    /// One that does what the plan enables.
    #[must_use]
    pub fn new(cluster: Cluster, plan: Plan, mut dice: Dice) -> Self {
        let wire = plan
            .faults
            .iter()
            .any(|fault| fault.is_of_frames())
            .then(|| {
                let wire = Rc::new(Wire::new(dice.fork()));
                sim::set_tamper(wire.clone());
                wire
            });
        Self {
            cluster,
            plan,
            dice,
            coverage: Coverage::default(),
            bag: Vec::new(),
            undos: Vec::new(),
            wire,
        }
    }

    /// What must have happened by the end.
    #[must_use]
    pub fn required(&self) -> &[Fault] {
        &self.plan.faults
    }

    /// What has happened.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut coverage = self.coverage.clone();
        let disks = self.disk_counts();
        coverage.add(Fault::SectorLoss, disks.dropped);
        coverage.add(Fault::SectorGarble, disks.garbled);
        coverage.add(Fault::Limp, disks.limped);
        coverage.add(Fault::Break, sim::link_counts().broken);
        coverage.add(Fault::Replace, self.cluster.mds().changes_done());
        if let Some(wire) = &self.wire {
            coverage.add_all(&wire.coverage());
        }
        coverage
    }

    fn disk_counts(&self) -> DiskCounts {
        let disks = self.cluster.nodes().iter().map(|node| node.disk_counts());
        disks.fold(DiskCounts::default(), DiskCounts::plus)
    }

    /// War.
    ///
    /// # Errors
    /// When a damaged disk is not made whole.
    pub async fn rage(&mut self) -> Result<(), String> {
        let end = world_time() + self.plan.hostile_for;
        let mut extra = 0;
        loop {
            if world_time() >= end {
                let missing = self.coverage().missing(&self.plan.faults);
                if missing.is_empty() || extra >= EXTRA_STRIKES_MAX {
                    return Ok(());
                }
                self.plan.pause = self.plan.pause.min(PAUSE_MAX / HASTE);
                extra += 1;
            }
            self.rest().await;
            let fault = self.next_fault();
            self.strike(fault).await?;
        }
    }

    /// Sleeps until the next strike, undoing what is due meanwhile.
    async fn rest(&mut self) {
        let pause = u64::try_from(self.plan.pause.as_millis())
            .unwrap_or(1)
            .max(2);
        let until = world_time() + self.dice.millis(1..pause);
        loop {
            let next = self.undos.iter().map(|(at, _)| *at).min();
            let wake = next.map_or(until, |at| at.min(until));
            sleep(wake.saturating_sub(world_time())).await;
            self.undo_due();
            if world_time() >= until {
                return;
            }
        }
    }

    fn undo_due(&mut self) {
        let now = world_time();
        let (mut due, later): (Vec<_>, Vec<_>) =
            self.undos.drain(..).partition(|(at, _)| *at <= now);
        self.undos = later;
        due.sort_by_key(|(at, _)| *at);
        for (_, undo) in due {
            self.undo(undo);
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(host) => self.cluster.node(host).start(),
            Undo::CutAgain(host) => {
                let node = self.cluster.node(host).clone();
                if node.state() == NodeState::Up {
                    node.kill(Death::Power, &mut self.dice);
                    self.coverage.add(Fault::PowerCut, 1);
                }
            }
            Undo::GoOn(host, slept) => self.cluster.node(host).go_on(slept),
            Undo::Wake(host) => sim::go_on(host, Duration::ZERO),
            Undo::Link(from, to) => sim::set_link(from, to, Link::default()),
            Undo::CutLink(from, to, fault, before) => {
                let held = held(sim::link_counts()).saturating_sub(before);
                self.coverage.add(fault, held.min(1));
                sim::set_link(from, to, Link::default());
            }
            Undo::Frames(from, to) => {
                if let Some(wire) = &self.wire {
                    wire.set(from, to, None);
                }
            }
            Undo::Reach => self.cluster.mds().set_out_of_reach(false),
            Undo::Limp(host) => {
                let disk = self.cluster.node(host).disk();
                disk.with_faults(|faults| faults.limp = Duration::ZERO);
            }
            Undo::Attach(seat) => self.cluster.attach(&self.cluster.seats()[seat]),
        }
    }

    fn later(&mut self, millis: std::ops::Range<u64>, undo: Undo) {
        let at = world_time() + self.dice.millis(millis);
        self.undos.push((at, undo));
    }

    /// Each kind once before any comes again, except those that have had no effect yet.
    fn next_fault(&mut self) -> Fault {
        if self.bag.is_empty() {
            let missing = self.coverage().missing(&self.plan.faults);
            if !missing.is_empty() && !self.dice.once_in(3) {
                return *self.dice.pick(&missing);
            }
            self.bag.clone_from(&self.plan.faults);
            self.dice.shuffle(&mut self.bag);
        }
        self.bag.pop().expect("invariant: a plan has faults")
    }

    async fn strike(&mut self, fault: Fault) -> Result<(), String> {
        tracing::info!(?fault, "SIM strike");
        match fault {
            Fault::PowerCut => self.cut_power().await,
            Fault::PowerCutAll => self.cut_power_everywhere().await,
            Fault::Kill => self.kill_one().await,
            Fault::Restart => self.restart().await,
            Fault::Stop => self.stop(),
            Fault::Sleep => self.put_to_sleep(),
            Fault::Drift => self.drift(),
            Fault::OneWayCut => self.cut_one_way(),
            Fault::Isolation => self.isolate(),
            Fault::Clog => self.clog().await,
            Fault::Break => self.break_some(),
            Fault::ClientKill => self.kill_client(),
            Fault::ClientRevival => self.revive_client(),
            Fault::Reattach => self.reattach(),
            Fault::Takeover => self.take_over(),
            Fault::Replace => self.replace().await,
            Fault::Transfer => self.transfer().await,
            Fault::MdsOut => {
                self.cluster.mds().set_out_of_reach(true);
                self.coverage.add(fault, 1);
                self.later(200..4000, Undo::Reach);
            }
            Fault::Limp => self.limp(),
            _ if fault.is_of_frames() => self.disturb_frames(fault).await,
            _ => self.damage(fault).await?,
        }
        Ok(())
    }

    /// Nothing else is wrong while a disk is.
    async fn damage(&mut self, fault: Fault) -> Result<(), String> {
        self.heal();
        self.cluster.shop().is_mending.set(true);
        if damage::strike(&self.cluster, fault, &mut self.dice).await? {
            self.coverage.add(fault, 1);
        }
        self.cluster.shop().is_mending.set(false);
        Ok(())
    }

    /// For a while frames between a host and the nodes suffer: a client's, mostly.
    async fn disturb_frames(&mut self, fault: Fault) {
        let clients = self.cluster.client_hosts();
        let one = match self.dice.below(4) {
            // What it gives up is to come late.
            _ if self.plan.quits && fault == Fault::FrameReorder && self.dice.once_in(2) => QUITTER,
            0 => self.some_node(),
            // One that has just come: it seals, and its first requests have no watermark yet.
            1 | 2 => self.newcomer().unwrap_or_else(|| self.some_node()),
            _ if clients.is_empty() => self.some_node(),
            _ => *self.dice.pick(&clients),
        };
        // Where workers are not divided, all of them would soon wait for what is held back.
        let usage = self.cluster.usage_of(one);
        let is_divided = one == QUITTER || usage.is_some_and(|usage| usage.is_divided);
        let is_held = is_divided && !self.dice.once_in(4);
        let until = world_time()
            + match is_held {
                true => self.dice.millis(1000..4000),
                false => self.dice.millis(300..3000),
            };
        for other in self.cluster.nodes().to_vec() {
            for (from, to) in [(one, other.host()), (other.host(), one)] {
                if let Some(wire) = &self.wire {
                    wire.set(from, to, Some(fault));
                }
                self.undos.push((until, Undo::Frames(from, to)));
            }
        }
        if is_held {
            // One that has just come has to seal first: it waits for that.
            sleep(self.dice.millis(10..150)).await;
            self.hold_back(one, until);
        }
    }

    /// A client does not reach the leader of one copyset: its watermark stays where it is, while what it
    /// writes to the other takes effect. Mostly a replica of that one starts anew meanwhile.
    fn hold_back(&mut self, client: HostId, until: Duration) {
        let (mds, mut ids) = (self.cluster.mds().clone(), self.cluster.mds().copyset_ids());
        self.dice.shuffle(&mut ids);
        let led = ids.iter().filter_map(|id| mds.leader_and_others(*id));
        let led: Vec<(HostId, Vec<HostId>)> = led.collect();
        let [(cut_off, _), (leader, others)] = &led[..] else {
            return;
        };
        if cut_off == leader {
            // Not now; the next time they may be two.
            self.hand_over_somewhere(&ids);
            return;
        }
        self.cut(client, *cut_off, Fault::OneWayCut, until);
        if !self.dice.once_in(3) {
            let host = *self.dice.pick(others);
            let mut at = world_time() + self.dice.millis(200..1500);
            self.undos.push((at, Undo::CutAgain(host)));
            at += self.dice.millis(5..200);
            self.undos.push((at, Undo::Start(host)));
        }
    }

    fn hand_over_somewhere(&mut self, ids: &[CopysetId]) {
        let (id, mds) = (*self.dice.pick(ids), self.cluster.mds().clone());
        if let Some(leader) = mds.leader(id) {
            let others = mds.members(id).into_keys().filter(|to| *to != leader);
            let others: Vec<ReplicaId> = others.collect();
            mds.transfer(id, *self.dice.pick(&others));
        }
    }

    /// Half of the time one that leads.
    fn some_up(&mut self) -> Option<Rc<Node>> {
        let up = self.cluster.up();
        let leader = match self.dice.once_in(2) {
            true => self.some_leader(),
            false => None,
        };
        let leads = |node: &&Rc<Node>| leader.as_ref().is_some_and(|it| it.0 == node.host());
        if let Some(leader) = up.iter().find(leads) {
            return Some(leader.clone());
        }
        (!up.is_empty()).then(|| self.dice.pick(&up).clone())
    }

    /// A client that takes a volume over now.
    fn newcomer(&mut self) -> Option<HostId> {
        let at = self.some_seat();
        let cluster = self.cluster.clone();
        let seat = &cluster.seats()[at];
        has_live(seat)?;
        cluster.attach(seat);
        has_live(seat)
    }

    /// Half of the time, waits for a moment at which a disk is in the middle of a write: there are few
    /// of them, and they are those in which most can go wrong.
    async fn await_a_write(&mut self, node: &Node) {
        if self.dice.once_in(2) {
            return;
        }
        let disk = node.disk();
        // In vain if the node has nothing to write: then any moment is as good.
        let _ = ogee_runtime::timeout(WRITE_WITHIN, disk.write_begins()).await;
        sleep(Duration::from_micros(self.dice.below(60))).await;
    }

    async fn kill_one(&mut self) {
        if let Some(node) = self.some_up() {
            self.await_a_write(&node).await;
            node.kill(Death::Process, &mut self.dice);
            self.coverage.add(Fault::Kill, 1);
            self.later(10..2000, Undo::Start(node.host()));
        }
    }

    /// Once, or again while it recovers.
    async fn cut_power(&mut self) {
        let Some(node) = self.some_up() else {
            return;
        };
        self.await_a_write(&node).await;
        node.kill(Death::Power, &mut self.dice);
        self.coverage.add(Fault::PowerCut, 1);
        let mut at = world_time() + self.dice.millis(10..1500);
        for _ in 0..self.dice.below(3) {
            self.undos.push((at, Undo::Start(node.host())));
            at += self.dice.millis(0..60);
            self.undos.push((at, Undo::CutAgain(node.host())));
            at += self.dice.millis(1..200);
        }
        self.undos.push((at, Undo::Start(node.host())));
    }

    async fn cut_power_everywhere(&mut self) {
        if let Some(node) = self.some_up() {
            self.await_a_write(&node).await;
        }
        for node in self.cluster.nodes().to_vec() {
            if node.state() == NodeState::Stopped {
                node.go_on(Duration::ZERO);
            }
            if node.state() == NodeState::Up {
                node.kill(Death::Power, &mut self.dice);
                self.coverage.add(Fault::PowerCut, 1);
            }
            self.later(10..800, Undo::Start(node.host()));
        }
        self.coverage.add(Fault::PowerCutAll, 1);
    }

    async fn restart(&mut self) {
        let Some(node) = self.some_up() else {
            return;
        };
        let ending = node.clone();
        // Given up with the patience below: it must not end the next process.
        let end = ogee_runtime::spawn_scoped(async move { ending.end().await });
        if ogee_runtime::timeout(Duration::from_secs(12), end)
            .await
            .is_ok()
        {
            self.coverage.add(Fault::Restart, 1);
        } else {
            node.kill(Death::Process, &mut self.dice);
        }
        node.start();
    }

    fn stop(&mut self) {
        if let Some(node) = self.some_up() {
            node.stop();
            self.coverage.add(Fault::Stop, 1);
            self.later(50..3000, Undo::GoOn(node.host(), Duration::ZERO));
        }
    }

    fn put_to_sleep(&mut self) {
        if let Some(node) = self.some_up() {
            node.stop();
            self.coverage.add(Fault::Sleep, 1);
            self.attach_soon();
            let slept = self.dice.millis(50..5000);
            let at = world_time() + slept;
            self.pioneer_beside(node.host(), at + Duration::from_secs(1));
            self.undos.push((at, Undo::GoOn(node.host(), slept)));
        }
    }

    fn drift(&mut self) {
        for node in self.cluster.nodes() {
            let rate = RATES.start + self.dice.below(RATES.end - RATES.start);
            sim::set_clock_rate(node.host(), u32::try_from(rate).expect("a small number"));
        }
        self.coverage.add(Fault::Drift, 1);
    }

    fn hosts(&self) -> Vec<HostId> {
        let nodes = self.cluster.nodes().iter().map(|node| node.host());
        nodes.chain(self.cluster.client_hosts()).collect()
    }

    /// One time in three one that leads.
    fn some_node(&mut self) -> HostId {
        let leader = match self.dice.once_in(3) {
            true => self.some_leader(),
            false => None,
        };
        match leader {
            Some((leader, _)) => leader,
            None => self.dice.pick(self.cluster.nodes()).host(),
        }
    }

    /// Two hosts, at least one of them a node.
    fn some_link(&mut self) -> (HostId, HostId) {
        let (hosts, node) = (self.hosts(), self.some_node());
        let others: Vec<HostId> = hosts.into_iter().filter(|host| *host != node).collect();
        let other = *self.dice.pick(&others);
        match self.dice.once_in(2) {
            true => (node, other),
            false => (other, node),
        }
    }

    fn cut(&mut self, from: HostId, to: HostId, fault: Fault, until: Duration) {
        let before = held(sim::link_counts());
        let link = Link {
            is_cut: true,
            ..Link::default()
        };
        sim::set_link(from, to, link);
        self.undos
            .push((until, Undo::CutLink(from, to, fault, before)));
    }

    fn cut_one_way(&mut self) {
        let (from, to) = self.some_link();
        let until = world_time() + self.dice.millis(100..4000);
        self.cut(from, to, Fault::OneWayCut, until);
    }

    /// One or two nodes on one side, everybody else on the other; clients may reach both.
    fn isolate(&mut self) {
        let until = world_time() + self.dice.millis(100..4000);
        let mds = self.cluster.mds().clone();
        let mut changing = mds.copyset_ids();
        changing.retain(|id| mds.newcomer_of(*id).is_some());
        match self.dice.below(8) {
            0 => self.depose(),
            1 => {
                let (one, other) = (self.some_node(), self.some_node());
                self.part(&[one, other], until);
            }
            2 | 3 if !changing.is_empty() => {
                let id = *self.dice.pick(&changing);
                self.part_with_newcomer(id);
            }
            4 | 5 => self.cut_off_leader(),
            _ => {
                let node = self.some_node();
                self.part(&[node], until);
            }
        }
    }

    /// Long enough for others to elect another leader, who is written to at once.
    fn until_succeeded(&mut self) -> Duration {
        world_time() + self.plan.group.election_max * 2 + self.dice.millis(300..1500)
    }

    /// A leader is alone until another one leads, and longer.
    fn cut_off_leader(&mut self) {
        if let Some((id, leader, others)) = self.some_led() {
            let until = self.until_succeeded();
            self.part(&[leader], until);
            self.pioneer(id, &others, until);
        }
    }

    /// Somebody takes a volume over and writes at whoever of these hosts leads.
    fn pioneer(&mut self, id: CopysetId, hosts: &[HostId], until: Duration) {
        pioneer::start(&self.cluster, id, hosts, until, self.dice.fork());
    }

    /// The same if this host leads a copyset, at the others.
    fn pioneer_beside(&mut self, host: HostId, until: Duration) {
        let mds = self.cluster.mds().clone();
        for id in mds.copyset_ids() {
            if let Some((leader, others)) = mds.leader_and_others(id)
                && leader == host
            {
                self.pioneer(id, &others, until);
            }
        }
    }

    fn part(&mut self, inside: &[HostId], until: Duration) {
        let nodes = self.cluster.nodes().iter().map(|node| node.host());
        let others: Vec<HostId> = match self.dice.once_in(2) {
            true => nodes.collect(),
            false => self.hosts(),
        };
        for other in others.into_iter().filter(|host| !inside.contains(host)) {
            for node in inside {
                self.cut(*node, other, Fault::Isolation, until);
                self.cut(other, *node, Fault::Isolation, until);
            }
        }
        self.attach_soon();
    }

    /// Somebody else attaches while a leader is deposed: it asks the metadata server who leads, and
    /// writes there at once, where a client of before waits for its old leader for seconds.
    fn attach_soon(&mut self) {
        for _ in 0..self.dice.below(3) {
            let seat = self.some_seat();
            self.later(200..2500, Undo::Attach(seat));
        }
    }

    /// A leader alone with one that only learns.
    fn part_with_newcomer(&mut self, id: CopysetId) {
        let mds = self.cluster.mds().clone();
        if let Some((_, newcomer)) = mds.newcomer_of(id)
            && let Some((leader, others)) = mds.leader_and_others(id)
        {
            // It takes a while until the newcomer hears of its leader.
            let until = self.until_succeeded() + self.dice.millis(300..1000);
            self.part(&[leader, newcomer], until);
            self.pioneer(id, &others, until);
        }
    }

    /// A leader is alone, and both of its followers start anew, as quickly as they can.
    fn depose(&mut self) {
        let Some((id, leader, others)) = self.some_led() else {
            return;
        };
        let until = self.until_succeeded();
        self.part(&[leader], until);
        self.pioneer(id, &others, until);
        for host in others {
            let node = self.cluster.node(host).clone();
            if node.state() == NodeState::Up {
                node.kill(Death::Process, &mut self.dice);
                self.later(1..60, Undo::Start(host));
            }
        }
    }

    /// The leader of some copyset and the others.
    fn some_leader(&mut self) -> Option<(HostId, Vec<HostId>)> {
        self.some_led().map(|(_, leader, others)| (leader, others))
    }

    /// Some copyset, its leader and the others.
    fn some_led(&mut self) -> Option<(CopysetId, HostId, Vec<HostId>)> {
        let mds = self.cluster.mds().clone();
        let id = *self.dice.pick(&mds.copyset_ids());
        let (leader, others) = mds.leader_and_others(id)?;
        Some((id, leader, others))
    }

    async fn clog(&mut self) {
        if self.dice.once_in(3) {
            return self.delay_answers().await;
        }
        let (from, to) = self.some_link();
        let delay = self.dice.millis(10..600);
        self.slow_down(from, to, delay);
        self.later(300..4000, Undo::Link(from, to));
    }

    fn slow_down(&mut self, from: HostId, to: HostId, delay: Duration) {
        let link = Link {
            delay_min: delay / 4,
            delay_max: delay,
            is_cut: false,
        };
        sim::set_link(from, to, link);
        self.coverage.add(Fault::Clog, 1);
    }

    /// What a leader is answered takes long, and while it is on its way the others hear no more of it.
    async fn delay_answers(&mut self) {
        let Some((id, leader, others)) = self.some_led() else {
            return;
        };
        let delay = self.dice.millis(300..1600);
        for other in &others {
            self.slow_down(*other, leader, delay);
            self.later(1500..4000, Undo::Link(*other, leader));
        }
        sleep(self.dice.millis(1..500)).await;
        let until = world_time() + self.dice.millis(1000..3000);
        for other in &others {
            self.cut(leader, *other, Fault::OneWayCut, until);
        }
        self.pioneer(id, &others, until);
        self.attach_soon();
    }

    /// All connections of a client to the nodes, or some between nodes.
    fn break_some(&mut self) {
        let clients = self.cluster.client_hosts();
        let late = self.dice.millis(0..2000);
        if !clients.is_empty() && self.dice.once_in(2) {
            let client = *self.dice.pick(&clients);
            for node in self.cluster.nodes() {
                sim::break_connections((client, Duration::ZERO), (node.host(), late));
            }
            return;
        }
        let node = self.some_node();
        for other in self.cluster.nodes().iter().map(|other| other.host()) {
            if other != node && self.dice.once_in(2) {
                sim::break_connections((node, late), (other, Duration::ZERO));
            }
        }
    }

    fn some_seat(&mut self) -> usize {
        self.dice.index(self.cluster.seats().len())
    }

    fn kill_client(&mut self) {
        let at = self.some_seat();
        let seat = &self.cluster.seats()[at];
        let Some(host) = seat.current.borrow().as_ref().map(|it| it.host) else {
            return;
        };
        let death = match self.dice.once_in(2) {
            true => Death::Power,
            false => Death::Process,
        };
        sim::kill(host, death);
        self.coverage.add(Fault::ClientKill, 1);
        self.later(1..500, Undo::Attach(at));
    }

    fn revive_client(&mut self) {
        let at = self.some_seat();
        let cluster = self.cluster.clone();
        let seat = &cluster.seats()[at];
        if let Some(host) = has_live(seat) {
            sim::stop(host);
            self.cluster.attach(seat);
            self.coverage.add(Fault::ClientRevival, 1);
            self.later(200..6000, Undo::Wake(host));
        }
    }

    fn reattach(&mut self) {
        let at = self.some_seat();
        if let Some(current) = &*self.cluster.seats()[at].current.borrow() {
            current.stop();
            self.coverage.add(Fault::Reattach, 1);
        }
        self.later(1..300, Undo::Attach(at));
    }

    fn take_over(&mut self) {
        let at = self.some_seat();
        let cluster = self.cluster.clone();
        if has_live(&cluster.seats()[at]).is_some() {
            cluster.attach(&cluster.seats()[at]);
            self.coverage.add(Fault::Takeover, 1);
        }
    }

    fn some_member(&mut self) -> (CopysetId, ReplicaId, HostId) {
        let mds = self.cluster.mds().clone();
        let id = *self.dice.pick(&mds.copyset_ids());
        let members: Vec<(ReplicaId, HostId)> = mds.members(id).into_iter().collect();
        let (replica, host) = *self.dice.pick(&members);
        (id, replica, host)
    }

    async fn replace(&mut self) {
        let (id, old, _) = self.some_member();
        let mds = self.cluster.mds().clone();
        let members = mds.members(id);
        let is_free = |host: &HostId| !members.values().any(|at| at == host);
        let hosts = self.cluster.nodes().iter().map(|node| node.host());
        let free: Vec<HostId> = hosts.filter(is_free).collect();
        let is_begun = mds.replace(id, old, *self.dice.pick(&free));
        if is_begun && !self.dice.once_in(3) {
            // Before its leader is told, or while it learns.
            sleep(self.dice.millis(0..700)).await;
            self.part_with_newcomer(id);
        }
    }

    async fn transfer(&mut self) {
        let mds = self.cluster.mds().clone();
        let id = *self.dice.pick(&mds.copyset_ids());
        let Some(leader) = mds.leader(id) else {
            return;
        };
        let others = mds.members(id).into_keys().filter(|to| *to != leader);
        let others: Vec<ReplicaId> = others.collect();
        if self.dice.once_in(2) {
            self.slow_answers(id).await;
        }
        mds.transfer(id, *self.dice.pick(&others));
        self.coverage.add(Fault::Transfer, 1);
        if self.dice.once_in(2) {
            return;
        }
        // The old leader has handed over, and hears of nothing that comes after.
        let Some((leader, others)) = mds.leader_and_others(id) else {
            return;
        };
        sleep(Duration::from_micros(self.dice.below(3000))).await;
        let until = world_time() + self.dice.millis(300..3000);
        for other in others {
            self.cut(other, leader, Fault::OneWayCut, until);
        }
        self.attach_soon();
    }

    /// What a leader is told is on its way for long, while the others understand each other: somebody
    /// else may lead, and be written to, before it learns of it.
    async fn slow_answers(&mut self, id: CopysetId) {
        let Some((leader, others)) = self.cluster.mds().leader_and_others(id) else {
            return;
        };
        let delay = self.dice.millis(150..900);
        for other in &others {
            self.slow_down(*other, leader, delay);
            self.later(1000..2500, Undo::Link(*other, leader));
        }
        let until = world_time() + self.dice.millis(1000..2500);
        self.pioneer(id, &others, until);
        sleep(self.dice.millis(1..80)).await;
    }

    fn limp(&mut self) {
        // One that leads and is slow commits by what the others have.
        let Some(node) = self.some_up() else {
            return;
        };
        let (limp, behind_cache) = (self.dice.millis(20..2000), self.dice.once_in(2));
        node.disk().with_faults(|faults| {
            faults.limp = limp;
            faults.limps_behind_cache = behind_cache;
        });
        self.later(300..4000, Undo::Limp(node.host()));
    }

    /// Peace: everything is undone, everybody lives.
    pub fn heal(&mut self) {
        tracing::info!("SIM healing");
        for (_, undo) in std::mem::take(&mut self.undos) {
            if !matches!(undo, Undo::CutAgain(_)) {
                self.undo(undo);
            }
        }
        for node in self.cluster.nodes() {
            node.go_on(Duration::ZERO);
            node.start();
        }
    }
}

/// What cuts have held up so far, in the wider sense.
const fn held(counts: LinkCounts) -> u64 {
    counts.held + counts.unanswered
}

/// The host of a volume's user, if there is one and it runs.
fn has_live(seat: &Seat) -> Option<HostId> {
    let current = seat.current.borrow();
    let live = current.as_ref().filter(|it| !it.has_ended());
    live.map(|it| it.host)
}
