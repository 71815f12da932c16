//! The volume map: chunk → copyset → replicas and their endpoints.
//!
//! *Place*: comes from the control plane at attach and at each refresh; `routes` holds the newest.
//! *Owner*: none; an immutable value.
//! *Invariants*: a map that exists covers every chunk of its volume: segments start at chunk 0,
//! ascend, name at least one copyset each, and every copyset named is described with at least one
//! replica. So a lookup cannot fail.
//! *On failure*: a map that breaks the rule is refused with what is wrong; the old one stays.

use ogee_proto::id::{ChunkIndex, CopysetId, ReplicaId, VolumeId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::VOLUME_COPYSETS_MAX;
use ogee_proto::unit::ByteLen;
use ogee_transport::Endpoint;
use rustc_hash::FxHashSet;

/// What a volume is, apart from where it lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeHead {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: String,
    /// Its size now.
    pub size: ByteLen,
    /// How its addresses spread over chunks.
    pub layout: StripeLayout,
}

/// Chunks from `first` up to the next segment's: chunk `i` lives in
/// `copysets[(i - first) % copysets.len()]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapSegment {
    /// First chunk.
    pub first: ChunkIndex,
    /// The copysets that the chunks go round.
    pub copysets: Vec<CopysetId>,
}

/// One copyset as the control plane sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopysetView {
    /// The copyset.
    pub id: CopysetId,
    /// Its replicas.
    pub replicas: Vec<ReplicaView>,
    /// Who led it when last heard of: a hint, never trusted.
    pub leader: Option<ReplicaId>,
}

/// One replica as the control plane sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaView {
    /// The replica.
    pub id: ReplicaId,
    /// Endpoint of its shard; unknown until its chunkserver has registered.
    pub endpoint: Option<Endpoint>,
}

/// The whole map of one volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeMap {
    head: VolumeHead,
    segments: Vec<MapSegment>,
    copysets: Vec<CopysetView>,
}

/// Why a map was refused: the control plane broke its promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Chunks below the first segment would live nowhere.
    #[error("volume map starts at chunk {0:?}, not at chunk 0")]
    Start(Option<ChunkIndex>),
    /// A segment starts at or before the one before it.
    #[error("volume map segment at {0} does not come after the one before it")]
    Order(ChunkIndex),
    /// A segment names no copyset, or too many.
    #[error("volume map segment at {first} names {count} copysets, not 1 to {VOLUME_COPYSETS_MAX}")]
    SegmentLen {
        /// The segment.
        first: ChunkIndex,
        /// How many it names.
        count: usize,
    },
    /// A copyset is named but not described, or has no replica.
    #[error("volume map names {0} without a replica")]
    Unplaced(CopysetId),
    /// The stripe layout is out of range.
    #[error("volume map has a bad layout")]
    Layout(#[from] ogee_proto::layout::LayoutError),
    /// A replica's endpoint is not an address.
    #[error("replica {replica} has the endpoint \"{text}\", which is not an ip:port")]
    Endpoint {
        /// The replica.
        replica: ReplicaId,
        /// What stood there.
        text: Box<str>,
    },
    /// A message lacks a part.
    #[error("volume map has no {0}")]
    Missing(&'static str),
}

impl VolumeMap {
    /// Checks the rule of the module and builds a map.
    ///
    /// # Errors
    /// [`MapError`] with the first rule found broken.
    pub fn new(
        head: VolumeHead,
        segments: Vec<MapSegment>,
        copysets: Vec<CopysetView>,
    ) -> Result<Self, MapError> {
        let start = segments.first().map(|segment| segment.first);
        if start != Some(ChunkIndex::new(0)) {
            return Err(MapError::Start(start));
        }
        if let Some([_, late]) = segments.array_windows().find(|[a, b]| a.first >= b.first) {
            return Err(MapError::Order(late.first));
        }
        let placed: FxHashSet<CopysetId> = copysets
            .iter()
            .filter(|c| !c.replicas.is_empty())
            .map(|c| c.id)
            .collect();
        for segment in &segments {
            check_segment(segment, &placed)?;
        }
        Ok(Self {
            head,
            segments,
            copysets,
        })
    }

    /// The volume itself.
    #[must_use]
    pub const fn head(&self) -> &VolumeHead {
        &self.head
    }

    /// The same, of a volume of that name.
    pub(crate) fn called(mut self, name: &str) -> Self {
        name.clone_into(&mut self.head.name);
        self
    }

    /// Every copyset that carries the volume.
    #[must_use]
    pub fn copysets(&self) -> &[CopysetView] {
        &self.copysets
    }

    /// Its segments, in order.
    pub(crate) fn segments(&self) -> &[MapSegment] {
        &self.segments
    }

    /// Whether another map says the same but for who leads.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        let replicas = |map: &Self| -> Vec<_> {
            let views = map.copysets.iter();
            views.map(|view| (view.id, view.replicas.clone())).collect()
        };
        self.head == other.head
            && self.segments == other.segments
            && replicas(self) == replicas(other)
    }

    /// Where `chunk` lives.
    #[must_use]
    pub fn copyset_of(&self, chunk: ChunkIndex) -> CopysetId {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= chunk);
        let segment = after.checked_sub(1).and_then(|at| self.segments.get(at));
        let segment = segment.expect("invariant: the first segment starts at chunk 0");
        let into = (chunk.get() - segment.first.get()) as usize % segment.copysets.len();
        *segment
            .copysets
            .get(into)
            .expect("invariant: a remainder is below its divisor")
    }
}

