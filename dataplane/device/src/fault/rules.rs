//! The rules at work: what each has seen, and what a request must suffer.

use super::plan::{Action, Failure, FaultRule};
use crate::operation::Operation;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::time::Duration;

/// Names a rule of one faulty device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleId(u64);

/// A rule and its past.
#[derive(Debug)]
struct Active {
    id: RuleId,
    rule: FaultRule,
    seen: u64,
    hits: u64,
}

/// All rules in force.
#[derive(Debug, Default)]
pub(super) struct Rules {
    active: Vec<Active>,
    next: u64,
}

/// What one request must suffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) delay: Duration,
    pub(super) failure: Option<Failure>,
    pub(super) is_lost: bool,
    pub(super) flips: Vec<(ByteOffset, u8)>,
}

impl Rules {
    pub(super) fn add(&mut self, rule: FaultRule) -> RuleId {
        let id = RuleId(self.next);
        self.next += 1;
        self.active.push(Active {
            id,
            rule,
            seen: 0,
            hits: 0,
        });
        id
    }

    pub(super) fn remove(&mut self, id: RuleId) {
        self.active.retain(|active| active.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    pub(super) fn hits(&self, id: RuleId) -> u64 {
        self.active
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.hits)
    }

    /// Asks every rule about a request.
    pub(super) fn judge(
        &mut self,
        operation: Operation,
        range: Option<(ByteOffset, ByteLen)>,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        for active in &mut self.active {
            if active.rule.matches(operation, range) && active.is_due() {
                verdict.suffer(active.rule.action);
            }
        }
        verdict
    }
}

impl Active {
    /// Counts a matching request; whether the rule hits it.
    const fn is_due(&mut self) -> bool {
        self.seen += 1;
        let is_due = self.seen > self.rule.skip && self.hits < self.rule.times;
        if is_due {
            self.hits += 1;
        }
        is_due
    }
}

impl Verdict {
    fn suffer(&mut self, action: Action) {
        match action {
            Action::Fail(failure) => self.failure = self.failure.or(Some(failure)),
            Action::Delay(delay) => self.delay += delay,
            Action::FlipBit { at, mask } => self.flips.push((at, mask)),
            Action::LoseWrite => self.is_lost = true,
        }
    }
}
