//! Versions of sectors that a crash could still undo.

use super::image::Image;
use crate::limit::CRASH_SECTOR;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

const ZEROS: &[u8; CRASH_SECTOR] = &[0; CRASH_SECTOR];

/// When a change was submitted, relative to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Moment(u64);

/// What becomes of a sector in a crash.
pub(super) enum Survivor {
    /// The durable version (0) or one of those since.
    Version(usize),
    /// None of them.
    #[cfg(ogee_sim)]
    Garbage(Box<[u8; CRASH_SECTOR]>),
}

/// One version of one sector.
#[derive(Debug)]
struct Version {
    moment: Moment,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Zeros,
    /// The sector at `at` of one write's data, which all of its sectors share.
    Data {
        data: Rc<[u8]>,
        at: usize,
    },
}

/// Every version since the durable one, oldest first, of every sector that has any.
#[derive(Debug, Default)]
pub(super) struct History {
    sectors: BTreeMap<u64, Vec<Version>>,
    now: Moment,
}

impl History {
    /// Records a write.
    pub(super) fn record(&mut self, offset: ByteOffset, data: &Rc<[u8]>) -> Moment {
        let len = ByteLen::from_usize(data.len());
        self.record_each(offset, len, |at| Contents::Data {
            data: Rc::clone(data),
            at,
        })
    }

    /// Records a discard.
    pub(super) fn record_zeros(&mut self, offset: ByteOffset, len: ByteLen) -> Moment {
        self.record_each(offset, len, |_| Contents::Zeros)
    }

    /// The newest change so far: what a flush that begins now must make durable.
    pub(super) const fn now(&self) -> Moment {
        self.now
    }

    /// Sectors that a crash could change.
    pub(super) fn len(&self) -> usize {
        self.sectors.len()
    }

    /// Makes durable, in `image`, what was submitted to the whole device up to `until`.
    pub(super) fn settle_all(&mut self, until: Moment, image: &mut Image) {
        self.settle_if(0..u64::MAX, |moment| moment <= until, image);
    }

    /// Makes durable, in `image`, what was submitted to a range up to `until`.
    pub(super) fn settle(
        &mut self,
        offset: ByteOffset,
        len: ByteLen,
        until: Moment,
        image: &mut Image,
    ) {
        self.settle_if(sectors(offset, len), |moment| moment <= until, image);
    }

    /// What a crash leaves: for each sector what `choose` picks, given the number of versions since
    /// the durable one.
    pub(super) fn crash(&self, image: &mut Image, mut choose: impl FnMut(usize) -> Survivor) {
        for (sector, versions) in &self.sectors {
            match choose(versions.len()) {
                Survivor::Version(choice) => {
                    if let Some(version) = choice.checked_sub(1).and_then(|at| versions.get(at)) {
                        image.write_sector(*sector, version.bytes());
                    }
                }
                #[cfg(ogee_sim)]
                Survivor::Garbage(bytes) => image.write_sector(*sector, &bytes),
            }
        }
    }

    /// Whether a crash could change anything of a range.
    #[cfg(ogee_sim)]
    pub(super) fn touches(&self, offset: ByteOffset, len: ByteLen) -> bool {
        self.sectors.range(sectors(offset, len)).next().is_some()
    }

    fn record_each(
        &mut self,
        offset: ByteOffset,
        len: ByteLen,
        contents: impl Fn(usize) -> Contents,
    ) -> Moment {
        self.now = Moment(self.now.0 + 1);
        for (index, sector) in sectors(offset, len).enumerate() {
            let contents = contents(index * CRASH_SECTOR);
            let version = Version {
                moment: self.now,
                contents,
            };
            self.sectors.entry(sector).or_default().push(version);
        }
        self.now
    }

    /// Makes durable the newest version of each sector that is due, in place of all before it.
    pub(super) fn settle_if(
        &mut self,
        range: Range<u64>,
        is_due: impl Fn(Moment) -> bool,
        image: &mut Image,
    ) {
        let mut settled = Vec::new();
        for (sector, versions) in self.sectors.range_mut(range) {
            let newest = versions.iter().rposition(|version| is_due(version.moment));
            let old = newest.map_or(0, |newest| newest + 1);
            if let Some(newest) = old.checked_sub(1).and_then(|at| versions.get(at)) {
                image.write_sector(*sector, newest.bytes());
            }
            versions.drain(..old);
            if versions.is_empty() {
                settled.push(*sector);
            }
        }
        for sector in settled {
            self.sectors.remove(&sector);
        }
    }
}

impl Version {
    fn bytes(&self) -> &[u8; CRASH_SECTOR] {
        match &self.contents {
            Contents::Zeros => ZEROS,
            Contents::Data { data, at } => data
                .get(*at..)
                .and_then(|rest| rest.first_chunk())
                .expect("invariant: a write was recorded sector by sector"),
        }
    }
}

fn sectors(offset: ByteOffset, len: ByteLen) -> Range<u64> {
    let sector = CRASH_SECTOR as u64;
    offset.get() / sector..offset.add(len).get() / sector
}
