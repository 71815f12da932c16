//! Who leads a copyset, as far as this client knows.
//!
//! *Place*: inside `copyset`; every reply corrects it.
//! *Owner*: the shard of the volume; a plain state machine without I/O.
//! *Invariants*: there is at least one replica and the believed one is among them. A correction
//! names the replica it came from, and is ignored when the belief has moved on since: a burst of
//! old replies cannot turn the belief round twice.
//! *On failure*: a wrong belief costs one hop, never a wrong answer: replicas check for themselves.

use crate::map::ReplicaView;
use ogee_proto::id::ReplicaId;

/// The replicas of a copyset and which of them is believed to lead.
#[derive(Debug)]
pub(crate) struct Belief {
    replicas: Vec<ReplicaView>,
    at: usize,
    confirmed: bool,
}

impl Belief {
    /// Believes `hint`, or the first replica.
    pub(crate) fn new(replicas: Vec<ReplicaView>, hint: Option<ReplicaId>) -> Self {
        assert!(
            !replicas.is_empty(),
            "invariant: a map names no copyset without replicas"
        );
        let at = position(&replicas, hint).unwrap_or(0);
        Self {
            replicas,
            at,
            confirmed: false,
        }
    }

    /// Where to send.
    pub(crate) fn target(&self) -> &ReplicaView {
        self.replicas
            .get(self.at)
            .expect("invariant: the believed replica is in the list")
    }

    /// Whether the believed replica has answered as a leader and not failed since.
    pub(crate) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// `from` answered as a leader.
    pub(crate) fn confirm(&mut self, from: ReplicaId) {
        if let Some(at) = position(&self.replicas, Some(from)) {
            self.at = at;
            self.confirmed = true;
        }
    }

    /// `from` gave no usable answer: keep asking it, but one at a time.
    pub(crate) fn doubt(&mut self, from: ReplicaId) {
        if self.target().id == from {
            self.confirmed = false;
        }
    }

    /// `from` says that it does not lead but `hint` does. False when the hint is not a replica
    /// that we know; the next one in the list is tried then.
    pub(crate) fn redirect(&mut self, from: ReplicaId, hint: ReplicaId) -> bool {
        let known = position(&self.replicas, Some(hint)).filter(|_| hint != from);
        if self.target().id == from {
            self.at = known.unwrap_or((self.at + 1) % self.replicas.len());
            self.confirmed = false;
        }
        known.is_some()
    }

    /// `from` is of no use: the next one in the list.
    pub(crate) fn rotate(&mut self, from: ReplicaId) {
        if self.target().id == from {
            self.at = (self.at + 1) % self.replicas.len();
            self.confirmed = false;
        }
    }

    /// Takes the control plane's newer list. A confirmed belief outlives it if its replica does.
    pub(crate) fn update(&mut self, replicas: &[ReplicaView], hint: Option<ReplicaId>) {
        let old = self.target();
        let hint = if self.confirmed {
            Some(old.id)
        } else {
            hint.or(Some(old.id))
        };
        let mut next = Self::new(replicas.to_vec(), hint);
        // The same replica behind a new endpoint is a restarted process: it has to prove itself.
        next.confirmed = self.confirmed && next.target() == old;
        *self = next;
    }
}

fn position(replicas: &[ReplicaView], id: Option<ReplicaId>) -> Option<usize> {
    replicas.iter().position(|replica| Some(replica.id) == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: u64) -> ReplicaId {
        ReplicaId::new(raw)
    }

    fn replicas(ids: &[u64]) -> Vec<ReplicaView> {
        ids.iter()
            .map(|raw| ReplicaView {
                id: id(*raw),
                endpoint: None,
            })
            .collect()
    }

    fn belief() -> Belief {
        Belief::new(replicas(&[1, 2, 3]), None)
    }

    #[test]
    fn starts_at_the_hint() {
        assert_eq!(
            Belief::new(replicas(&[1, 2, 3]), Some(id(3))).target().id,
            id(3)
        );
        assert_eq!(
            Belief::new(replicas(&[1, 2, 3]), Some(id(9))).target().id,
            id(1)
        );
    }

    #[test]
    fn follows_a_hint_once() {
        let mut belief = belief();
        assert!(belief.redirect(id(1), id(3)));
        assert_eq!(belief.target().id, id(3));
        assert!(
            belief.redirect(id(1), id(2)),
            "late reply of the old leader"
        );
        assert_eq!(belief.target().id, id(3), "the belief had moved on");
    }

    #[test]
    fn an_unknown_hint_tries_the_next() {
        let mut belief = belief();
        assert!(!belief.redirect(id(1), id(0)));
        assert_eq!(belief.target().id, id(2));
        assert!(
            !belief.redirect(id(2), id(2)),
            "a replica cannot name itself"
        );
        assert_eq!(belief.target().id, id(3));
    }

    #[test]
    fn rotates_round_all_and_only_from_the_believed() {
        let mut belief = belief();
        belief.rotate(id(2));
        assert_eq!(belief.target().id, id(1));
        for expected in [2, 3, 1] {
            belief.rotate(belief.target().id);
            assert_eq!(belief.target().id, id(expected));
        }
    }

    #[test]
    fn doubt_keeps_the_target() {
        let mut belief = belief();
        belief.confirm(id(2));
        belief.doubt(id(1));
        assert!(belief.is_confirmed());
        belief.doubt(id(2));
        assert!(!belief.is_confirmed());
        assert_eq!(belief.target().id, id(2));
    }

    #[test]
    fn an_update_does_not_overrule_what_we_saw_ourselves() {
        let mut belief = belief();
        let mut list = replicas(&[1, 2, 3]);
        belief.update(&list, Some(id(2)));
        assert_eq!(
            belief.target().id,
            id(2),
            "nothing seen yet: the hint counts"
        );
        belief.confirm(id(3));
        belief.update(&list, Some(id(1)));
        assert_eq!(belief.target().id, id(3));
        list.retain(|replica| replica.id != id(3));
        belief.update(&list, Some(id(1)));
        assert!(!belief.is_confirmed());
        assert_ne!(belief.target().id, id(3));
    }
}
