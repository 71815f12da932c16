//! The task that says we are alive and notices when the peer is not.
//!
//! *Place*: beside the writer. *Owner*: one per connection; ends with it.
//!
//! *Invariants*: it wakes once per ping interval whatever the traffic, and costs a frame nothing.
//! Each side pings when it has been silent, so a Ping needs no answer and a quiet connection
//! carries two small frames per interval. Silence is counted in ticks: a shard that was itself
//! stopped for seconds counts one tick, and does not blame its peers for its own sleep. Bytes of an
//! unfinished frame are signs of life. While nobody awaits `recv`, silence is not counted.
//!
//! *On failure*: silence fails the connection with `PeerSilent`. A connection that drains gets
//! the drain timeout, then is cut.

use crate::error::TransportError;
use crate::frame::Frame;
use crate::limit::DRAIN_TIMEOUT;
use crate::link::{Link, Phase};
use crate::metrics::count;
use ogee_proto::id::RequestId;
use ogee_proto::wire::{FrameHeader, FrameKind};
use ogee_runtime::sleep;
use std::rc::Rc;

/// Request id of a Ping that wants no Pong.
pub(crate) const NO_ANSWER: RequestId = RequestId::new(0);

/// Watches until the connection is over.
pub(crate) async fn run(link: Rc<Link>) {
    let keepalive = link.options().keepalive;
    let (mut last, mut silent_ticks) = (link.signs_of_life(), 0);
    loop {
        let tick = sleep(keepalive.ping_after());
        if link
            .unless(Phase::Draining, &link.keeper, tick)
            .await
            .is_none()
        {
            return cut_after_drain(&link).await;
        }
        if !link.take_spoke() {
            ping(&link);
        }
        let now = link.signs_of_life();
        silent_ticks = if now == last { silent_ticks + 1 } else { 0 };
        last = now;
        if silent_ticks >= keepalive.silent_ticks() {
            count(|metrics| metrics.peers_silent.bump());
            link.fail(TransportError::PeerSilent {
                silence: keepalive.silent_after(),
            });
        }
    }
}

fn ping(link: &Link) {
    let ping = Frame::new(FrameHeader::new(FrameKind::Ping, NO_ANSWER));
    // It fails only when the connection has ended, which the next tick sees.
    drop(link.push_beyond(ping));
    // The Ping is not itself a reason to skip the next one.
    link.take_spoke();
}

async fn cut_after_drain(link: &Link) {
    let drained = link
        .unless(Phase::Closed, &link.keeper, sleep(DRAIN_TIMEOUT))
        .await;
    if drained.is_some() {
        link.fail(TransportError::Closed);
    }
}
