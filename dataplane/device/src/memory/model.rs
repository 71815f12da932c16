//! The memory device against the plainest model of the contract, over random histories.

use super::{MemoryControl, Survivors};
use crate::device::Device;
use crate::limit::CRASH_SECTOR;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, executor};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

const BLOCKS: u64 = 4;
const BLOCK: u64 = 4096;
const SECTORS_PER_BLOCK: usize = 4096 / CRASH_SECTOR;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write {
        first: u64,
        count: u64,
        is_durable: bool,
    },
    Discard {
        first: u64,
        count: u64,
    },
    Flush,
}

/// For every sector, the fill bytes it may have after a crash, oldest first: the durable one, then
/// each written since. The last one is what reads see.
struct Model(Vec<Vec<u8>>);

impl Model {
    fn new() -> Self {
        Self(vec![
            vec![0];
            ByteLen::new(BLOCKS).as_usize() * SECTORS_PER_BLOCK
        ])
    }

    fn change(&mut self, first: u64, count: u64, fill: u8, is_durable: bool) {
        let start = ByteLen::new(first).as_usize() * SECTORS_PER_BLOCK;
        let len = ByteLen::new(count).as_usize() * SECTORS_PER_BLOCK;
        for sector in &mut self.0[start..start + len] {
            if is_durable {
                sector.clear();
            }
            sector.push(fill);
        }
    }

    fn flush(&mut self) {
        for sector in &mut self.0 {
            sector.drain(..sector.len() - 1);
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let range =
        (0..BLOCKS, 1..=BLOCKS).prop_map(|(first, count)| (first, count.min(BLOCKS - first)));
    prop_oneof![
        4 => (range.clone(), any::<bool>())
            .prop_map(|((first, count), is_durable)| Step::Write { first, count, is_durable }),
        1 => range.prop_map(|(first, count)| Step::Discard { first, count }),
        1 => Just(Step::Flush),
    ]
}

async fn take(step: Step, fill: u8, device: &Device, model: &mut Model) {
    match step {
        Step::Write {
            first,
            count,
            is_durable,
        } => {
            let mut data = Buffer::zeroed(ByteLen::new(count * BLOCK).as_usize());
            data.fill(fill);
            let offset = ByteOffset::new(first * BLOCK);
            let done = if is_durable {
                device.write_durable(offset, data).await
            } else {
                device.write(offset, data).await
            };
            done.expect("write");
            model.change(first, count, fill, is_durable);
        }
        Step::Discard { first, count } => {
            let (offset, len) = (ByteOffset::new(first * BLOCK), ByteLen::new(count * BLOCK));
            device.discard(offset, len).await.expect("discard");
            model.change(first, count, 0, false);
        }
        Step::Flush => {
            device.flush().await.expect("flush");
            model.flush();
        }
    }
}

async fn sectors_of(device: &Device) -> Vec<u8> {
    let data = device
        .read(ByteOffset::ZERO, device.len())
        .await
        .expect("read");
    data.chunks_exact(CRASH_SECTOR)
        .map(|sector| {
            assert!(
                sector.iter().all(|byte| *byte == sector[0]),
                "a sector is atomic"
            );
            sector[0]
        })
        .collect()
}

async fn check(device: &Device, control: &MemoryControl, model: &Model, seed: u64) {
    let visible: Vec<u8> = model
        .0
        .iter()
        .filter_map(|sector| sector.last().copied())
        .collect();
    let durable: Vec<u8> = model
        .0
        .iter()
        .filter_map(|sector| sector.first().copied())
        .collect();
    assert_eq!(sectors_of(device).await, visible, "reads");
    assert_eq!(
        sectors_of(&control.crash(Survivors::All).0).await,
        visible,
        "all survive"
    );
    assert_eq!(
        sectors_of(&control.crash(Survivors::None).0).await,
        durable,
        "none survive"
    );
    let crashed = sectors_of(&control.crash(Survivors::Seeded(seed)).0).await;
    for (found, allowed) in crashed.iter().zip(&model.0) {
        assert!(allowed.contains(found), "{found} is none of {allowed:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reads_and_crashes_are_what_the_contract_allows(
        steps in proptest::collection::vec(any_step(), 1..40), seed in any::<u64>(),
    ) {
        executor::block_on(async {
            let (device, control) = Device::memory_with_control(ByteLen::new(BLOCKS * BLOCK));
            let mut model = Model::new();
            for (fill, step) in (1..).zip(steps) {
                take(step, fill, &device, &mut model).await;
            }
            check(&device, &control, &model, seed).await;
        });
    }
}
