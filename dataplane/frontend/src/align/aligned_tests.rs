//! Sub-block requests against a plain array, one by one and all at once.

use super::*;
use crate::disk::{MemoryDisk, MemoryFault};
use futures_util::future::join_all;
use ogee_runtime::executor::block_on;
use proptest::prelude::*;
use std::time::Duration;

/// Enough for a write that is not merged as a whole, little enough for all to collide.
const SIZE: usize = 20 * 4096;

#[derive(Clone, Debug)]
enum Op {
    Write { at: usize, len: usize, fill: u8 },
    Zero { at: usize, len: usize },
    Trim { at: usize, len: usize },
}

impl Op {
    fn range(&self) -> (usize, usize) {
        match *self {
            Self::Write { at, len, .. } | Self::Zero { at, len } | Self::Trim { at, len } => {
                (at, at + len)
            }
        }
    }

    fn is_aligned(&self) -> bool {
        let (start, end) = self.range();
        start % 4096 == 0 && end % 4096 == 0
    }

    fn apply(&self, model: &mut [u8]) {
        let (start, end) = self.range();
        match *self {
            Self::Write { fill, .. } => model[start..end].fill(fill),
            Self::Zero { .. } => model[start..end].fill(0),
            Self::Trim { .. } => {
                let (start, end) = (start.next_multiple_of(4096), end / 4096 * 4096);
                if start < end {
                    model[start..end].fill(0);
                }
            }
        }
    }

    async fn run(&self, disk: &AlignedDisk<MemoryDisk>) {
        let (start, end) = self.range();
        let (at, len) = (
            ByteOffset::from_usize(start),
            ByteLen::from_usize(end - start),
        );
        let outcome = match *self {
            Self::Write { fill, .. } => disk.write(at, vec![fill; end - start].into()).await,
            Self::Zero { .. } => disk.write_zeroes(at, len, start % 2 == 0).await,
            Self::Trim { .. } => disk.discard(at, len).await,
        };
        outcome.expect("a good disk");
    }
}

