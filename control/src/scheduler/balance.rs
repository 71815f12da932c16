//! Leaders where they are even.
//!
//! Pure: who leads what, who else could, and how much is asked of each copyset, in; transfers out. A chunkserver
//! that leads two more than another gives one away along a chain of replicas, however many hands it goes
//! through, so that what is left is as even as the placement of replicas allows. Then those that are asked for
//! much are spread (`exchange`), which leaves the numbers as even.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId};

use super::exchange::exchange;
use super::heal::lead;
use super::picture::Picture;
use crate::limit::{JOBS_PER_COMMAND_MAX, LEAD_COOLING_MS, LEAD_RETRY_MS};
use crate::state::{Cause, JobKind, JobState, NewJob, State};

/// A copyset whose leader may move.
pub(super) struct Seat {
    leader: ChunkserverId,
    /// Who may lead, the leader included.
    pub(super) fit: BTreeMap<ChunkserverId, ReplicaId>,
    /// What is asked of it, a second.
    pub(super) demand: u64,
}

/// A transfer, and what speaks for it.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    pub(crate) job: NewJob,
    /// Who leads now, and who will.
    pub(crate) from: Standing,
    pub(crate) to: Standing,
    /// What is asked of the copyset, a second.
    pub(crate) demand: u64,
}

/// What a chunkserver leads before anything is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) chunkserver: ChunkserverId,
    pub(crate) leads: usize,
    pub(crate) demand: u64,
}

/// Transfers that make leaders even, at most so many: all of them when an operator asked, else only of
/// copysets that were not moved lately. Their demand counts if evening that out gains so many `percent` (0: not).
pub(crate) fn balance(
    state: &State,
    picture: &Picture,
    percent: u64,
    cause: Cause,
) -> Vec<Handover> {
    let (mut seats, led, demand) = seats(state, picture, cause == Cause::Uneven);
    let before: BTreeMap<CopysetId, ChunkserverId> =
        seats.iter().map(|(id, seat)| (*id, seat.leader)).collect();
    let (leads, demands) = (led.clone(), demand.clone());
    let standing = |chunkserver: ChunkserverId| Standing {
        chunkserver,
        leads: leads.get(&chunkserver).copied().unwrap_or(0),
        demand: demands.get(&chunkserver).copied().unwrap_or(0),
    };
    let mut table = Table::new(&seats, led, demand);
    let mut moved = BTreeSet::new();
    while moved.len() < JOBS_PER_COMMAND_MAX {
        let Some(chain) = table.chain(&seats) else {
            break;
        };
        for (id, from, to) in chain {
            table.hand_over(&mut seats, id, from, to);
            moved.insert(id);
        }
    }
    exchange(&mut table, &mut seats, percent, &mut moved);
    let moved = moved.into_iter().filter_map(|id| {
        let seat = seats.get(&id)?;
        let from = before.get(&id).filter(|from| **from != seat.leader)?;
        let to = seat.fit.get(&seat.leader)?;
        Some(Handover {
            job: lead(id, state.copysets().get(&id)?, *to, cause),
            from: standing(*from),
            to: standing(seat.leader),
            demand: seat.demand,
        })
    });
    moved.take(JOBS_PER_COMMAND_MAX).collect()
}

/// Whether every copyset has its leader and all its replicas: else leaders move by themselves.
pub(crate) fn is_steady(state: &State, picture: &Picture) -> bool {
    let steady = |(id, copyset): (&CopysetId, &crate::state::Copyset)| {
        copyset.formed
            && copyset.is_complete()
            && copyset.change.is_none()
            && picture.leaders.contains_key(id)
            && picture.serving_of(copyset) == copyset.replicas.len()
    };
    state.busy().is_empty() && state.copysets().iter().all(steady)
}

pub(super) type Seats = BTreeMap<CopysetId, Seat>;
type Led = BTreeMap<ChunkserverId, usize>;
type Demands = BTreeMap<ChunkserverId, u64>;

/// Copysets that may be moved, and how many each chunkserver leads in all, with what is asked of them.
fn seats(state: &State, picture: &Picture, is_cool: bool) -> (Seats, Led, Demands) {
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
    let (mut seats, mut led, mut demands) = (Seats::new(), Led::new(), Demands::new());
    for (id, copyset) in state.copysets() {
        let up = copyset.replicas.iter();
        let up = up.filter(|r| picture.is_up(r.store) && picture.serving.contains(&r.id));
        let fit: BTreeMap<ChunkserverId, ReplicaId> = up.map(|r| (r.chunkserver, r.id)).collect();
        for server in fit.keys() {
            led.entry(*server).or_default();
            demands.entry(*server).or_default();
        }
        let leader = picture.leaders.get(id);
        let leader = copyset.replicas.iter().find(|r| leader == Some(&r.id));
        let Some(leader) = leader.map(|r| r.chunkserver) else {
            continue;
        };
        *led.entry(leader).or_default() += 1;
        let demand = picture.demand.get(id).copied().unwrap_or(0);
        let sum = demands.entry(leader).or_default();
        *sum = sum.saturating_add(demand);
        let may_move = copyset.formed && copyset.change.is_none() && !busy.contains(id);
        if may_move && fit.contains_key(&leader) && !warm.contains(id) {
            let seat = Seat {
                leader,
                fit,
                demand,
            };
            seats.insert(*id, seat);
        }
    }
    (seats, led, demands)
}

/// How many copysets each chunkserver leads, and which of them may move.
pub(super) struct Table {
    pub(super) led: Led,
    /// What is asked of the copysets that each leads, a second.
    pub(super) demand: Demands,
    pub(super) seats: BTreeMap<ChunkserverId, BTreeSet<CopysetId>>,
    /// Those that reach nobody who leads two fewer than they do, nor do those whom they reach. Nobody gets fewer but
    /// by giving, and nobody whom they reach gives: so it stays.
    settled: BTreeSet<ChunkserverId>,
}

impl Table {
    fn new(seats: &Seats, led: Led, demand: Demands) -> Self {
        let mut by_leader: BTreeMap<ChunkserverId, BTreeSet<CopysetId>> = BTreeMap::new();
        for (id, seat) in seats {
            by_leader.entry(seat.leader).or_default().insert(*id);
        }
        Self {
            led,
            demand,
            seats: by_leader,
            settled: BTreeSet::new(),
        }
    }

    pub(super) fn hand_over(
        &mut self,
        seats: &mut Seats,
        id: CopysetId,
        from: ChunkserverId,
        to: ChunkserverId,
    ) {
        let demand = seats.get_mut(&id).map_or(0, |seat| {
            seat.leader = to;
            seat.demand
        });
        let less = self.demand.entry(from).or_default();
        *less = less.saturating_sub(demand);
        let more = self.demand.entry(to).or_default();
        *more = more.saturating_add(demand);
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
