//! What happened to the cluster lately: a bounded ring, numbered without gaps.
//!
//! Events are noted by the leading metadata server, which compares what it sees with what it saw; they
//! are kept here so that a change of the leader loses none that was noted.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::State;
use super::topology::{check_count, check_text};
use crate::limit::{EVENTS_KEPT, EVENTS_PER_COMMAND_MAX, TEXT_LEN_MAX};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970, by the clock of the metadata server that noted it.
    pub at_ms: u64,
    /// A word from a fixed set, for programs.
    pub kind: String,
    /// How bad it is.
    pub level: EventLevel,
    /// What it is about, by name or number; empty: the cluster.
    pub subject: String,
    /// For people.
    pub text: String,
}

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventLevel {
    /// As it should be.
    Info,
    /// Redundancy or capacity is at risk.
    Warn,
    /// Some I/O does not work.
    Err,
}

impl EventLevel {
    /// As commands and messages spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Err => "ERR",
        }
    }
}

impl Event {
    /// With texts cut to what is kept.
    pub(crate) fn new(
        at_ms: u64,
        level: EventLevel,
        kind: &str,
        subject: &str,
        text: String,
    ) -> Self {
        let cut = |mut text: String| {
            text.truncate(text.floor_char_boundary(TEXT_LEN_MAX));
            text
        };
        Self {
            at_ms,
            kind: kind.into(),
            level,
            subject: cut(subject.into()),
            text: cut(text),
        }
    }
}

/// The newest events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Sequence number of the newest; the first one is 1.
    newest: u64,
    /// The oldest first.
    kept: VecDeque<Event>,
}

impl Events {
    /// Sequence number of the newest event; 0: there was none.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// Those after a sequence number, the oldest first, each with its own; and how many before them are
    /// not kept any more.
    pub fn after(&self, after: u64) -> (u64, impl Iterator<Item = (u64, &Event)>) {
        let before_first = self.newest.saturating_sub(self.kept.len() as u64);
        let from = after.max(before_first);
        let skip = usize::try_from(from - before_first).unwrap_or(usize::MAX);
        let kept = self.kept.iter().skip(skip);
        let numbered = (from + 1..).zip(kept);
        (from.saturating_sub(after), numbered)
    }

    fn add(&mut self, event: Event) {
        self.newest += 1;
        self.kept.push_back(event);
        if self.kept.len() > EVENTS_KEPT {
            self.kept.pop_front();
        }
    }

    /// Leaves out numbers that may have been given by others.
    pub(super) fn skip(&mut self, gap: u64) {
        self.newest += gap;
    }

    /// The ring is as it can have become, with room to grow.
    pub(super) fn is_sound(&self, growing_max: u64) -> bool {
        self.kept.len() <= EVENTS_KEPT
            && self.kept.len() as u64 <= self.newest
            && self.newest <= growing_max
    }
}

impl State {
    /// What happened lately.
    #[must_use]
    pub const fn events(&self) -> &Events {
        &self.events
    }

    pub(super) fn note_events(&mut self, events: &[Event]) -> Outcome {
        check_count("events at once", events.len(), EVENTS_PER_COMMAND_MAX)?;
        for event in events {
            check_text("kind", &event.kind)?;
            check_text("subject", &event.subject)?;
            check_text("text", &event.text)?;
        }
        events
            .iter()
            .for_each(|event| self.events.add(event.clone()));
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, EventLevel};
    use crate::limit::EVENTS_KEPT;
    use crate::state::{Command, State};

    fn note(state: &mut State, text: &str) {
        let event = Event {
            at_ms: 1,
            kind: "test".into(),
            level: EventLevel::Info,
            subject: String::new(),
            text: text.into(),
        };
        state
            .apply(&Command::NoteEvents {
                events: vec![event],
            })
            .expect("noted");
    }

    #[test]
    fn numbers_have_no_gaps_and_what_is_gone_is_counted() {
        let mut state = State::default();
        let all = EVENTS_KEPT as u64 + 10;
        for number in 1..=all {
            note(&mut state, &number.to_string());
        }
        let events = state.events();
        assert_eq!(events.newest(), all);
        let (missed, kept) = events.after(0);
        let kept: Vec<_> = kept.map(|(number, it)| (number, it.text.clone())).collect();
        assert_eq!((missed, kept.len()), (10, EVENTS_KEPT));
        assert!(
            kept.iter()
                .all(|(number, text)| number.to_string() == *text)
        );
        let (missed, mut rest) = events.after(all - 1);
        assert_eq!((missed, rest.next().map(|it| it.0)), (0, Some(all)));
        assert!(rest.next().is_none());
        let (missed, mut rest) = events.after(all + 5);
        assert_eq!((missed, rest.next()), (0, None));
    }

    #[test]
    fn a_text_without_end_is_refused() {
        let mut state = State::default();
        let event = Event {
            at_ms: 1,
            kind: "test".into(),
            level: EventLevel::Info,
            subject: String::new(),
            text: "x".repeat(1000),
        };
        let events = vec![event];
        let refused = state.apply(&Command::NoteEvents { events });
        assert!(refused.is_err());
        assert_eq!(state.events().newest(), 0);
    }
}
