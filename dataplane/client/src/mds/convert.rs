//! Messages of the metadata server → checked values.
//!
//! *Place*: between `volumes` and the rest of the crate.
//! *Owner*: none; pure functions.
//! *Invariants*: what passes here is in range; the map's own rule is checked by `VolumeMap::new`.
//! *On failure*: [`MapError`] names the field; nothing of the message is used.

use crate::control::Grant;
use crate::map::{CopysetView, MapError, MapSegment, ReplicaView, VolumeHead, VolumeMap};
use ogee_proto::id::{ChunkIndex, ClientId, CopysetId, Epoch, Incarnation, ReplicaId, VolumeId};
use ogee_proto::layout::StripeLayout;
use ogee_proto::limit::CHUNK_SIZE;
use ogee_proto::service as message;
use ogee_proto::unit::ByteLen;
use ogee_transport::Endpoint;

/// An attachment as granted.
pub(super) fn grant(from: message::Attachment) -> Result<Grant, MapError> {
    Ok(Grant {
        client: ClientId::new(from.client),
        epoch: Epoch::new(from.epoch),
        incarnation: Incarnation::new(1),
        map: map(from.map.ok_or(MapError::Missing("map"))?)?,
    })
}

/// A volume map.
pub(super) fn map(from: message::VolumeMap) -> Result<VolumeMap, MapError> {
    let head = head(from.volume.ok_or(MapError::Missing("volume"))?)?;
    let segments = from.segments.into_iter().map(segment).collect();
    let copysets = from
        .copysets
        .into_iter()
        .map(copyset)
        .collect::<Result<_, MapError>>()?;
    VolumeMap::new(head, segments, copysets)
}

fn head(from: message::VolumeInfo) -> Result<VolumeHead, MapError> {
    // Zero stands for the default in both fields.
    let unit = if from.stripe_unit == 0 {
        CHUNK_SIZE as u64
    } else {
        from.stripe_unit
    };
    Ok(VolumeHead {
        id: VolumeId::new(from.id),
        name: from.name,
        size: ByteLen::new(from.size),
        layout: StripeLayout::new(unit, u64::from(from.stripe_count.max(1)))?,
    })
}

fn segment(from: message::MapSegment) -> MapSegment {
    MapSegment {
        first: ChunkIndex::new(from.first_chunk),
        copysets: from.copysets.into_iter().map(CopysetId::new).collect(),
    }
}

fn copyset(from: message::CopysetInfo) -> Result<CopysetView, MapError> {
    Ok(CopysetView {
        id: CopysetId::new(from.id),
        replicas: from
            .replicas
            .into_iter()
            .map(replica)
            .collect::<Result<_, MapError>>()?,
        leader: Some(from.leader_replica)
            .filter(|id| *id != 0)
            .map(ReplicaId::new),
    })
}

fn replica(from: message::ReplicaInfo) -> Result<ReplicaView, MapError> {
    let id = ReplicaId::new(from.id);
    let bad = |text: &str| MapError::Endpoint {
        replica: id,
        text: text.into(),
    };
    let endpoint = match from.endpoint.as_str() {
        "" => None,
        text => Some(text.parse::<Endpoint>().map_err(|_| bad(text))?),
    };
    Ok(ReplicaView { id, endpoint })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> message::VolumeMap {
        let replica = |id: u64, endpoint: &str| message::ReplicaInfo {
            id,
            endpoint: endpoint.into(),
            ..Default::default()
        };
        message::VolumeMap {
            volume: Some(message::VolumeInfo {
                id: 9,
                name: "v".into(),
                size: 1 << 30,
                ..Default::default()
            }),
            segments: vec![message::MapSegment {
                first_chunk: 0,
                copysets: vec![3],
            }],
            copysets: vec![message::CopysetInfo {
                id: 3,
                replicas: vec![replica(31, "10.0.0.1:7000"), replica(32, "")],
                leader_replica: 31,
                ..Default::default()
            }],
            mds: vec![],
        }
    }

    #[test]
    fn a_map_comes_through() {
        let map = map(message()).unwrap();
        assert_eq!(map.head().layout, StripeLayout::default());
        assert_eq!(map.copyset_of(ChunkIndex::new(17)), CopysetId::new(3));
        let view = &map.copysets()[0];
        assert_eq!(view.leader, Some(ReplicaId::new(31)));
        let endpoints: Vec<_> = view.replicas.iter().map(|r| r.endpoint.clone()).collect();
        assert_eq!(endpoints, [Some("10.0.0.1:7000".parse().unwrap()), None]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let refused = |change: fn(&mut message::VolumeMap)| {
            let mut from = message();
            change(&mut from);
            map(from).unwrap_err()
        };
        assert_eq!(refused(|m| m.volume = None), MapError::Missing("volume"));
        let layout = refused(|m| m.volume.as_mut().unwrap().stripe_unit = 5000);
        assert!(matches!(layout, MapError::Layout(_)));
        let endpoint = refused(|m| m.copysets[0].replicas[0].endpoint = "nowhere".into());
        assert!(matches!(endpoint, MapError::Endpoint { replica, .. } if replica.get() == 31));
    }
}