fn check_segment(segment: &MapSegment, placed: &FxHashSet<CopysetId>) -> Result<(), MapError> {
    let count = segment.copysets.len();
    if !(1..=VOLUME_COPYSETS_MAX).contains(&count) {
        return Err(MapError::SegmentLen {
            first: segment.first,
            count,
        });
    }
    match segment.copysets.iter().find(|id| !placed.contains(id)) {
        Some(id) => Err(MapError::Unplaced(*id)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> VolumeHead {
        VolumeHead {
            id: VolumeId::new(7),
            name: "v".into(),
            size: ByteLen::new(1 << 30),
            layout: StripeLayout::default(),
        }
    }

    fn segment(first: u32, copysets: &[u32]) -> MapSegment {
        let copysets = copysets.iter().map(|id| CopysetId::new(*id)).collect();
        MapSegment {
            first: ChunkIndex::new(first),
            copysets,
        }
    }

    fn views(ids: &[u32]) -> Vec<CopysetView> {
        let replicas = vec![ReplicaView {
            id: ReplicaId::new(1),
            endpoint: None,
        }];
        let view = |id: &u32| CopysetView {
            id: CopysetId::new(*id),
            replicas: replicas.clone(),
            leader: None,
        };
        ids.iter().map(view).collect()
    }

    #[test]
    fn chunks_go_round_the_copysets_of_their_segment() {
        let segments = vec![
            segment(0, &[4, 5, 6]),
            segment(4, &[9]),
            segment(6, &[4, 9]),
        ];
        let map = VolumeMap::new(head(), segments, views(&[4, 5, 6, 9])).unwrap();
        let found: Vec<u32> = (0..9)
            .map(|chunk| map.copyset_of(ChunkIndex::new(chunk)).get())
            .collect();
        assert_eq!(found, [4, 5, 6, 4, 9, 9, 4, 9, 4]);
    }

    #[test]
    fn a_map_with_a_hole_is_refused() {
        let build = |segments| VolumeMap::new(head(), segments, views(&[4])).unwrap_err();
        assert_eq!(build(vec![]), MapError::Start(None));
        let late = build(vec![segment(1, &[4])]);
        assert_eq!(late, MapError::Start(Some(ChunkIndex::new(1))));
        let twice = build(vec![segment(0, &[4]), segment(0, &[4])]);
        assert_eq!(twice, MapError::Order(ChunkIndex::new(0)));
        let empty = build(vec![segment(0, &[])]);
        assert_eq!(
            empty,
            MapError::SegmentLen {
                first: ChunkIndex::new(0),
                count: 0
            }
        );
        let unplaced = build(vec![segment(0, &[4, 5])]);
        assert_eq!(unplaced, MapError::Unplaced(CopysetId::new(5)));
    }
}
