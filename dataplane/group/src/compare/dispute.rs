//! Blocks in which replicas differ, and no rule tells who is right.
//!
//! *Place*: kept by the leader that found them; every replica hears of them with each question about a piece, so that they
//! are told of whoever leads, and looked at again first by whoever leads next. *Owner*: the replica; in memory only: after
//! all replicas have been started anew at once, the next pass finds them. *Invariants*: bounded; a place leaves it when
//! the piece is found equal, which it is as soon as all of it was written anew. *On failure*: what finds no room is found
//! again.

use super::piece::Place;
use crate::group::Group;
use crate::limit::DISPUTES_MAX;
use crate::lost::{LostBlocks, runs};
use ogee_proto::unit::BlockIndex;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// By piece.
pub(super) type Disputed = BTreeMap<Place, Vec<BlockIndex>>;

#[derive(Default)]
pub(super) struct Disputes {
    places: RefCell<Disputed>,
}

impl Disputes {
    /// Of this piece these are disputed and no others; whether that is new.
    pub(super) fn set(&self, place: Place, blocks: Vec<BlockIndex>) -> bool {
        let mut places = self.places.borrow_mut();
        if blocks.is_empty() {
            return places.remove(&place).is_some();
        }
        if places.len() >= DISPUTES_MAX && !places.contains_key(&place) {
            return false;
        }
        places.insert(place, blocks.clone()) != Some(blocks)
    }

    /// As the leader says.
    pub(super) fn hear(&self, told: Disputed) {
        *self.places.borrow_mut() = told;
    }

    pub(super) fn all(&self) -> Disputed {
        self.places.borrow().clone()
    }
}

impl Group {
    /// Blocks in which the replicas differ and no rule tells which is right, as far as is known here.
    #[must_use]
    pub fn disputed_blocks(&self) -> Vec<LostBlocks> {
        let disputed = self.replica().pieces.disputes.all().into_iter();
        disputed
            .flat_map(|(place, blocks)| runs(place.key(), &blocks).collect::<Vec<_>>())
            .collect()
    }

    /// The pieces that they are in.
    #[must_use]
    pub fn disputed_places(&self) -> Vec<Place> {
        self.replica().pieces.disputes.all().into_keys().collect()
    }
}
