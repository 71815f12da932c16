//! Leaders where they are even.
//!
//! Pure: who leads what, and who else could, in; transfers out. A chunkserver that leads two more than
//! another gives one away along a chain of replicas, however many hands it goes through, so that what
//! is left is as even as the placement of replicas allows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId};

use super::heal::lead;
use super::picture::Picture;
use crate::limit::{JOBS_PER_COMMAND_MAX, LEAD_COOLING_MS, LEAD_RETRY_MS};
use crate::state::{Cause, JobKind, JobState, NewJob, State};

/// A copyset whose leader may move.
struct Seat {
    leader: ChunkserverId,
    /// Who may lead, the leader included.
    fit: BTreeMap<ChunkserverId, ReplicaId>,
}

/// Transfers that make leaders even: all of them when an operator asked, else only of copysets that
/// were not moved lately.
pub(crate) fn balance(state: &State, picture: &Picture, cause: Cause) -> Vec<NewJob> {
    let (mut seats, mut led) = seats(state, picture, cause == Cause::Uneven);
    let before: BTreeMap<CopysetId, ChunkserverId> =
        seats.iter().map(|(id, seat)| (*id, seat.leader)).collect();
    while let Some(chain) = chain(&seats, &led) {
        for (id, from, to) in chain {
            if let Some(seat) = seats.get_mut(&id) {
                seat.leader = to;
            }
            *led.entry(from).or_default() -= 1;
            *led.entry(to).or_default() += 1;
        }
    }
    let moved = seats
        .iter()
        .filter(|(id, seat)| before.get(id) != Some(&seat.leader));
    let jobs = moved.filter_map(|(id, seat)| {
        let to = seat.fit.get(&seat.leader)?;
        Some(lead(*id, state.copysets().get(id)?, *to, cause))
    });
    jobs.take(JOBS_PER_COMMAND_MAX).collect()
}

/// Whether every copyset has its leader and all its replicas: else leaders move by themselves.
pub(crate) fn is_steady(state: &State, picture: &Picture) -> bool {
    let steady = |(id, copyset): (&CopysetId, &crate::state::Copyset)| {
        copyset.formed
            && copyset.change.is_none()
            && picture.leaders.contains_key(id)
            && picture.serving_of(copyset) == copyset.replicas.len()
    };
    state.busy().is_empty() && state.copysets().iter().all(steady)
}

type Seats = BTreeMap<CopysetId, Seat>;
type Led = BTreeMap<ChunkserverId, usize>;

/// Copysets that may be moved, and how many each chunkserver leads in all.
fn seats(state: &State, picture: &Picture, is_cool: bool) -> (Seats, Led) {
    let busy = state.busy();
    let moved = state.jobs().values().filter(|job| {
        let ago = picture.now_ms.saturating_sub(job.ended_ms);
        let cooling = match job.state {
            JobState::Done => LEAD_COOLING_MS,
            _ => LEAD_RETRY_MS,
        };
        job.kind == JobKind::Lead && !job.state.is_live() && ago < cooling
    });
    let warm: BTreeSet<CopysetId> = moved.filter(|_| is_cool).map(|job| job.copyset).collect();
    let (mut seats, mut led) = (Seats::new(), Led::new());
    for (id, copyset) in state.copysets() {
        let up = copyset.replicas.iter();
        let up = up.filter(|r| picture.is_up(r.store) && picture.serving.contains(&r.id));
        let fit: BTreeMap<ChunkserverId, ReplicaId> = up.map(|r| (r.chunkserver, r.id)).collect();
        for server in fit.keys() {
            led.entry(*server).or_default();
        }
        let leader = picture.leaders.get(id);
        let leader = copyset.replicas.iter().find(|r| leader == Some(&r.id));
        let Some(leader) = leader.map(|r| r.chunkserver) else {
            continue;
        };
        *led.entry(leader).or_default() += 1;
        let may_move = copyset.formed && copyset.change.is_none() && !busy.contains(id);
        if may_move && fit.contains_key(&leader) && !warm.contains(id) {
            seats.insert(*id, Seat { leader, fit });
        }
    }
    (seats, led)
}

/// A chain of transfers from a chunkserver that leads most to the one that leads fewest, at least two
/// fewer, of those that it reaches; the shortest.
fn chain(seats: &Seats, led: &Led) -> Option<Vec<(CopysetId, ChunkserverId, ChunkserverId)>> {
    let mut givers: Vec<(&ChunkserverId, &usize)> = led.iter().collect();
    givers.sort_by_key(|(id, count)| (std::cmp::Reverse(**count), **id));
    givers
        .into_iter()
        .find_map(|(giver, count)| chain_from(seats, led, *giver, *count))
}

fn chain_from(
    seats: &Seats,
    led: &Led,
    giver: ChunkserverId,
    count: usize,
) -> Option<Vec<(CopysetId, ChunkserverId, ChunkserverId)>> {
    let mut came: BTreeMap<ChunkserverId, Option<(CopysetId, ChunkserverId)>> =
        BTreeMap::from([(giver, None)]);
    let mut queue = VecDeque::from([giver]);
    let mut best: Option<(usize, ChunkserverId)> = None;
    while let Some(at) = queue.pop_front() {
        let leads = led.get(&at).copied().unwrap_or(0);
        if leads + 2 <= count && best.is_none_or(|(least, _)| leads < least) {
            best = Some((leads, at));
        }
        for (id, seat) in seats.iter().filter(|(_, seat)| seat.leader == at) {
            for next in seat.fit.keys() {
                if !came.contains_key(next) {
                    came.insert(*next, Some((*id, at)));
                    queue.push_back(*next);
                }
            }
        }
    }
    let (_, mut to) = best?;
    let mut chain = Vec::new();
    while let Some(Some((id, from))) = came.get(&to) {
        chain.push((*id, *from, to));
        to = *from;
    }
    Some(chain)
}
