//! Blocks in which replicas differ, and no rule tells who is right.
//!
//! *Place*: kept by the leader that found them; every replica hears of them with each question about a piece, so that they
//! are told of whoever leads, and looked at again first by whoever leads next. *Owner*: the replica. What it knows is
//! in its checkpoints, and a checkpoint is asked for at once when that changes: they are still told of after a restart, of all
//! replicas even. *Invariants*: bounded; a place leaves it when the piece is found equal, which it is as soon as all of it
//! was written anew. *On failure*: what finds no room is found again; what could not be saved is saved with the next
//! checkpoint, and known to the other replicas.

use super::piece::{Pieces, Place};
use crate::group::Group;
use crate::limit::DISPUTES_MAX;
use crate::lost::{LostBlocks, runs};
use crate::replica::Replica;
use ogee_proto::unit::BlockIndex;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// By piece.
pub(crate) type Disputed = BTreeMap<Place, Vec<BlockIndex>>;

#[derive(Default)]
pub(super) struct Disputes {
    places: RefCell<Disputed>,
    /// Changed since a checkpoint took note of them.
    is_unsaved: Cell<bool>,
}

impl Disputes {
    /// Of this piece these are disputed and no others; whether that is new.
    pub(super) fn set(&self, place: Place, blocks: Vec<BlockIndex>) -> bool {
        let mut places = self.places.borrow_mut();
        let is_new = match blocks.is_empty() {
            true => places.remove(&place).is_some(),
            false if places.len() >= DISPUTES_MAX && !places.contains_key(&place) => false,
            false => places.insert(place, blocks.clone()) != Some(blocks),
        };
        self.is_unsaved.set(self.is_unsaved.get() || is_new);
        is_new
    }

    /// As the leader says; whether that is new.
    pub(super) fn hear(&self, told: Disputed) -> bool {
        let is_new = *self.places.borrow() != told;
        if is_new {
            *self.places.borrow_mut() = told;
            self.is_unsaved.set(true);
        }
        is_new
    }

    /// As the last checkpoint said.
    fn load(&self, saved: Disputed) {
        *self.places.borrow_mut() = saved;
    }

    pub(super) fn all(&self) -> Disputed {
        self.places.borrow().clone()
    }
}

impl Pieces {
    /// What a checkpoint is to say is disputed; it has it from here on.
    pub(crate) fn to_save(&self) -> Disputed {
        self.disputes.is_unsaved.set(false);
        self.disputes.all()
    }

    /// Whether the last checkpoint says something else.
    pub(crate) fn are_unsaved(&self) -> bool {
        self.disputes.is_unsaved.get()
    }

    /// As the last checkpoint said.
    pub(crate) fn load(&self, saved: Disputed) {
        self.disputes.load(saved);
    }
}

impl Replica {
    /// What is disputed has changed: with the next checkpoint, now, it is there after a restart.
    pub(super) fn save_disputes(&self) {
        let keeper = self.keeper();
        let copyset = self.copyset;
        drop(ogee_runtime::spawn(async move {
            if !keeper.checkpoint_now().await {
                tracing::warn!(%copyset, "what replicas differ in could not be saved; it is with the next checkpoint");
            }
        }));
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
