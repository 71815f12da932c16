//! Leaders of what is asked for most, apart from each other.
//!
//! Pure, after leaders were made even by number: two chunkservers exchange a copyset each, or one that leads
//! one more than the other gives one, so that how many each leads stays as even. Only if that brings their demands
//! nearer to each other by a clear margin; so the sum of squares of demands falls with each exchange,
//! and it ends.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, CopysetId};

use super::balance::{Seats, Table};
use crate::limit::{DEMAND_MIN, EXCHANGE_SWEEPS_MAX, JOBS_PER_COMMAND_MAX};

/// What one chunkserver gives another, and takes for it.
struct Exchange {
    to: ChunkserverId,
    give: CopysetId,
    take: Option<CopysetId>,
    /// By how much less their demands differ afterwards.
    gain: u64,
}

/// By at least so many percent of what a chunkserver leads on average; 0: never.
pub(super) fn exchange(
    table: &mut Table,
    seats: &mut Seats,
    percent: u64,
    moved: &mut BTreeSet<CopysetId>,
) {
    let servers = u64::try_from(table.demand.len()).unwrap_or(u64::MAX);
    let all: u64 = table
        .demand
        .values()
        .fold(0, |sum, it| sum.saturating_add(*it));
    let mean = all / servers.max(1);
    if percent == 0 || mean < DEMAND_MIN {
        return;
    }
    let margin = (mean.saturating_mul(percent) / 100).max(1);
    for _ in 0..EXCHANGE_SWEEPS_MAX {
        let mut givers: Vec<(u64, ChunkserverId)> =
            table.demand.iter().map(|(id, it)| (*it, *id)).collect();
        givers.sort_unstable_by_key(|(demand, id)| (std::cmp::Reverse(*demand), *id));
        let before = moved.len();
        let mut has_changed = false;
        for (_, giver) in givers {
            // An exchange is two.
            while moved.len() + 2 <= JOBS_PER_COMMAND_MAX {
                let found = best(table, seats, giver).filter(|it| it.gain >= margin);
                let Some(found) = found else { break };
                table.hand_over(seats, found.give, giver, found.to);
                moved.insert(found.give);
                if let Some(take) = found.take {
                    table.hand_over(seats, take, found.to, giver);
                    moved.insert(take);
                }
                has_changed = true;
            }
        }
        if !has_changed && moved.len() == before {
            return;
        }
    }
}

/// What a chunkserver had best exchange with whom.
fn best(table: &Table, seats: &Seats, giver: ChunkserverId) -> Option<Exchange> {
    let own = table.seats.get(&giver)?;
    let mut partners: BTreeMap<ChunkserverId, Vec<CopysetId>> = BTreeMap::new();
    for id in own {
        let fit = seats.get(id).into_iter().flat_map(|seat| seat.fit.keys());
        for server in fit.filter(|server| **server != giver) {
            partners.entry(*server).or_default().push(*id);
        }
    }
    let mut best: Option<Exchange> = None;
    for (to, given) in partners {
        let found = best_with(table, seats, (giver, to), &given);
        let is_better = |it: &Exchange| best.as_ref().is_none_or(|best| it.gain > best.gain);
        if let Some(found) = found.filter(is_better) {
            best = Some(found);
        }
    }
    best
}

fn best_with(
    table: &Table,
    seats: &Seats,
    (giver, to): (ChunkserverId, ChunkserverId),
    given: &[CopysetId],
) -> Option<Exchange> {
    let demand = |server: &ChunkserverId| table.demand.get(server).copied().unwrap_or(0);
    let led = |server: &ChunkserverId| table.led.get(server).copied().unwrap_or(0);
    let apart = demand(&giver)
        .checked_sub(demand(&to))
        .filter(|it| *it > 0)?;
    let theirs = table.seats.get(&to).into_iter().flatten();
    let theirs = theirs.filter_map(|id| Some((*id, seats.get(id)?)));
    let theirs = theirs.filter(|(_, seat)| seat.fit.contains_key(&giver));
    let mut back: Vec<(u64, Option<CopysetId>)> =
        theirs.map(|(id, seat)| (seat.demand, Some(id))).collect();
    if led(&giver) > led(&to) {
        back.push((0, None));
    }
    back.sort_unstable();
    let mut best: Option<Exchange> = None;
    for give in given {
        let gives = seats.get(give).map_or(0, |seat| seat.demand);
        // Half of what they are apart, on balance, is best: one of the two nearest to that.
        let wish = gives.saturating_sub(apart / 2);
        let at = back.partition_point(|(demand, _)| *demand < wish);
        let nearest = back.iter().skip(at.saturating_sub(1)).take(2);
        for (takes, take) in nearest {
            let Some(net) = gives.checked_sub(*takes) else {
                continue;
            };
            let left = apart.abs_diff(net.saturating_mul(2));
            let gain = apart.saturating_sub(left);
            if best.as_ref().is_none_or(|best| gain > best.gain) {
                best = Some(Exchange {
                    to,
                    give: *give,
                    take: *take,
                    gain,
                });
            }
        }
    }
    best
}
