//! The decorator itself.

use super::control::{FaultControl, Shared};
use super::plan::FaultPlan;
use super::rules::Verdict;
use crate::device::Device;
use crate::error::DeviceError;
use crate::nvme::NvmeVitals;
use crate::operation::Operation;
use crate::request::Request;
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, Gather, ReadBuffer, sleep};
use std::rc::Rc;
use std::time::Duration;

/// A device before which rules stand.
///
/// Requests to the device below are boxed: a device may stand behind any number of decorators, and
/// the cost does not matter where faults are injected.
pub(crate) struct FaultDevice {
    below: Device,
    shared: Rc<Shared>,
}

impl FaultDevice {
    pub(crate) fn new(below: Device, plan: FaultPlan) -> (Self, FaultControl) {
        let shared = Rc::new(Shared::default());
        let control = FaultControl::new(Rc::clone(&shared));
        for rule in plan.rules {
            control.add(rule);
        }
        (Self { below, shared }, control)
    }

    pub(crate) fn vitals(&self) -> Option<NvmeVitals> {
        self.below.vitals()
    }

    pub(crate) async fn read(&self, request: Request<'_>) -> Result<ReadBuffer, DeviceError> {
        let verdict = self.admit(Operation::Read, request).await?;
        self.shared.count(|counts| counts.passed += 1);
        let data = Box::pin(self.below.read(request.offset, request.len)).await?;
        Ok(self.flip(data, request.offset, &verdict.flips))
    }

    pub(crate) async fn write(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        if self.is_to_be_written(Operation::Write, request).await? {
            Box::pin(self.below.write(request.offset, data)).await?;
        }
        Ok(())
    }

    pub(crate) async fn write_durable(
        &self,
        request: Request<'_>,
        data: Gather,
    ) -> Result<(), DeviceError> {
        if self
            .is_to_be_written(Operation::WriteDurable, request)
            .await?
        {
            Box::pin(self.below.write_durable(request.offset, data)).await?;
        }
        Ok(())
    }

    pub(crate) async fn flush(&self, request: Request<'_>) -> Result<(), DeviceError> {
        self.admit(Operation::Flush, request).await?;
        self.shared.count(|counts| counts.passed += 1);
        Box::pin(self.below.flush()).await
    }

    pub(crate) async fn discard(&self, request: Request<'_>) -> Result<(), DeviceError> {
        self.admit(Operation::Discard, request).await?;
        self.shared.count(|counts| counts.passed += 1);
        Box::pin(self.below.discard(request.offset, request.len)).await
    }

    /// Delays and fails as the rules say; what is left of the verdict is the caller's.
    async fn admit(
        &self,
        operation: Operation,
        request: Request<'_>,
    ) -> Result<Verdict, DeviceError> {
        let range = (operation != Operation::Flush).then_some((request.offset, request.len));
        let verdict = self.shared.rules.borrow_mut().judge(operation, range);
        if verdict.delay > Duration::ZERO {
            self.shared.count(|counts| counts.delayed += 1);
            sleep(verdict.delay).await;
        }
        match verdict.failure {
            None => Ok(verdict),
            Some(failure) => {
                self.shared.count(|counts| counts.failed += 1);
                Err(request.failed(failure.to_io()))
            }
        }
    }

    async fn is_to_be_written(
        &self,
        operation: Operation,
        request: Request<'_>,
    ) -> Result<bool, DeviceError> {
        let is_lost = self.admit(operation, request).await?.is_lost;
        self.shared.count(|counts| {
            if is_lost {
                counts.lost += 1;
            } else {
                counts.passed += 1;
            }
        });
        Ok(!is_lost)
    }

    fn flip(&self, data: ReadBuffer, start: ByteOffset, flips: &[(ByteOffset, u8)]) -> ReadBuffer {
        if flips.is_empty() {
            return data;
        }
        let mut flipped = Buffer::zeroed(data.len());
        flipped.copy_from_slice(&data);
        for (at, mask) in flips {
            let index = at
                .get()
                .checked_sub(start.get())
                .map(|index| ByteLen::new(index).as_usize());
            if let Some(byte) = index.and_then(|index| flipped.get_mut(index)) {
                *byte ^= mask;
                self.shared.count(|counts| counts.flipped += 1);
            }
        }
        flipped.into()
    }
}

