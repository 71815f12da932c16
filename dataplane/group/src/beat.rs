//! Beats: what stands for the heartbeats of quiet groups, many groups in one frame.
//!
//! Request, meta: count `u32`, then per group copyset `u32`, replica that is meant `u64`, leader's
//! replica `u64`, term `u64`, index of the last entry `u64`. Reply, meta: count `u32`, then the
//! copysets that do not agree, `u32` each. The frame's version covers both. A lost beat or answer is
//! made good by the next: each says all there is to say.

use crate::limit::BEATS_MAX;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::wire::{Reader, WireError, Writer};

/// How a group stands that has nothing to do: who leads it, and up to where all replicas agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) leader: u64,
    pub(crate) term: u64,
    /// Index of the last entry: everywhere in the log, and applied.
    pub(crate) index: u64,
}

/// The word of a leader to one of its followers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Beat {
    pub(crate) copyset: CopysetId,
    /// Who is meant: an endpoint may have changed hands.
    pub(crate) to: ReplicaId,
    pub(crate) standing: Standing,
}

pub(crate) fn put_beats(out: &mut Vec<u8>, beats: &[Beat]) {
    put_count(out, beats.len());
    for beat in beats {
        Writer::new(out)
            .u32(beat.copyset.get())
            .u64(beat.to.get())
            .u64(beat.standing.leader)
            .u64(beat.standing.term)
            .u64(beat.standing.index);
    }
}

pub(crate) fn get_beats(meta: &[u8]) -> Result<Vec<Beat>, WireError> {
    let mut from = Reader::new(meta);
    let count = get_count(&mut from)?;
    let mut beats = Vec::with_capacity(count);
    for _ in 0..count {
        beats.push(Beat {
            copyset: CopysetId::new(from.u32("beat copyset")?),
            to: ReplicaId::new(from.u64("beat replica")?),
            standing: Standing {
                leader: from.u64("beat leader")?,
                term: from.u64("beat term")?,
                index: from.u64("beat index")?,
            },
        });
    }
    from.finish("beats")?;
    Ok(beats)
}

pub(crate) fn put_refused(out: &mut Vec<u8>, refused: &[CopysetId]) {
    put_count(out, refused.len());
    for copyset in refused {
        Writer::new(out).u32(copyset.get());
    }
}

pub(crate) fn get_refused(meta: &[u8]) -> Result<Vec<CopysetId>, WireError> {
    let mut from = Reader::new(meta);
    let count = get_count(&mut from)?;
    let mut refused = Vec::with_capacity(count);
    for _ in 0..count {
        refused.push(CopysetId::new(from.u32("refused copyset")?));
    }
    from.finish("refused beats")?;
    Ok(refused)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    Writer::new(out).u32(u32::try_from(count).expect("invariant: at most BEATS_MAX"));
}

fn get_count(from: &mut Reader<'_>) -> Result<usize, WireError> {
    let (field, value) = ("beats", from.u32("beat count")? as usize);
    let limit = BEATS_MAX;
    if value > limit {
        return Err(WireError::Length {
            field,
            value,
            limit,
        });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::{Beat, Standing, get_beats, get_refused, put_beats, put_refused};
    use crate::limit::BEATS_MAX;
    use ogee_proto::id::{CopysetId, ReplicaId};

    fn beat(n: u32) -> Beat {
        Beat {
            copyset: CopysetId::new(n),
            to: ReplicaId::new(u64::MAX - u64::from(n)),
            standing: Standing {
                leader: 1 << 40,
                term: 7,
                index: u64::from(n) << 33,
            },
        }
    }

    #[test]
    fn there_and_back() {
        for count in [0, 1, 64, u32::try_from(BEATS_MAX).unwrap()] {
            let beats: Vec<Beat> = (0..count).map(beat).collect();
            let copysets: Vec<CopysetId> = beats.iter().map(|beat| beat.copyset).collect();
            let (mut request, mut reply) = (Vec::new(), Vec::new());
            put_beats(&mut request, &beats);
            put_refused(&mut reply, &copysets);
            assert!(request.len() <= ogee_proto::limit::FRAME_META_MAX);
            assert_eq!(get_beats(&request), Ok(beats));
            assert_eq!(get_refused(&reply), Ok(copysets));
        }
    }

    #[test]
    fn every_cut_every_tail_and_a_lying_count_are_refused() {
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        put_beats(&mut request, &[beat(1), beat(2)]);
        put_refused(&mut reply, &[CopysetId::new(9)]);
        for cut in 0..request.len() {
            assert!(get_beats(&request[..cut]).is_err(), "{cut}");
        }
        for cut in 0..reply.len() {
            assert!(get_refused(&reply[..cut]).is_err(), "{cut}");
        }
        for bytes in [&mut request, &mut reply] {
            bytes.push(0);
            assert!(get_beats(bytes).is_err() && get_refused(bytes).is_err());
            bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(get_beats(bytes).is_err() && get_refused(bytes).is_err());
        }
    }
}
