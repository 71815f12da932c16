//! The look at the cluster, once a second, that heals it.
//!
//! *Place*: beside the handlers, on their thread. *Owner*: the leading metadata server; the others
//! wait for their turn. *Invariants*: what is decided is a command that the state machine checks again,
//! so that two that both believe to lead do nothing twice. A metadata server that just began to lead
//! has heard of nobody: until everybody had time to report it only looks.
//! *On failure*: what could not be written is planned again at the next look.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ogee_proto::id::ChunkserverId;
use tokio::sync::watch;

use super::context::{Context, unix_ms};
use super::watch::note;
use crate::limit::{JOBS_PER_COMMAND_MAX, LEADS_MAX, LOOK_EVERY};
use crate::liveness::Strangers;
use crate::raft::{Consistency, View};
use crate::scheduler::{
    HealRules, Picture, balance, is_steady, leads_live, moves_live, plan, spread,
};
use crate::state::{AddJobs, Cause, Command, EventLevel, NewJob};

/// Since when this one leads, and leaders, or devices, are uneven.
#[derive(Default)]
struct Watchman {
    leads: Option<(u64, Instant)>,
    uneven: Option<Instant>,
    crowded: Option<Instant>,
}

/// Looks until it is told to stop.
pub(crate) async fn heal(context: Arc<Context>, mut stopped: watch::Receiver<bool>) {
    let mut watchman = Watchman::default();
    let every = LOOK_EVERY.min(context.config.offline);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => watchman.look(&context).await,
            () = context.alarm.notified() => watchman.look(&context).await,
            // A sender that is gone means stop as well.
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

impl Watchman {
    async fn look(&mut self, context: &Context) {
        let Some(view) = leading(context).await else {
            *self = Self::default();
            return;
        };
        let now = Instant::now();
        let known = self.leads.filter(|(term, _)| *term == view.term);
        if known.is_none() {
            let mut world = context.world();
            world.liveness.begin_reign(now);
            world.strangers = Strangers::default();
        }
        let (_, since) = *self.leads.insert(known.unwrap_or((view.term, now)));
        if now.saturating_duration_since(since) < context.config.offline + context.config.heartbeat
        {
            return;
        }
        context.world().liveness.paces.compare(&view.state);
        if view.state.only_listens() {
            return;
        }
        let picture = survey(context, &view, now);
        let mut commands = plan(&view.state, &picture, &context.config.heal);
        let jobs = self.even(context, &view, &picture, now);
        if !jobs.is_empty() {
            commands.push(Command::AddJobs(AddJobs {
                jobs,
                at_ms: picture.now_ms,
            }));
        }
        let over = view.state.maintenance_over(picture.now_ms);
        let named = |id| Some((id, view.state.chunkservers().get(&id)?.name.to_string()));
        let names: BTreeMap<ChunkserverId, String> = over.filter_map(named).collect();
        // Held on to, it would have to be copied when it changes.
        drop(view);
        for command in commands {
            tracing::debug!(?command, "healing");
            let ended = match &command {
                Command::EndMaintenance(end) => names.get(&end.chunkserver).cloned(),
                _ => None,
            };
            if let Err(error) = context.write(command).await {
                // Mostly a plan that the world has overtaken.
                tracing::info!(?error, "a step of healing was not taken");
            } else if let Some(name) = ended {
                let text = format!("the time of chunkserver \"{name}\"'s maintenance is over");
                note(context, EventLevel::Info, "maintenance_ended", &name, text).await;
            }
        }
    }

    /// What evens replicas and leaders out. Unevenness does not count while an operator holds that up.
    fn even(
        &mut self,
        context: &Context,
        view: &View,
        picture: &Picture,
        now: Instant,
    ) -> Vec<NewJob> {
        if view.state.paused_since().is_some() {
            (self.uneven, self.crowded) = (None, None);
            return Vec::new();
        }
        let jobs = self.spread(&context.config.heal, view, picture, now);
        if jobs.is_empty() {
            // Leaders follow replicas.
            return self.balance(context, view, picture, now);
        }
        jobs
    }

    /// Replicas of devices that have carried too many for a while: a few more than can move at once.
    fn spread(
        &mut self,
        rules: &HealRules,
        view: &View,
        picture: &Picture,
        now: Instant,
    ) -> Vec<NewJob> {
        let most = (2 * HealRules::spare(rules.moves_max)).min(JOBS_PER_COMMAND_MAX);
        let mut jobs = if rules.spread_after_ms > 0 {
            spread(&view.state, picture, rules, Cause::Crowded, most)
        } else {
            Vec::new()
        };
        if jobs.is_empty() {
            self.crowded = None;
            return jobs;
        }
        let since = *self.crowded.get_or_insert(now);
        let waited = now.saturating_duration_since(since).as_millis();
        if waited < u128::from(rules.spread_after_ms) {
            return Vec::new();
        }
        jobs.truncate(most.saturating_sub(moves_live(&view.state)));
        jobs
    }

    /// Leaders that have been uneven for a while in a cluster that is otherwise at rest.
    fn balance(
        &mut self,
        context: &Context,
        view: &View,
        picture: &Picture,
        now: Instant,
    ) -> Vec<NewJob> {
        let after = u128::from(context.config.heal.balance_after_ms);
        let is_steady = after > 0 && is_steady(&view.state, picture);
        let mut jobs = if is_steady {
            let percent = context.config.heal.lead_percent;
            let handovers = balance(&view.state, picture, percent, Cause::Uneven);
            handovers.into_iter().map(|it| it.job).collect()
        } else {
            Vec::new()
        };
        if jobs.is_empty() {
            self.uneven = None;
            return jobs;
        }
        let since = *self.uneven.get_or_insert(now);
        if now.saturating_duration_since(since).as_millis() < after {
            return Vec::new();
        }
        jobs.truncate(
            LEADS_MAX
                .saturating_sub(leads_live(&view.state))
                .min(JOBS_PER_COMMAND_MAX),
        );
        jobs
    }
}

/// The world as of now, and what is remembered of those that are behind.
fn survey(context: &Context, view: &View, now: Instant) -> Picture {
    let liveness = &mut context.world().liveness;
    let picture = Picture::take(&view.state, liveness, now, unix_ms());
    liveness.chases.take(now, &picture.behind);
    picture
}

/// The newest metadata, if this one leads.
pub(super) async fn leading(context: &Context) -> Option<View> {
    let local = context.raft.view(Consistency::Local).await.ok()?;
    if local.leader != Some(context.config.id) {
        return None;
    }
    context.latest().await.ok()
}
