//! Which faults really happened.
//!
//! *Place*: counted by the nemesis and by the engine; asked at the end. *Owner*: one run.
//! *Invariants*: a fault counts only once it has had an effect, not when it was ordered.
//! *On failure*: a run in which a required fault never happened proves nothing, and says so.

use std::collections::BTreeMap;
use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A machine lost power.
    PowerCut,
    /// All machines lost power at once.
    PowerCutAll,
    /// A process was killed.
    Kill,
    /// A process ended in an orderly way and came back.
    Restart,
    /// A process was not scheduled for a while.
    Stop,
    /// A machine slept, and its clock with it.
    Sleep,
    /// A machine's clock ran at another rate.
    Drift,
    /// Nothing went from one machine to another, one way.
    OneWayCut,
    /// A machine was cut off.
    Isolation,
    /// A link was slow.
    Clog,
    /// Connections broke, at either end at another moment.
    Break,
    /// A frame was lost.
    FrameDrop,
    /// A frame came twice.
    FrameDuplicate,
    /// A frame was overtaken.
    FrameReorder,
    /// A request of an earlier connection came again.
    FrameReplay,
    /// A bit of a frame flipped where no checksum of the network sees it.
    FrameCorrupt,
    /// A request landed, its completion did not.
    CompletionLoss,
    /// A client process died with requests under way.
    ClientKill,
    /// A client was stopped, its volume attached elsewhere, and it came back.
    ClientRevival,
    /// A volume was given up and attached elsewhere.
    Reattach,
    /// A volume was attached elsewhere while its client went on.
    Takeover,
    /// A replica was replaced by another.
    Replace,
    /// Leadership was ordered elsewhere.
    Transfer,
    /// The metadata server was out of reach.
    MdsOut,
    /// Sectors of unflushed writes were lost in a power cut.
    SectorLoss,
    /// Sectors of unflushed writes became garbage.
    SectorGarble,
    /// A disk was slow.
    Limp,
    /// A bit of the log flipped.
    LogRot,
    /// A bit of the data flipped.
    DataRot,
    /// A bit of the metadata flipped.
    MetaRot,
    /// A write was lost.
    LostWrite,
    /// A write went elsewhere.
    MisdirectedWrite,
    /// A block could not be read.
    BadBlock,
    /// A write or flush failed.
    WriteError,
    /// A write was refused for want of space.
    NoSpace,
    /// A disk was replaced by an empty one.
    DiskLoss,
}

impl Fault {
    /// Whether it damages some blocks, each of which the disk has once more, or other disks have as well.
    #[must_use]
    pub const fn is_of_one_block(self) -> bool {
        matches!(
            self,
            Self::LogRot | Self::DataRot | Self::MetaRot | Self::BadBlock
        )
    }

    /// Whether it happens to single frames.
    #[must_use]
    pub const fn is_of_frames(self) -> bool {
        matches!(
            self,
            Self::FrameDrop
                | Self::FrameDuplicate
                | Self::FrameReorder
                | Self::FrameReplay
                | Self::FrameCorrupt
                | Self::CompletionLoss
        )
    }
}

/// How often each happened.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<Fault, u64>);

impl Coverage {
    /// It happened.
    pub fn add(&mut self, fault: Fault, times: u64) {
        if times > 0 {
            *self.0.entry(fault).or_default() += times;
        }
    }

    /// All of these happened, too.
    pub fn add_all(&mut self, other: &Self) {
        other
            .0
            .iter()
            .for_each(|(fault, times)| self.add(*fault, *times));
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    /// Those that should have happened and did not.
    #[must_use]
    pub fn missing(&self, required: &[Fault]) -> Vec<Fault> {
        let missing = required.iter().filter(|fault| self.count(**fault) == 0);
        missing.copied().collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (fault, count)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{fault:?}={count}")?;
        }
        Ok(())
    }
}
