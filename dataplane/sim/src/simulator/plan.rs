//! What a seed is about: the shape of its cluster, its load, and the faults that it gets.
//!
//! *Place*: made first; everything else follows it. *Owner*: plain data. *Invariants*: each seed enables
//! some kinds of faults and not others, because faults hide each other: a cluster that is always cut
//! finds no bug that needs long peace. Every kind that is enabled is required to happen.
//! *On failure*: none.

use super::coverage::Fault;
use super::dice::Dice;
use super::workload::Usage;
use ogee_group::GroupConfig;
use ogee_proto::id::CopysetId;
use ogee_proto::unit::ByteLen;
use std::ops::Range;
use std::time::Duration;

/// Copysets of every simulation.
pub const COPYSETS: [CopysetId; 2] = [CopysetId::new(1), CopysetId::new(2)];
/// Chunkservers: three for each copyset, and one more.
pub const NODES: u32 = 4;

/// In one seed of so many somebody fills the stores.
const FILLED_ODDS: u64 = 8;
/// Longest of the longest pauses between two strikes.
pub const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Faults that a seed may have, besides power cuts.
const OPTIONAL: &[Fault] = &[
    Fault::PowerCutAll,
    Fault::Kill,
    Fault::Restart,
    Fault::Stop,
    Fault::Sleep,
    Fault::Drift,
    Fault::OneWayCut,
    Fault::Isolation,
    Fault::Clog,
    Fault::Break,
    Fault::ClientKill,
    Fault::ClientRevival,
    Fault::Reattach,
    Fault::Takeover,
    Fault::Replace,
    Fault::Transfer,
    Fault::MdsOut,
    Fault::Limp,
];

/// Faults of frames: one seed in four has some.
const OF_FRAMES: &[Fault] = &[
    Fault::FrameDrop,
    Fault::FrameDuplicate,
    Fault::FrameReorder,
    Fault::FrameReplay,
    Fault::FrameCorrupt,
    Fault::CompletionLoss,
];

/// Damage to disks: one seed in three has one or two kinds, since each takes long to mend.
const OF_DISKS: &[Fault] = &[
    Fault::LogRot,
    Fault::DataRot,
    Fault::MetaRot,
    Fault::LostWrite,
    Fault::MisdirectedWrite,
    Fault::BadBlock,
    Fault::WriteError,
    Fault::NoSpace,
    Fault::DiskLoss,
];

/// What a seed is about.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Raft times.
    pub group: GroupConfig,
    /// Volumes and how they are used.
    pub usages: Vec<Usage>,
    /// Kinds of faults that the nemesis orders.
    pub faults: Vec<Fault>,
    /// How long it does.
    pub hostile_for: Duration,
    /// Its longest pause between two orders.
    pub pause: Duration,
    /// Whether somebody asks every replica, whoever leads.
    pub probes: bool,
    /// Whether somebody compares replicas all the time.
    pub inspects: bool,
    /// How long half a request takes each node's disk, in microseconds.
    pub disks_half_us: Vec<Range<u64>>,
    /// Whether somebody fills the stores.
    pub fills: bool,
    /// Whether there is a user whose requests come again, much later.
    pub echoes: bool,
    /// Whether there is one who gives up what it writes, and writes something else.
    pub quits: bool,
    /// Stores are read whole once in so long.
    pub scrub_period: Option<Duration>,
}

