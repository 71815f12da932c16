//! The steps of a copy that are under way: as many as the way and everybody else's I/O allow.
//!
//! *Place*: between an attempt and its connection. *Owner*: one attempt.
//! *Invariants*: at most [`COPY_WINDOW`] steps at a time, no faster than the configured rate and the budgets of device
//! and network; a copy that would not gain on the writers otherwise, and the end of one, for which writers may be held
//! back, do not give way.
//! *On failure*: the first step that fails ends the flow.

use super::gain::{LEVEL_MAX, Seen, Verdict, is_pressing, rest, window};
use super::send::StreamingResult;
use super::track::Track;
use crate::limit::{COPY_SLOW, COPY_WINDOW, COPY_WINDOW_BUSY};
use crate::network::Network;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use ogee_store::Purpose;
use std::time::Duration;

pub(super) type Step<'a> = LocalBoxFuture<'a, StreamingResult<()>>;

/// The steps of one attempt.
pub(super) struct Flow<'a> {
    network: &'a Network,
    track: &'a Track,
    running: FuturesUnordered<LocalBoxFuture<'a, (Duration, StreamingResult<()>)>>,
    window: usize,
    purpose: Purpose,
    hurries: bool,
    /// The last step's time.
    took: Duration,
    /// Requests of others as of the last step.
    seen: u64,
}

impl<'a> Flow<'a> {
    pub(super) fn new(network: &'a Network, track: &'a Track, hurries: bool) -> Self {
        Self {
            network,
            track,
            running: FuturesUnordered::new(),
            window: COPY_WINDOW_BUSY,
            purpose: network.purpose(),
            hurries,
            took: Duration::ZERO,
            seen: network.replica.metrics.foreground.get(),
        }
    }

    /// Starts a step when there is room for it.
    pub(super) async fn add(&mut self, len: usize, step: Step<'a>) -> StreamingResult<()> {
        let (copies, store) = (&self.network.copies, &self.network.replica.store);
        copies.pass(self.purpose, len).await;
        let draw = store
            .budget()
            .draw(self.purpose, len, is_pressing(self.level()));
        draw.await;
        self.look();
        let foreground = self.network.replica.metrics.foreground.get();
        let is_busy = foreground != std::mem::replace(&mut self.seen, foreground);
        if is_busy {
            self.window = self.window.min(window(self.level(), false));
        }
        while self.running.len() >= self.window {
            self.reap().await?;
        }
        let rest = rest(self.level(), self.took);
        if is_busy && !rest.is_zero() {
            ogee_runtime::sleep(rest).await;
        }
        self.running.push(Box::pin(async move {
            let started = ogee_runtime::now();
            let done = step.await;
            (ogee_runtime::now() - started, done)
        }));
        Ok(())
    }

    fn level(&self) -> usize {
        match self.hurries {
            true => LEVEL_MAX,
            false => self.track.gain.level(),
        }
    }

    async fn reap(&mut self) -> StreamingResult<()> {
        let Some((took, done)) = self.running.next().await else {
            return Ok(());
        };
        self.took = took;
        self.window = match took > COPY_SLOW {
            true => window(self.level(), true),
            false => COPY_WINDOW.min(self.window + 1),
        };
        done
    }

    /// Waits until nothing is under way.
    pub(super) async fn settle(&mut self) -> StreamingResult<()> {
        while !self.running.is_empty() {
            self.reap().await?;
        }
        Ok(())
    }

    /// Looks now and then how the copy fares.
    fn look(&self) {
        if self.hurries || !self.track.gain.is_due() {
            return;
        }
        let replica = &self.network.replica;
        let seen = Seen {
            at: ogee_runtime::now(),
            blocks: self.track.counts(),
            appended: replica.metrics.bytes_appended.get(),
        };
        let (copyset, target) = (replica.copyset, self.network.target);
        match self.track.gain.look(seen, &replica.pacer()) {
            Verdict::Same => {}
            Verdict::Outrun => {
                let speed = self.track.gain.speed();
                tracing::warn!(%copyset, %target, sent = speed.sent, changed = speed.changed,
                    "writers change blocks (per second) faster than a copy can send them: it goes on, and \
                     ends when they slow down or raft.copy_rate lets it send more");
            }
            Verdict::Gains => {
                tracing::info!(%copyset, %target, "the copy gains on the writers again");
            }
        }
    }
}