/// Ranges of which a third start, and a third end, at a block's border.
fn range() -> impl Strategy<Value = (usize, usize)> {
    let edge = prop_oneof![
        1 => (0..=SIZE / 4096).prop_map(|block| block * 4096),
        2 => 0..=SIZE,
    ];
    (edge.clone(), edge).prop_filter_map("empty", |(a, b)| {
        (a != b).then(|| (a.min(b), a.abs_diff(b)))
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (range(), 1_u8..).prop_map(|((at, len), fill)| Op::Write { at, len, fill }),
        1 => range().prop_map(|(at, len)| Op::Zero { at, len }),
        1 => range().prop_map(|(at, len)| Op::Trim { at, len }),
    ]
}

fn fresh() -> (MemoryDisk, AlignedDisk<MemoryDisk>) {
    let disk = MemoryDisk::new(ByteLen::from_usize(SIZE));
    (disk.clone(), AlignedDisk::new(Rc::new(disk)))
}

fn image(disk: &MemoryDisk) -> Vec<u8> {
    disk.image(ByteOffset::ZERO, ByteLen::from_usize(SIZE))
}

/// Keeps of the operations those that touch no block together with an earlier one unless one of
/// the two touches it in part: only for these does the order decide the outcome.
fn ordered(ops: Vec<Op>) -> Vec<Op> {
    let mut kept: Vec<Op> = Vec::new();
    for op in ops {
        let span = |op: &Op| {
            let (start, end) = op.range();
            // What a discard does not cover whole, it does not touch.
            let span = Span::new(
                ByteOffset::from_usize(start),
                ByteLen::from_usize(end - start),
            );
            match op {
                Op::Trim { .. } => span.and_then(Span::inner),
                _ => span,
            }
        };
        let is_race = |earlier: &Op| {
            let (Some(one), Some(other)) = (span(earlier), span(&op)) else {
                return false;
            };
            let shared = one.inner().zip(other.inner());
            shared.is_some_and(|(one, other)| one.overlaps(other))
        };
        if !kept.iter().any(is_race) {
            kept.push(op);
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_by_one_it_is_an_array(ops in prop::collection::vec(op(), 1..20), ask in range()) {
        block_on(async {
            let (memory, disk) = fresh();
            let mut model = vec![0; SIZE];
            for op in &ops {
                op.run(&disk).await;
                op.apply(&mut model);
                assert_eq!(image(&memory), model, "after {op:?}");
            }
            let (at, len) = ask;
            let pieces = disk.read(ByteOffset::from_usize(at), ByteLen::from_usize(len)).await;
            let read: Vec<u8> = pieces.expect("a good disk").iter().flat_map(|p| p.to_vec()).collect();
            assert_eq!(read, model[at..at + len]);
        });
    }

    /// Operations that share a partly touched block run in the order in which they came, so all at
    /// once must leave what one by one would.
    #[test]
    fn all_at_once_no_update_is_lost(ops in prop::collection::vec(op(), 2..40)) {
        block_on(async {
            let (memory, disk) = fresh();
            memory.set_delay(Duration::from_micros(300));
            let ops = ordered(ops);
            join_all(ops.iter().map(|op| op.run(&disk))).await;
            let mut model = vec![0; SIZE];
            ops.iter().for_each(|op| op.apply(&mut model));
            assert_eq!(image(&memory), model, "{ops:?}");
        });
    }
}

#[test]
fn aligned_requests_are_not_merged() {
    block_on(async {
        let (_, disk) = fresh();
        let op = Op::Write {
            at: 4096,
            len: 8192,
            fill: 1,
        };
        assert!(op.is_aligned());
        op.run(&disk).await;
        assert_eq!(disk.merged_blocks(), 0);
        Op::Write {
            at: 4000,
            len: 200,
            fill: 1,
        }
        .run(&disk)
        .await;
        assert_eq!(disk.merged_blocks(), 2);
    });
}

#[test]
fn a_failed_edge_leaves_the_block_alone() {
    block_on(async {
        let (memory, disk) = fresh();
        Op::Write {
            at: 0,
            len: SIZE,
            fill: 7,
        }
        .run(&disk)
        .await;
        memory.fail_reads(Some(MemoryFault::Medium));
        let outcome = disk.write(ByteOffset::new(10), vec![1; 5000].into()).await;
        assert!(matches!(outcome, Err(DiskError::Medium { .. })));
        assert_eq!(image(&memory), vec![7; SIZE]);
        memory.fail_reads(None);
        Op::Write {
            at: 10,
            len: 5000,
            fill: 1,
        }
        .run(&disk)
        .await;
    });
}

#[test]
fn what_reaches_past_the_end_is_refused() {
    block_on(async {
        let (_, disk) = fresh();
        let end = ByteOffset::from_usize(SIZE - 1);
        let outcome = disk.write(end, vec![1; 2].into()).await;
        assert!(matches!(outcome, Err(DiskError::OutOfRange { .. })));
        let outcome = disk
            .read(ByteOffset::new(u64::MAX), ByteLen::new(u64::MAX))
            .await;
        assert!(matches!(outcome, Err(DiskError::OutOfRange { .. })));
        disk.write(end, vec![1].into())
            .await
            .expect("the last byte");
    });
}

#[test]
fn block_status_starts_and_ends_where_asked() {
    block_on(async {
        let (_, disk) = fresh();
        Op::Write {
            at: 4096,
            len: 4096,
            fill: 1,
        }
        .run(&disk)
        .await;
        let runs = disk
            .block_status(ByteOffset::new(100), ByteLen::new(10_000))
            .await;
        let runs = runs.expect("a good disk");
        let runs: Vec<_> = runs
            .iter()
            .map(|run| (run.len.get(), run.is_allocated))
            .collect();
        assert_eq!(runs, [(3996, false), (4096, true), (1908, false)]);
        let runs = disk
            .block_status(ByteOffset::new(100), ByteLen::new(7))
            .await;
        let runs = runs.expect("a good disk");
        assert_eq!((runs.len(), runs[0].len.get()), (1, 7));
    });
}