impl Plan {
    /// The plan of a seed. Somebody fills its stores if the seed says so, or `fills`, and it is no storm.
    #[must_use]
    pub fn new(dice: &mut Dice, fills: bool) -> Self {
        let fills = dice.once_in(FILLED_ODDS) || fills;
        let (echoes, quits) = (dice.once_in(2), dice.once_in(2));
        let election_min = dice.millis(150..500);
        let mut group = GroupConfig {
            heartbeat: election_min / 4,
            election_min,
            election_max: election_min * 2,
            commit_hold: dice.millis(0..3),
            lease_reads: !dice.once_in(4),
            quiet_after: if dice.once_in(2) {
                dice.millis(200..1500)
            } else {
                Duration::ZERO
            },
            copy_rate: dice
                .once_in(3)
                .then(|| ByteLen::new((400 << 10) + dice.below(3 << 20)))
                // Who fills a store goes on to the end, and may write faster than that.
                .filter(|_| !fills),
            redirect: !dice.once_in(4),
        };
        let usages = usages(dice);
        group.copy_rate = group.copy_rate.filter(|rate| *rate > written(&usages));
        let faults = faults(dice);
        // All are quick, or all slow, or some of each.
        let slow_odds = *dice.pick(&[1, 2, u64::MAX, u64::MAX]);
        let pace = |_| match dice.once_in(slow_odds) {
            true => 100..1500,
            false => 5..60,
        };
        let disks_half_us = (0..NODES).map(pace).collect();
        // One seed in six is a storm: little but power cuts, and many of them.
        if dice.once_in(6) {
            return Self {
                group,
                usages,
                faults: vec![Fault::PowerCut, Fault::PowerCutAll, Fault::Kill],
                hostile_for: dice.millis(10_000..20_000),
                pause: dice.millis(60..500),
                probes: dice.once_in(2),
                inspects: dice.once_in(2),
                disks_half_us,
                fills: false,
                echoes,
                quits,
                scrub_period: None,
            }
            .scrubbing(dice);
        }
        let is_sound = !faults.iter().any(is_of_disks);
        Self {
            group,
            usages,
            faults,
            hostile_for: dice.millis(5_000..15_000),
            pause: dice.millis(300..3000).min(PAUSE_MAX),
            probes: !dice.once_in(3),
            inspects: is_sound && dice.once_in(2),
            disks_half_us,
            fills,
            echoes,
            quits,
            scrub_period: None,
        }
        .scrubbing(dice)
    }

    /// Drawn last: what was drawn before is as it was.
    fn scrubbing(self, dice: &mut Dice) -> Self {
        let period = dice.once_in(2).then(|| dice.millis(500..5000));
        Self {
            scrub_period: period,
            ..self
        }
    }
}

impl Plan {
    /// Counters that stay zero in all processes, if no disk ever loses or changes what it has made durable.
    #[must_use]
    pub fn sound(&self) -> Option<&'static [&'static str]> {
        (!self.faults.iter().any(is_of_disks)).then_some(&[
            "log_payloads_lost",
            "checksum_errors",
            "blocks_differing",
            "metadata_copies_repaired",
            "metadata_pages_rewritten",
            "metadata_copies_refused",
            "metadata_pages_unread",
        ])
    }
}

/// What goes wrong, but for the storms.
fn faults(dice: &mut Dice) -> Vec<Fault> {
    let mut faults: Vec<Fault> = OPTIONAL.to_vec();
    let odds = 2 + dice.below(3);
    faults.retain(|_| dice.once_in(odds));
    faults.push(Fault::PowerCut);
    if dice.once_in(4) {
        faults.extend(OF_FRAMES.iter().filter(|_| dice.once_in(2)));
    }
    if dice.once_in(3) {
        faults.push(*dice.pick(OF_DISKS));
        faults.push(*dice.pick(OF_DISKS));
        faults.sort();
        faults.dedup();
    }
    faults
}

fn is_of_disks(fault: &Fault) -> bool {
    OF_DISKS.contains(fault)
}

fn usages(dice: &mut Dice) -> Vec<Usage> {
    let volumes = 1 + u32::try_from(dice.below(2)).expect("a small number");
    (1..=volumes).map(|volume| usage(volume, dice)).collect()
}

/// About what is written in a second, below which a limited copy never ends, by order: of each request, half
/// of which are writes and few of them large.
fn written(usages: &[Usage]) -> ByteLen {
    const OF_REQUEST: u128 = 6 << 10;
    let of_each = usages.iter().map(|usage| {
        let second = Duration::from_secs(1).as_nanos() * u128::from(usage.workers);
        second / usage.pause.as_nanos().max(1) * OF_REQUEST
    });
    ByteLen::new(u64::try_from(of_each.sum::<u128>()).unwrap_or(u64::MAX))
}

fn usage(volume: u32, dice: &mut Dice) -> Usage {
    Usage {
        volume,
        chunks: 2,
        copysets: COPYSETS.to_vec(),
        hot: *dice.pick(&[2, 8, 32, 64, 256]),
        workers: 2 + u32::try_from(dice.below(6)).expect("a small number"),
        pause: if dice.once_in(10) {
            dice.millis(500..4000)
        } else {
            dice.millis(8..80)
        },
        // Of some volumes, half of what is written and read is as large as it gets.
        large_odds: match dice.below(30) {
            0..6 => 2,
            odds => odds,
        },
        abandon_odds: *dice.pick(&[3, 16, 16]),
        is_divided: dice.once_in(2),
    }
}
