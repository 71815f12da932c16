//! A leader that comes back: it takes what a follower has and it lacks, before it serves.
//!
//! A write was answered when any two had it, and the leader's own device may not have been one of them.
//! With the longest log of all three nothing answered is lost.

use crate::feed::Feed;
use crate::group::{Group, New, answer, indexes};
use crate::limit::{APPEND_BYTES_MAX, NODES, STREAM_PAUSE};
use crate::node::{Node, refuse};
use crate::wire::{Place, Shipment, Shipped};
use ogee_log::Log;
use ogee_proto::id::{CopysetId, RequestId, Sequence};
use ogee_proto::unit::ByteLen;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_transport::{Frame, Peer};
use std::rc::Rc;

impl Node {
    /// A follower has everything up to `last` of a group.
    pub(crate) fn reported(self: &Rc<Self>, feed: &Feed, group: CopysetId, last: u64) {
        let Some(group) = self.groups.get(&group).filter(|group| group.is_led()) else {
            return;
        };
        let is_complete = group.heard_from(feed.target, last);
        group.stored(feed.target, last);
        if is_complete && !group.is_serving.get() {
            let (node, group) = (self.clone(), group.clone());
            drop(ogee_runtime::spawn(async move {
                while let Some((from, upto)) = group.longer() {
                    node.catch_up(&group, from, upto).await;
                }
                group.is_serving.set(true);
            }));
        }
    }

    /// Takes one frame's worth from the follower `from`, or waits a moment.
    async fn catch_up(self: &Rc<Self>, group: &Rc<Group>, from: usize, upto: u64) {
        tracing::info!(group = %group.id, last = group.last(), upto, from, "catching up");
        let feed = self.feeds().iter().find(|feed| feed.target == from);
        let feed = feed.expect("invariant: a follower that has reported has a feed");
        let mut header = FrameHeader::new(FrameKind::LogEntries, RequestId::new(0));
        header.copyset = group.id;
        header.sequence = Sequence::new(group.last() + 1);
        let asked = feed.caller.call(Frame::new(header)).await;
        let sent = asked.ok().filter(|reply| reply.header.status == Status::Ok);
        let sent = sent.and_then(|reply| Shipment::decode(&reply.meta, &reply.payload).ok());
        let news: Vec<New> = sent.map(|sent| news(group, sent)).unwrap_or_default();
        if news.is_empty() {
            return ogee_runtime::sleep(STREAM_PAUSE).await;
        }
        let cost = news
            .iter()
            .map(|new| Log::entry_cost(new.payload.len()).get());
        match group.log.reserve(ByteLen::new(cost.sum())).await {
            Ok(room) => self.append(group, news, vec![room]),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Sends durable entries from an index on.
    pub(crate) fn on_log_entries(&self, peer: Peer, header: FrameHeader) {
        let Some(group) = self.groups.get(&header.copyset).cloned() else {
            return refuse(&peer, &header, Status::NoCopyset);
        };
        drop(ogee_runtime::spawn(async move {
            let range = indexes(header.sequence.get(), group.last_durable());
            let Ok(entries) = group.log.entries(range, APPEND_BYTES_MAX).await else {
                return refuse(&peer, &header, Status::Io);
            };
            let entries = entries.into_iter().map(|entry| Shipped {
                group: group.id,
                index: entry.id.index.get(),
                head: entry.head,
                crc: entry.payload_crc,
                payload: entry.payload,
            });
            let shipment = Shipment {
                everywhere: Vec::new(),
                entries: entries.collect(),
            };
            let (meta, payload) = shipment.encode();
            let header = FrameHeader::reply(&header, Status::Ok);
            answer(&peer, Frame::of_parts(header, meta, payload));
        }));
    }
}

/// What follows on the group's last entry.
fn news(group: &Group, sent: Shipment) -> Vec<New> {
    let due = group.last() + 1..;
    let taken = due.zip(sent.entries).map_while(|(due, entry)| {
        let place = Place::decode(&entry.head, entry.payload.len());
        let (place, blocks) = place.ok().filter(|_| entry.index == due)?;
        Some(New {
            place,
            blocks,
            head: entry.head,
            crc: entry.crc,
            payload: entry.payload,
            client: None,
        })
    });
    taken.collect()
}

/// What a leader has heard since its start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Heard([Option<u64>; NODES]);

impl Heard {
    /// Whether all others have been heard from, `me` aside.
    pub(crate) fn note(&mut self, node: usize, last: u64, me: usize) -> bool {
        if let Some(known) = self.0.get_mut(node) {
            *known = Some(last);
        }
        let mut others = self.0.iter().enumerate().filter(|(node, _)| *node != me);
        others.all(|(_, last)| last.is_some())
    }

    /// Who has most, and how much, if that is more than `last`.
    pub(crate) fn longer_than(&self, last: u64) -> Option<(usize, u64)> {
        let known = self.0.iter().enumerate();
        let known = known.filter_map(|(node, upto)| Some((node, (*upto)?)));
        known
            .max_by_key(|(_, upto)| *upto)
            .filter(|(_, upto)| *upto > last)
    }
}

#[cfg(test)]
mod tests {
    use super::Heard;

    #[test]
    fn the_longest_of_all_counts_once_all_have_been_heard() {
        let mut heard = Heard::default();
        assert!(!heard.note(2, 7, 1));
        assert_eq!(heard.longer_than(6), Some((2, 7)));
        assert!(heard.note(0, 9, 1));
        assert_eq!(heard.longer_than(6), Some((0, 9)));
        assert_eq!(heard.longer_than(9), None);
    }
}