#[cfg(test)]
mod tests {
    use crate::device::Device;
    use crate::error::DeviceError;
    use crate::fault::{Failure, FaultControl, FaultCounts, FaultPlan, FaultRule};
    use crate::operation::{Operation, Operations};
    use ogee_proto::unit::{ByteLen, ByteOffset};
    use ogee_runtime::{Buffer, executor, now};
    use std::io;
    use std::time::Duration;

    const BLOCK: ByteLen = ByteLen::new(4096);

    fn at(block: u64) -> ByteOffset {
        ByteOffset::new(block * BLOCK.get())
    }

    fn filled(byte: u8) -> Buffer {
        let mut buffer = Buffer::zeroed(4096);
        buffer.fill(byte);
        buffer
    }

    /// The device below as well, to see what reached it.
    fn faulty(plan: impl Into<FaultPlan>) -> (Device, FaultControl, Device) {
        let below = Device::memory(ByteLen::new(1 << 20));
        let (device, control) = Device::fault(below.clone(), plan.into());
        (device, control, below)
    }

    fn assert_eio(result: Result<(), DeviceError>, expected: Operation) {
        match result.expect_err("injected") {
            DeviceError::Io {
                operation, source, ..
            } => {
                assert_eq!(operation, expected);
                assert_eq!(source.raw_os_error(), Some(libc::EIO));
            }
            error => panic!("{error}"),
        }
    }

    #[test]
    fn the_nth_request_fails_and_only_that() {
        executor::block_on(async {
            let rule = FaultRule::fail(Operation::WriteDurable, Failure::Eio)
                .after(1)
                .times(1);
            let (device, control, below) = faulty(rule);
            device
                .write_durable(at(0), filled(1))
                .await
                .expect("the first");
            device.write(at(0), filled(2)).await.expect("another kind");
            assert_eio(
                device.write_durable(at(1), filled(3)).await,
                Operation::WriteDurable,
            );
            device
                .write_durable(at(2), filled(4))
                .await
                .expect("the third");
            assert_eq!(below.counters().writes, 3);
            assert_eq!(
                below.read(at(1), BLOCK).await.expect("read")[0],
                0,
                "nothing written"
            );
            let expected = FaultCounts {
                passed: 3,
                failed: 1,
                ..FaultCounts::default()
            };
            assert_eq!(control.counts(), expected);
            assert_eq!(device.counters().failures, 1);
        });
    }

    #[test]
    fn a_range_is_hit_by_whatever_overlaps_it() {
        executor::block_on(async {
            let rule = FaultRule::fail(Operation::Read, Failure::Eio).within(at(4), BLOCK);
            let (device, control, _) = faulty(rule);
            let two = ByteLen::new(8192);
            for (block, hit) in [(2, false), (3, true), (4, true), (5, false)] {
                let result = device.read(at(block), two).await.map(|_| ());
                if hit {
                    assert_eio(result, Operation::Read);
                } else {
                    result.expect("outside");
                }
            }
            device.flush().await.expect("a flush has no range");
            assert_eq!(control.counts().failed, 2);
        });
    }

    #[test]
    fn a_failed_flush_leaves_the_data_in_doubt() {
        executor::block_on(async {
            let (below, memory) = Device::memory_with_control(ByteLen::new(1 << 20));
            let rule = FaultRule::fail(Operation::Flush, Failure::Eio).times(1);
            let (device, _) = Device::fault(below, rule.into());
            device.write(at(0), filled(1)).await.expect("write");
            assert_eio(device.flush().await, Operation::Flush);
            assert_eq!(memory.unflushed_sectors(), 8);
        });
    }

