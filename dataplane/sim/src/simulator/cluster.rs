//! Everything that runs: nodes, the metadata server, and each volume's attachments.
//!
//! *Place*: made by the run; changed by the nemesis; looked at by the judgement. *Owner*: the main
//! task of the world. *Invariants*: a volume has at most one attachment that is meant to be its user;
//! earlier ones may still believe that they are. *On failure*: what does not come about in time is
//! said with how everything stands.

use super::dice::Dice;
use super::echo;
use super::filler;
use super::inspector;
use super::mds::Mds;
use super::node::{Node, NodeState};
use super::plan::{COPYSETS, NODES, Plan};
use super::prober;
use super::quitter;
use super::recorder::Recorder;
use super::workload::{Attachment, Shop, Usage};
use ogee_runtime::sim::{HostId, world_time};
use ogee_runtime::{JoinHandle, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

/// Hosts of clients begin here.
const CLIENT_HOSTS: u32 = 100;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long making the cluster may take.
const MAKE_WITHIN: Duration = Duration::from_secs(20);

/// A volume's attachments.
pub struct Seat {
    /// How it is used.
    pub usage: Usage,
    /// The attachment that is meant to be its user.
    pub current: RefCell<Option<Attachment>>,
    /// Those before that have not ended.
    pub earlier: RefCell<Vec<Attachment>>,
    next_host: Cell<u32>,
}

/// Everything that runs.
#[derive(Clone)]
pub struct Cluster {
    inner: Rc<Inner>,
}

struct Inner {
    probes: bool,
    inspects: bool,
    fills: bool,
    echoes: bool,
    quits: bool,
    /// Those with a volume of their own whose requests are all to be answered.
    others: RefCell<Vec<JoinHandle<()>>>,
    nodes: Vec<Rc<Node>>,
    mds: Rc<Mds>,
    shop: Rc<Shop>,
    seats: Vec<Seat>,
    dice: RefCell<Dice>,
    digests: Cell<u64>,
}

impl Cluster {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(plan: Plan, dice: Dice) -> Self {
        let sound = plan.sound();
        let nodes: Vec<Rc<Node>> = (1..=NODES)
            .zip(plan.disks_half_us)
            .map(|(n, half_us)| Node::new(n, (plan.group, plan.scrub_period), half_us, sound))
            .collect();
        let mds = Mds::new(nodes.clone());
        let shop = Rc::new(Shop {
            mds: mds.clone(),
            recorder: Recorder::default(),
            is_closing: Cell::default(),
            is_mending: Cell::default(),
            fenced: Cell::default(),
            corrupt: Cell::default(),
            under_way: Cell::default(),
        });
        let seat = |usage: Usage| Seat {
            usage,
            current: RefCell::default(),
            earlier: RefCell::default(),
            next_host: Cell::default(),
        };
        let seats = plan.usages.into_iter().map(seat).collect();
        Self {
            inner: Rc::new(Inner {
                nodes,
                mds,
                shop,
                seats,
                dice: RefCell::new(dice),
                probes: plan.probes,
                inspects: plan.inspects,
                fills: plan.fills,
                echoes: plan.echoes,
                quits: plan.quits,
                others: RefCell::default(),
                digests: Cell::new(1 << 40),
            }),
        }
    }

    /// Every chunkserver.
    #[must_use]
    pub fn nodes(&self) -> &[Rc<Node>] {
        &self.inner.nodes
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none on that host.
    #[must_use]
    pub fn node(&self, host: HostId) -> &Rc<Node> {
        let node = self.inner.nodes.iter().find(|node| node.host() == host);
        node.expect("invariant: asked of a host of ours")
    }

    /// The metadata server.
    #[must_use]
    pub fn mds(&self) -> &Rc<Mds> {
        &self.inner.mds
    }

    /// What clients share.
    #[must_use]
    pub fn shop(&self) -> &Rc<Shop> {
        &self.inner.shop
    }

    /// Every volume.
    #[must_use]
    pub fn seats(&self) -> &[Seat] {
        &self.inner.seats
    }

    /// Makes the cluster and attaches every volume.
    ///
    /// # Errors
    /// When it does not come about.
    pub async fn make(&self) -> Result<(), String> {
        for (at, copyset) in COPYSETS.into_iter().enumerate() {
            let hosts: Vec<HostId> = (0..3)
                .map(|n| HostId::new(u32::try_from(at).expect("few") + n + 1))
                .collect();
            self.mds().add_copyset(copyset, &hosts);
        }
        for seat in self.seats() {
            let usage = &seat.usage;
            self.mds()
                .add_volume(usage.volume, usage.chunks, &usage.copysets);
        }
        if self.inner.fills {
            filler::add_volume(self.mds());
        }
        if self.inner.echoes {
            echo::add_volume(self.mds());
        }
        if self.inner.quits {
            quitter::add_volume(self.mds());
        }
        self.nodes().iter().for_each(Node::start);
        drop(spawn(self.mds().clone().run()));
        let mds = self.mds();
        let has_leaders = || COPYSETS.iter().all(|id| mds.leader(*id).is_some());
        self.until(MAKE_WITHIN, "leaders", has_leaders).await?;
        for seat in self.seats() {
            self.attach(seat);
        }
        if self.inner.probes {
            prober::start(self, &mut self.inner.dice.borrow_mut());
        }
        if self.inner.inspects {
            inspector::start(self, &mut self.inner.dice.borrow_mut());
        }
        let fork = || self.inner.dice.borrow_mut().fork();
        let mut others = Vec::new();
        if self.inner.fills {
            others.push(filler::start(self, fork()));
        }
        if self.inner.echoes {
            echo::start(self, fork());
        }
        if self.inner.quits {
            others.push(quitter::start(self, fork()));
        }
        self.inner.others.replace(others);
        Ok(())
    }

    /// Whether those that have volumes of their own have their answers.
    #[must_use]
    pub fn have_others_ended(&self) -> bool {
        let others = self.inner.others.borrow();
        others.iter().all(JoinHandle::is_finished)
    }

    /// Makes a new attachment the volume's user; the one before is among the earlier ones now.
    pub fn attach(&self, seat: &Seat) {
        let host = self.fresh_host(seat);
        let dice = self.inner.dice.borrow_mut().fork();
        let attachment = Attachment::start(&self.inner.shop, &seat.usage, host, dice);
        let before = seat.current.replace(Some(attachment));
        let mut earlier = seat.earlier.borrow_mut();
        earlier.retain(|attachment| !attachment.has_ended());
        earlier.extend(before);
    }

    /// A host of a volume's clients on which nothing runs.
    fn fresh_host(&self, seat: &Seat) -> HostId {
        let turn = seat.next_host.get();
        seat.next_host.set(turn + 1);
        HostId::new(CLIENT_HOSTS + seat.usage.volume * 1000 + turn)
    }

    /// How the volume is used whose client runs on a host.
    #[must_use]
    pub fn usage_of(&self, client: HostId) -> Option<&Usage> {
        let volume = client.get().checked_sub(CLIENT_HOSTS)? / 1000;
        let seat = self.seats().iter().find(|seat| seat.usage.volume == volume);
        seat.map(|seat| &seat.usage)
    }

    /// Hosts on which a volume's clients run, or ran.
    #[must_use]
    pub fn client_hosts(&self) -> Vec<HostId> {
        let mut hosts = Vec::new();
        for seat in self.seats() {
            hosts.extend(seat.current.borrow().iter().map(|it| it.host));
            hosts.extend(seat.earlier.borrow().iter().map(|it| it.host));
        }
        hosts
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When it is not so in time.
    pub async fn until(
        &self,
        within: Duration,
        what: &str,
        mut is_so: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let end = world_time() + within;
        while !is_so() {
            if world_time() >= end {
                return Err(format!(
                    "not within {within:?}: {what}\n{}",
                    self.describe()
                ));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// How everything stands.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            let state = node.state();
            let refusal = node.refusal().unwrap_or_default();
            writeln!(text, "host {}: {state:?} {refusal}", node.host().get()).expect("a string");
            for replica in node.report().iter().flat_map(|report| &report.replicas) {
                writeln!(text, "  {replica:?}").expect("a string");
            }
        }
        for id in self.mds().copyset_ids() {
            let (members, leader) = (self.mds().members(id), self.mds().leader(id));
            let changing = self.mds().is_changing(id);
            writeln!(
                text,
                "{id}: {members:?} led by {leader:?} changing: {changing}"
            )
            .expect("a string");
        }
        let under_way = self.shop().under_way.get();
        writeln!(text, "{under_way} requests under way").expect("a string");
        text
    }

    /// Names a digest that nobody has asked for yet.
    #[must_use]
    pub fn fresh_digest(&self) -> u64 {
        self.inner.digests.set(self.inner.digests.get() + 1);
        self.inner.digests.get()
    }

    /// Nodes with a running process.
    #[must_use]
    pub fn up(&self) -> Vec<Rc<Node>> {
        let up = self.nodes().iter();
        up.filter(|node| node.state() == NodeState::Up)
            .cloned()
            .collect()
    }
}
