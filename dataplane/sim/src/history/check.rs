//! Whether each block of a history is a linearizable register.
//!
//! *Place*: judges what the simulator's and the chaos run's clients recorded.
//! *Owner*: a pure function.
//! *Invariants*: exact in both directions, in O(n log n): it refuses no history that a register could
//! have produced, and passes none that it could not (cross-checked by `tests/history.rs`).
//! *On failure*: the first contradiction of the block with the lowest number.
//!
//! # Why this is enough
//!
//! After Gibbons and Korach, *Testing Shared Memories* (SIAM J. Comput. 26(4), 1997): when it is known
//! which write each read has read from (here by unique values), the question is not NP-hard.
//!
//! A *cluster* is a write and the reads of its value. In any explanation a cluster's operations stand
//! together: the write, its reads, then the next cluster. So an explanation is an order of clusters
//! in which A stands before B whenever some operation of A ended before some operation of B began:
//! when `first_end(A) < last_start(B)`, the least end and the greatest start. Within a cluster the
//! write comes first, so no read may have ended before the write began; nothing else can go wrong.
//!
//! It remains to see whether "must stand before" has a cycle. If it has, two clusters alone form
//! one: take a shortest cycle C1, C2, … Ck with k > 2. Were `first_end(C1) < last_start(C3)`, leaving
//! out C2 would make it shorter; so `first_end(C1) >= last_start(C3) > first_end(C2)`. The same holds
//! at every place, and `first_end` falls forever around a ring, which cannot be. Hence only pairs with
//!
//! ```text
//! first_end(A) < last_start(B)  and  first_end(B) < last_start(A)
//! ```
//!
//! are to be found. A cluster with `first_end < last_start` covers that interval (a forward zone); any
//! two of those may not overlap. The others (backward zones) never contradict each other, and
//! contradict a forward zone only if they lie within it. Sorting finds both.
//!
//! The initial value's write ended before everything. A write of unknown outcome ends never; if
//! nobody read it, it may not have happened, or after everything else, and is left out.

use super::{INITIAL, Operation, OperationKind, Violation, ViolationKind};

/// Wider than the times of operations: there is a time before all of them, and one after.
type Time = i128;

const BEFORE_ALL: Time = -1;
const NEVER: Time = u64::MAX as Time + 1;

/// What a history that is in order consisted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Blocks that were touched.
    pub blocks: u64,
    /// Reads with an answer.
    pub reads: u64,
    /// Reads without one: they say nothing.
    pub reads_open: u64,
    /// Acknowledged writes.
    pub writes: u64,
    /// Writes of unknown outcome.
    pub writes_open: u64,
    /// Those of them that were read, and so have happened.
    pub writes_open_seen: u64,
}

/// Tells whether every block behaved as a linearizable register that held [`INITIAL`] at first. The
/// operations may come in any order.
pub fn check(history: &[Operation]) -> Result<Summary, Violation> {
    let mut sorted: Vec<&Operation> = history.iter().collect();
    sorted.sort_by_key(|operation| (operation.block, operation.value, operation.kind));
    let mut summary = Summary::default();
    for block in sorted.chunk_by(|a, b| a.block == b.block) {
        summary.blocks += 1;
        check_block(block, &mut summary)?;
    }
    Ok(summary)
}

fn check_block(operations: &[&Operation], summary: &mut Summary) -> Result<(), Violation> {
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for same in operations.chunk_by(|a, b| a.value == b.value) {
        if let Some(cluster) = Cluster::new(same, summary)? {
            let zones = if cluster.is_forward() {
                &mut forward
            } else {
                &mut backward
            };
            zones.push(cluster);
        }
    }
    forward.sort_by_key(|cluster: &Cluster<'_>| cluster.first_end);
    if let Some(pair) = forward
        .windows(2)
        .find(|pair| pair[0].contradicts(&pair[1]))
    {
        return Err(pair[0].violation(&pair[1]));
    }
    for inner in &backward {
        // Those that begin before it are disjoint: the last of them reaches farthest.
        let before = forward.partition_point(|outer| outer.first_end < inner.last_start);
        let outer = before.checked_sub(1).map(|at| &forward[at]);
        if let Some(outer) = outer.filter(|outer| outer.contradicts(inner)) {
            return Err(outer.violation(inner));
        }
    }
    Ok(())
}

/// A write and the reads of its value.
struct Cluster<'a> {
    /// None for the initial value's.
    write: Option<&'a Operation>,
    /// Of any of its operations, and whose that is.
    first_end: Time,
    first: Option<&'a Operation>,
    last_start: Time,
    last: Option<&'a Operation>,
}