    #[test]
    fn no_space_has_its_own_error() {
        executor::block_on(async {
            let (device, _, _) = faulty(FaultRule::fail(Operations::WRITES, Failure::Enospc));
            let error = device.write(at(3), filled(1)).await.expect_err("injected");
            assert!(
                matches!(&error, DeviceError::NoSpace { offset, len, .. }
                    if *offset == at(3) && *len == BLOCK),
                "{error}"
            );
        });
    }

    #[test]
    fn one_bit_is_flipped_in_what_is_read_and_not_in_what_is_stored() {
        executor::block_on(async {
            let spot = ByteOffset::new(2 * 4096 + 77);
            let (device, control, below) = faulty(FaultRule::flip_bit(spot, 3).times(1));
            device.write(at(2), filled(0xf0)).await.expect("write");
            device.read(at(0), BLOCK).await.expect("elsewhere");
            let hit = device
                .read(at(1), ByteLen::new(3 * 4096))
                .await
                .expect("read");
            let changed: Vec<usize> = (4096..8192).filter(|index| hit[*index] != 0xf0).collect();
            assert_eq!(
                (changed.as_slice(), hit[4096 + 77]),
                ([4096 + 77].as_slice(), 0xf8)
            );
            assert_eq!(control.counts().flipped, 1);
            for device in [device, below] {
                let sound = device.read(at(2), BLOCK).await.expect("read");
                assert!(sound.iter().all(|byte| *byte == 0xf0));
            }
        });
    }

    #[test]
    fn a_lost_write_says_ok_and_does_nothing() {
        executor::block_on(async {
            let (device, control, below) = faulty(FaultRule::lose_writes().after(1).times(1));
            device.write(at(0), filled(1)).await.expect("kept");
            device
                .write_durable(at(0), filled(2))
                .await
                .expect("lost, and says nothing");
            assert_eq!(device.read(at(0), BLOCK).await.expect("read")[0], 1);
            assert_eq!((control.counts().lost, below.counters().writes), (1, 1));
        });
    }

    #[test]
    fn a_delay_holds_a_request_back() {
        executor::block_on(async {
            let delay = Duration::from_millis(30);
            let (device, control, _) = faulty(FaultRule::delay(Operation::Read, delay));
            let start = now();
            device.read(at(0), BLOCK).await.expect("read");
            assert!(now() - start >= delay);
            assert_eq!(control.counts().delayed, 1);
        });
    }

    #[test]
    fn rules_come_and_go_at_run_time() {
        executor::block_on(async {
            let (device, control, _) = faulty(FaultPlan::new());
            device.flush().await.expect("no rule yet");
            let all = control.add(FaultRule::fail(Operations::ALL, Failure::Eio));
            let reads = control.add(FaultRule::fail(Operation::Read, Failure::Enospc));
            assert_eio(device.flush().await, Operation::Flush);
            assert_eio(device.discard(at(0), BLOCK).await, Operation::Discard);
            assert_eq!((control.hits(all), control.hits(reads)), (2, 0));
            control.remove(all);
            device.flush().await.expect("gone");
            device
                .read(at(0), BLOCK)
                .await
                .expect_err("the other one stays");
            control.clear();
            device.read(at(0), BLOCK).await.expect("all gone");
        });
    }

    #[test]
    fn decorators_stack() {
        executor::block_on(async {
            let (inner, lower, _) = faulty(FaultRule::fail(Operation::Read, Failure::Eio).times(1));
            let (device, upper) = Device::fault(
                inner,
                FaultRule::fail(Operation::Read, Failure::Eio)
                    .times(1)
                    .into(),
            );
            for _ in 0..2 {
                assert_eio(device.read(at(0), BLOCK).await.map(|_| ()), Operation::Read);
            }
            device.read(at(0), BLOCK).await.expect("both spent");
            assert_eq!((upper.counts().failed, lower.counts().failed), (1, 1));
        });
    }

    #[test]
    fn injected_errors_are_what_the_system_gives() {
        assert_eq!(Failure::Enospc.to_io().kind(), io::ErrorKind::StorageFull);
        assert_eq!(Failure::Eio.to_io().raw_os_error(), Some(libc::EIO));
    }
}
