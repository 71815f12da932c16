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

/// Transfers that make leaders even, at most so many: all of them when an operator asked, else only of
/// copysets that were not moved lately.
pub(crate) fn balance(state: &State, picture: &Picture, cause: Cause) -> Vec<NewJob> {
    let (mut seats, led) = seats(state, picture, cause == Cause::Uneven);
    let before: BTreeMap<CopysetId, ChunkserverId> =
        seats.iter().map(|(id, seat)| (*id, seat.leader)).collect();
    let mut table = Table::new(&seats, led);
    let mut moved = BTreeSet::new();
    while moved.len() < JOBS_PER_COMMAND_MAX {
        let Some(chain) = table.chain(&seats) else {
            break;
        };
        for (id, from, to) in chain {
            if let Some(seat) = seats.get_mut(&id) {
                seat.leader = to;
            }
            table.hand_over(id, from, to);
            moved.insert(id);
        }
    }
    let moved = moved.into_iter().filter_map(|id| {
        let seat = seats.get(&id)?;
        let is_elsewhere = before.get(&id) != Some(&seat.leader);
        let to = seat.fit.get(&seat.leader).filter(|_| is_elsewhere)?;
        Some(lead(id, state.copysets().get(&id)?, *to, cause))
    });
    moved.take(JOBS_PER_COMMAND_MAX).collect()
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

/// How many copysets each chunkserver leads, and which of them may move.
struct Table {
    led: Led,
    seats: BTreeMap<ChunkserverId, BTreeSet<CopysetId>>,
    /// Those that reach nobody who leads two fewer than they do, nor do those whom they reach. Nobody gets fewer but
    /// by giving, and nobody whom they reach gives: so it stays.
    settled: BTreeSet<ChunkserverId>,
}

impl Table {
    fn new(seats: &Seats, led: Led) -> Self {
        let mut by_leader: BTreeMap<ChunkserverId, BTreeSet<CopysetId>> = BTreeMap::new();
        for (id, seat) in seats {
            by_leader.entry(seat.leader).or_default().insert(*id);
        }
        Self {
            led,
            seats: by_leader,
            settled: BTreeSet::new(),
        }
    }

    fn hand_over(&mut self, id: CopysetId, from: ChunkserverId, to: ChunkserverId) {
        *self.led.entry(from).or_default() -= 1;
        *self.led.entry(to).or_default() += 1;
        self.seats.entry(from).or_default().remove(&id);
        self.seats.entry(to).or_default().insert(id);
    }

    /// A chain of transfers from a chunkserver that leads most to one that leads at least two fewer: the
    /// shortest, and of those the one to whom leads fewest.
    fn chain(&mut self, seats: &Seats) -> Option<Vec<(CopysetId, ChunkserverId, ChunkserverId)>> {
        let least = self.led.values().copied().min()?;
        let givers = self.led.iter().filter(|(_, count)| **count >= least + 2);
        let mut givers: Vec<(usize, ChunkserverId)> =
            givers.map(|(id, count)| (*count, *id)).collect();
        givers.sort_by_key(|(count, id)| (std::cmp::Reverse(*count), *id));
        for (count, giver) in givers {
            if self.settled.contains(&giver) {
                continue;
            }
            match self.chain_from(seats, giver, count) {
                Ok(chain) => return Some(chain),
                Err(reached) => self.settled.extend(reached),
            }
        }
        None
    }

    /// Or all whom it reaches.
    fn chain_from(
        &self,
        seats: &Seats,
        giver: ChunkserverId,
        count: usize,
    ) -> Result<Vec<(CopysetId, ChunkserverId, ChunkserverId)>, BTreeSet<ChunkserverId>> {
        let mut came: BTreeMap<ChunkserverId, Option<(CopysetId, ChunkserverId)>> =
            BTreeMap::from([(giver, None)]);
        let mut level = VecDeque::from([giver]);
        while !level.is_empty() {
            let mut next_level = VecDeque::new();
            for at in level {
                for id in self.seats.get(&at).into_iter().flatten() {
                    let fit = seats.get(id).into_iter().flat_map(|seat| seat.fit.keys());
                    for next in fit {
                        if !came.contains_key(next) {
                            came.insert(*next, Some((*id, at)));
                            next_level.push_back(*next);
                        }
                    }
                }
            }
            let led = |server: &ChunkserverId| self.led.get(server).copied().unwrap_or(0);
            let takers = next_level.iter().filter(|server| led(server) + 2 <= count);
            if let Some(to) = takers.min_by_key(|server| (led(server), **server)) {
                return Ok(links(&came, *to));
            }
            level = next_level;
        }
        Err(came.into_keys().collect())
    }
}

/// The chain that came there.
fn links(
    came: &BTreeMap<ChunkserverId, Option<(CopysetId, ChunkserverId)>>,
    mut to: ChunkserverId,
) -> Vec<(CopysetId, ChunkserverId, ChunkserverId)> {
    let mut chain = Vec::new();
    while let Some(Some((id, from))) = came.get(&to) {
        chain.push((*id, *from, to));
        to = *from;
    }
    chain
}
