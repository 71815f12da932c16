//! Bytes, where devices are even by number.
//!
//! Two devices of a zone exchange a replica each, or one that carries one more gives one, so that how many each carries
//! stays as even. Only if they are then nearer to each other by a part of what moves for it: so it ends, and not much moves for
//! nothing.

use ogee_proto::id::StoreId;

use super::{Gift, Planner};
use crate::limit::{LEVEL_MOVE_MIN, LEVEL_SHARE};
use crate::scheduler::picture::HealRules;
use crate::state::Cause;

/// Of two devices, the one that fills most and the one that fills least are tried first; so many of each.
const ENDS_TRIED: usize = 8;
/// Of so many bytes that move, at least one brings the devices nearer.
const WORTH: u64 = 32;

/// What a device gives, and takes for it.
struct Exchange<'a> {
    give: Gift<'a>,
    take: Option<Gift<'a>>,
}

impl<'a> Planner<'a> {
    /// After devices were made even by number, and only if nothing is to be moved for that.
    pub(super) fn level(&mut self, rules: &HealRules, limit: usize) {
        // Each step takes at least one copyset for good.
        while self.jobs.len() + 2 <= limit {
            let Some((from, to, exchange)) = self.best_exchange(rules) else {
                return;
            };
            self.give(&exchange.give, to);
            if let Some(take) = &exchange.take {
                self.give(take, from);
            }
        }
    }

    fn best_exchange(&self, rules: &HealRules) -> Option<(StoreId, StoreId, Exchange<'a>)> {
        self.by_fill().iter().find_map(|stores| {
            let fullest = stores.iter().rev().take(ENDS_TRIED);
            fullest.into_iter().find_map(|from| {
                let emptiest = stores.iter().take(ENDS_TRIED);
                let mut emptiest = emptiest.take_while(|to| self.are_apart(rules, *from, **to));
                emptiest.find_map(|to| {
                    let exchange = self.exchange(*from, *to)?;
                    Some((*from, *to, exchange))
                })
            })
        })
    }

    /// Devices that stand for each other, the emptiest first.
    fn by_fill(&self) -> Vec<Vec<StoreId>> {
        let zones = self.loads.zones();
        let shelves = zones.map(|(_, stores)| {
            let mut stores: Vec<StoreId> = stores.iter().map(|(_, store)| *store).collect();
            stores.sort_by_cached_key(|id| (self.fill(*id), *id));
            stores
        });
        shelves.collect()
    }

    /// Bytes on a device for so many bytes of it.
    fn fill(&self, store: StoreId) -> u128 {
        self.filled(store)
            .map_or(0, |(used, capacity)| (used << u64::BITS) / capacity.max(1))
    }

    /// Whether it is worth anything: nearly empty devices are no further apart than a part of what they hold at all.
    fn are_apart(&self, rules: &HealRules, from: StoreId, to: StoreId) -> bool {
        let (more, less) = (self.fill(from), self.fill(to));
        let apart = more.saturating_sub(less);
        let percent = match self.cause {
            Cause::AskedSpread => 0,
            _ => u128::from(rules.spread_percent),
        };
        apart > (1 << u64::BITS) / LEVEL_SHARE
            && self.wished_bytes(from, to) >= LEVEL_MOVE_MIN
            && apart.saturating_mul(200) > percent.saturating_mul(more.saturating_add(less))
    }

    /// What brings the two nearest to each other.
    fn exchange(&self, from: StoreId, to: StoreId) -> Option<Exchange<'a>> {
        let wish = self.wished_bytes(from, to);
        let gifts = self.exchangeable(from, to);
        let takes = match self.loads.may_exchange(from, to) {
            true => self.exchangeable(to, from),
            false => Vec::new(),
        };
        let may_give = self.loads.may_give(from, to);
        // What is missed, what moves, and which.
        let mut best: Option<(u64, u64, usize, Option<usize>)> = None;
        for (at, gift) in gifts.iter().enumerate() {
            let wanted = gift.bytes.saturating_sub(wish);
            // In the order of their bytes: the nearest is one of the two beside what is wanted.
            let next = takes.partition_point(|take| take.bytes < wanted);
            let beside = [
                next.checked_sub(1),
                Some(next).filter(|at| *at < takes.len()),
            ];
            let pairs = beside.into_iter().flatten();
            let pairs = pairs.filter(|take| takes[*take].id != gift.id).map(Some);
            for take in pairs.chain(may_give.then_some(None)) {
                let back = take.map_or(0, |take| takes[take].bytes);
                let missed = gift.bytes.saturating_sub(back).abs_diff(wish);
                let found = (missed, gift.bytes.saturating_add(back), at, take);
                if gift.bytes > back && best.is_none_or(|best| found < best) {
                    best = Some(found);
                }
            }
        }
        let (missed, moved, give, take) = best?;
        if wish.saturating_sub(missed) <= moved / WORTH {
            return None;
        }
        let taken = take.and_then(|take| takes.into_iter().nth(take));
        let given = gifts.into_iter().nth(give)?;
        Some(Exchange {
            give: given,
            take: taken,
        })
    }

    /// What a device may give that one, the least first. What leads, or would leave a device short of its pool's scatter
    /// width, stays: there is no hurry.
    fn exchangeable(&self, from: StoreId, to: StoreId) -> Vec<Gift<'a>> {
        let mut gifts = self.gifts(from);
        gifts.retain(|gift| {
            !gift.leads
                && (self.loads).is_target(gift.copyset, gift.replica, gift.bytes, to)
                && self.loads.harm(gift.copyset, gift.replica, to).0 == 0
        });
        gifts.sort_by_key(|gift| (gift.bytes, gift.id));
        gifts
    }
}