impl<'a> Cluster<'a> {
    /// Of all operations with one value, writes first; none if they constrain nothing.
    fn new(same: &[&'a Operation], summary: &mut Summary) -> Result<Option<Self>, Violation> {
        let writes = same.partition_point(|operation| operation.kind == OperationKind::Write);
        let (writes, reads) = same.split_at(writes);
        let (open, answered): (Vec<&Operation>, Vec<&Operation>) =
            reads.iter().partition(|read| read.completed_ns.is_none());
        count(writes, &open, &answered, summary);
        if let Some(wrong) = same
            .iter()
            .find(|operation| end(operation) < start(operation))
        {
            return Err(Violation::new(ViolationKind::EndsBeforeItBegins, &[wrong]));
        }
        let mut cluster = match (writes, answered.first()) {
            ([_, _, ..], _) => return Err(Violation::new(ViolationKind::NotUnique, writes)),
            ([write], _) if write.value == INITIAL => {
                return Err(Violation::new(ViolationKind::NotUnique, writes));
            }
            ([write], None) if write.completed_ns.is_none() => return Ok(None),
            ([write], _) => Self::of_write(write),
            ([], Some(read)) if read.value == INITIAL => Self::of_initial(),
            ([], Some(read)) => return Err(Violation::new(ViolationKind::FromNowhere, &[read])),
            ([], None) => return Ok(None),
        };
        for read in answered {
            cluster.add(read)?;
        }
        Ok(Some(cluster))
    }

    fn of_initial() -> Self {
        Self {
            write: None,
            first_end: BEFORE_ALL,
            first: None,
            last_start: BEFORE_ALL,
            last: None,
        }
    }

    fn of_write(write: &'a Operation) -> Self {
        Self {
            write: Some(write),
            first_end: end(write),
            first: Some(write),
            last_start: start(write),
            last: Some(write),
        }
    }

    fn add(&mut self, read: &'a Operation) -> Result<(), Violation> {
        if let Some(write) = self.write.filter(|write| end(read) < start(write)) {
            return Err(Violation::new(ViolationKind::FromTheFuture, &[read, write]));
        }
        if end(read) < self.first_end {
            (self.first_end, self.first) = (end(read), Some(read));
        }
        if start(read) > self.last_start {
            (self.last_start, self.last) = (start(read), Some(read));
        }
        Ok(())
    }

    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }

    fn must_precede(&self, other: &Self) -> bool {
        self.first_end < other.last_start
    }

    fn contradicts(&self, other: &Self) -> bool {
        self.must_precede(other) && other.must_precede(self)
    }

    /// Whether this one's write had ended before the other's began.
    fn written_before(&self, other: &Self) -> bool {
        let ended = self.write.map_or(BEFORE_ALL, end);
        other.write.is_some_and(|write| ended < start(write))
    }

    fn violation(&self, other: &Self) -> Violation {
        let (old, new) = if other.written_before(self) {
            (other, self)
        } else {
            (self, other)
        };
        let kind = if !old.written_before(new) {
            ViolationKind::NotAtomic
        } else if new.write.is_some_and(|write| end(write) < old.last_start) {
            ViolationKind::Stale
        } else {
            ViolationKind::NewThenOld
        };
        let involved: &[Option<&Operation>] = match kind {
            ViolationKind::Stale => &[old.write, old.last, new.write],
            ViolationKind::NewThenOld => &[old.write, old.last, new.write, new.first],
            _ => &[
                old.write, old.first, old.last, new.write, new.first, new.last,
            ],
        };
        let named: Vec<&Operation> = involved.iter().copied().flatten().collect();
        Violation::new(kind, &named)
    }
}

fn start(operation: &Operation) -> Time {
    Time::from(operation.invoked_ns)
}

fn end(operation: &Operation) -> Time {
    operation.completed_ns.map_or(NEVER, Time::from)
}

fn count(writes: &[&Operation], open: &[&Operation], answered: &[&Operation], to: &mut Summary) {
    let unknown = writes
        .iter()
        .filter(|write| write.completed_ns.is_none())
        .count() as u64;
    to.reads += answered.len() as u64;
    to.reads_open += open.len() as u64;
    to.writes += writes.len() as u64 - unknown;
    to.writes_open += unknown;
    to.writes_open_seen += if answered.is_empty() { 0 } else { unknown };
}
