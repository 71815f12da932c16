//! Devices that limp: much slower than their peers, but there.
//!
//! Whether one does is judged outside (no clock and no liveness here) and noted here, so that a change of the leading
//! metadata server neither forgets one nor begins its time anew.

use ogee_proto::id::StoreId;
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::State;
use super::refusal::Refusal;
use super::topology::check_count;
use crate::limit::STORES_PER_COMMAND_MAX;

/// What a limping device has brought upon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sick {
    /// How far it has come.
    pub stage: SickStage,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SickStage {
    /// No leader is left there, and nothing new is placed there.
    Limping,
    /// Its replicas move elsewhere.
    Ejected,
}

/// See [`super::Command::NoteSick`]. Idempotent; unknown ids are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteSick {
    /// Those that limp, or are to be emptied.
    pub sick: Vec<(StoreId, SickStage)>,
    /// Those that are well again.
    pub well: Vec<StoreId>,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl SickStage {
    /// As commands and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limping => "limping",
            Self::Ejected => "ejected",
        }
    }
}

impl State {
    /// What is held against a device, if anything.
    #[must_use]
    pub fn sick(&self, store: StoreId) -> Option<Sick> {
        self.sick.get(&store).copied()
    }

    pub(super) fn note_sick(&mut self, command: &NoteSick) -> Outcome {
        let count = command.sick.len() + command.well.len();
        check_count("devices at once", count, STORES_PER_COMMAND_MAX)?;
        for store in &command.well {
            self.sick.remove(store);
        }
        for (store, stage) in &command.sick {
            let is_news = self
                .sick
                .get(store)
                .is_none_or(|known| known.stage < *stage);
            if is_news && self.stores.contains_key(store) {
                let sick = Sick {
                    stage: *stage,
                    since_ms: command.at_ms,
                };
                self.sick.insert(*store, sick);
            }
        }
        Ok(Reply::Done)
    }

    /// An operator's: the devices are taken back.
    pub(super) fn reinstate_stores(&mut self, stores: &[StoreId]) -> Outcome {
        check_count("devices at once", stores.len(), STORES_PER_COMMAND_MAX)?;
        if let Some(store) = stores.iter().find(|s| !self.stores.contains_key(s)) {
            return Err(Refusal::NoStore { store: *store });
        }
        for store in stores {
            self.sick.remove(store);
        }
        Ok(Reply::Done)
    }
}
