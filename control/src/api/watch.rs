//! The look at the cluster, once a second, that notes what happened.
//!
//! *Place*: beside `healing`, on the handlers' thread. *Owner*: the leading metadata server; the others
//! wait for their turn. *Invariants*: at most a bounded number of events is noted at once, and what goes
//! beyond is said to be left out. *On failure*: what could not be written is tried again at the next
//! look, as long as this one leads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::context::{Context, unix_ms};
use super::healing::leading;
use crate::health::{Seen, Sight};
use crate::limit::{EVENTS_PER_COMMAND_MAX, LOOK_EVERY};
use crate::scheduler::Picture;
use crate::state::{Command, Event, EventLevel};

/// What handlers have to tell until the next look.
#[derive(Default)]
pub(crate) struct Notes(Mutex<VecDeque<Event>>);

impl Notes {
    /// The oldest goes when there are too many: the newest matter.
    pub(super) fn add(&self, level: EventLevel, kind: &str, subject: &str, text: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= EVENTS_PER_COMMAND_MAX / 2 {
            notes.pop_front();
        }
        notes.push_back(Event::new(unix_ms(), level, kind, subject, text));
    }

    fn take(&self) -> Vec<Event> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *notes).into()
    }
}

/// Notes one thing at once, as far as this one still leads: what an operator did should not wait for the
/// next look.
pub(super) async fn note(
    context: &Context,
    level: EventLevel,
    kind: &str,
    subject: &str,
    text: String,
) {
    let events = vec![Event::new(unix_ms(), level, kind, subject, text)];
    if let Err(error) = context.write(Command::NoteEvents { events }).await {
        tracing::warn!(kind, subject, ?error, "an event was not noted");
    }
}

/// Of one term of leading.
struct Term {
    term: u64,
    since: Instant,
    seen: Option<Seen>,
    /// Not written yet.
    pending: Vec<Event>,
}

/// Looks until it is told to stop.
pub(crate) async fn watch_cluster(context: Arc<Context>, mut stopped: watch::Receiver<bool>) {
    let mut term = None;
    let every = LOOK_EVERY.min(context.config.offline);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => look(&context, &mut term).await,
            // A sender that is gone means stop as well.
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

async fn look(context: &Context, known: &mut Option<Term>) {
    let Some(view) = leading(context).await else {
        *known = None;
        return;
    };
    let now = Instant::now();
    if known.as_ref().is_none_or(|known| known.term != view.term) {
        *known = Some(begin(context, view.term, now));
    }
    let Some(term) = known else {
        return;
    };
    term.pending.extend(context.notes.take());
    // Until everybody had time to report, who is silent says nothing.
    let settled = context.config.offline + context.config.heartbeat;
    if now.saturating_duration_since(term.since) >= settled {
        let world = context.world();
        let picture = Picture::take(&view.state, &world.liveness, now, unix_ms());
        let sight = Sight {
            state: &view.state,
            liveness: &world.liveness,
            now,
            picture: &picture,
            rules: &context.config.heal,
            strangers: &world.strangers,
        };
        let seen = term.seen.get_or_insert_with(|| Seen::recall(&view.state));
        term.pending.extend(seen.look(&sight, picture.now_ms));
    }
    // Held on to, it would have to be copied when it changes.
    drop(view);
    write(context, term).await;
}

fn begin(context: &Context, term: u64, now: Instant) -> Term {
    let id = context.config.id;
    let text = format!("metadata server {id} leads, in term {term}");
    let event = Event::new(
        unix_ms(),
        EventLevel::Info,
        "mds_leader",
        &id.to_string(),
        text,
    );
    Term {
        term,
        since: now,
        seen: None,
        pending: vec![event],
    }
}

async fn write(context: &Context, term: &mut Term) {
    let left_out = term.pending.len().saturating_sub(EVENTS_PER_COMMAND_MAX);
    if left_out > 0 {
        // Room for the word on it, too.
        term.pending.truncate(EVENTS_PER_COMMAND_MAX - 1);
        let text = format!("{} more events at the same time are left out", left_out + 1);
        let event = Event::new(unix_ms(), EventLevel::Warn, "events_left_out", "", text);
        term.pending.push(event);
    }
    if term.pending.is_empty() {
        return;
    }
    let events = term.pending.clone();
    match context.write(Command::NoteEvents { events }).await {
        Ok(_) => term.pending.clear(),
        Err(error) => tracing::info!(?error, "events were not noted yet"),
    }
}
