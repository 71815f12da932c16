//! One device takes the place of another: a drain whose replicas all go to the same place.

use ogee_proto::id::StoreId;

use super::command::{Outcome, Reply};
use super::job::Mark;
use super::model::State;
use super::refusal::Refusal;

impl State {
    /// The device that is to take this one's replicas.
    #[must_use]
    pub fn successor(&self, store: StoreId) -> Option<StoreId> {
        self.successors.get(&store).copied()
    }

    /// The new one must be one that stays: a chain, or a circle, would never end.
    pub(super) fn replace_store(&mut self, old: StoreId, new: StoreId) -> Outcome {
        for store in [old, new] {
            if !self.stores.contains_key(&store) {
                return Err(Refusal::NoStore { store });
            }
        }
        let leaves = self.successors.contains_key(&new) || self.marks.contains_key(&new);
        if old == new || leaves {
            return Err(Refusal::NoSuccessor { old, new });
        }
        self.successors.insert(old, new);
        self.marks.insert(old, Mark::Draining);
        Ok(Reply::Done)
    }
}
