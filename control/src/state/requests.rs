//! Requests that are carried out once, however often they are asked for.
//!
//! The answer to a change may be lost with the metadata server that carried it out. Whoever asked draws an id for what
//! its user wants, and sends it with every try. What became of an id is remembered, refusals among it, and said again
//! to each later try, whichever member leads by then. It is forgotten by count and by age, and ages are told by the
//! times that commands carry.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::command::{Command, Outcome};
use super::model::State;
use super::refusal::Refusal;
use super::topology::check_text;
use crate::limit::{REQUEST_KEPT_MS, REQUESTS_KEPT};

/// See [`Command::Once`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// Drawn by whoever asks, for all tries of one request.
    pub id: Uuid,
    /// What was asked, as far as it is the same in each try.
    pub asked: Asked,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// What is to be done. Times and choices in it may differ between tries: those of the first one count.
    pub command: Box<Command>,
}

/// A request, so that another one with its id is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// For people.
    pub what: String,
    /// CRC32C of all its fields.
    pub sum: u32,
}

/// What became of requests lately, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Requests(VecDeque<Done>);

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    id: Uuid,
    asked: Asked,
    at_ms: u64,
    outcome: Outcome,
}

impl Requests {
    /// There are no more of them than can have become.
    pub(super) fn is_sound(&self) -> bool {
        self.0.len() <= REQUESTS_KEPT
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn find(&self, id: Uuid) -> Option<&Done> {
        // The newest is what is asked for again.
        self.0.iter().rev().find(|done| done.id == id)
    }

    fn add(&mut self, done: Done) {
        let is_old = |old: &Done| old.at_ms.saturating_add(REQUEST_KEPT_MS) < done.at_ms;
        while self.0.front().is_some_and(is_old) || self.0.len() >= REQUESTS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(done);
    }
}

impl State {
    /// Requests whose outcome is remembered.
    #[must_use]
    pub fn requests_kept(&self) -> usize {
        self.requests.0.len()
    }

    /// The same, but as if no request had had an id.
    #[must_use]
    pub fn without_requests(mut self) -> Self {
        self.requests.clear();
        self
    }

    pub(super) fn once(&mut self, once: &Once) -> Outcome {
        if let Some(done) = self.requests.find(once.id) {
            if done.asked != once.asked {
                return Err(Refusal::RequestReused {
                    id: once.id,
                    before: done.asked.what.as_str().into(),
                });
            }
            return done.outcome.clone();
        }
        check_text("request", &once.asked.what)?;
        let outcome = self.apply(&once.command);
        self.requests.add(Done {
            id: once.id,
            asked: once.asked.clone(),
            at_ms: once.at_ms,
            outcome: outcome.clone(),
        });
        outcome
    }
}
