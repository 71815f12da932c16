//! The test's hand on a memory device.

use super::backend::MemoryDevice;
use super::random::Dice;
use crate::device::Device;
use std::fmt;
use std::rc::Rc;

/// Which unflushed sectors a crash leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survivors {
    /// None: only what was durable.
    None,
    /// All: as if power had failed after the last flush.
    All,
    /// Each sector by a choice that the seed makes: its durable version or any later one. How often
    /// it is a later one also depends on the seed: seldom, half of the time, or mostly.
    Seeded(u64),
}

/// Makes a memory device crash, as often as wanted.
#[derive(Clone)]
pub struct MemoryControl {
    memory: Rc<MemoryDevice>,
}

impl MemoryControl {
    pub(crate) const fn new(memory: Rc<MemoryDevice>) -> Self {
        Self { memory }
    }

    /// A new device that holds what a power cut at this moment would leave.
    ///
    /// The device itself goes on undisturbed, so one state can be cut in many ways; a test that
    /// means the crash stops using it.
    #[must_use]
    pub fn crash(&self, survivors: Survivors) -> (Device, Self) {
        let crashed = match survivors {
            Survivors::None => self.memory.crashed(|_| 0),
            Survivors::All => self.memory.crashed(|versions| versions),
            Survivors::Seeded(seed) => self.memory.crashed(seeded(seed)),
        };
        Device::over_memory(Rc::new(crashed))
    }

    /// Addresses and lengths of the pieces of memory that the newest write was given: whether it was copied on its way.
    #[must_use]
    pub fn written_from(&self) -> Vec<(usize, usize)> {
        self.memory.written_from()
    }

    /// Sectors (of 512 bytes) whose newest contents a crash could lose.
    #[must_use]
    pub fn unflushed_sectors(&self) -> usize {
        self.memory.unflushed()
    }
}

/// Picks a version per sector. An even coin alone would hardly ever leave a long write whole, or
/// lose it whole, and both are what a real drive mostly does.
fn seeded(seed: u64) -> impl FnMut(usize) -> usize {
    let mut dice = Dice::new(seed);
    let kept_of_sixteen = [1, 8, 15][dice.below(3)];
    move |versions| {
        if dice.below(16) < kept_of_sixteen {
            1 + dice.below(versions)
        } else {
            0
        }
    }
}

impl fmt::Debug for MemoryControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryControl")
            .field("unflushed_sectors", &self.unflushed_sectors())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{MemoryControl, Survivors};
    use crate::device::Device;
    use crate::limit::CRASH_SECTOR;
    use ogee_proto::unit::{ByteLen, ByteOffset};
    use ogee_runtime::{Buffer, executor};
    use std::collections::BTreeSet;
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    const BLOCK: ByteLen = ByteLen::new(4096);
    const START: ByteOffset = ByteOffset::ZERO;

    fn device() -> (Device, MemoryControl) {
        Device::memory_with_control(ByteLen::new(64 << 10))
    }

    fn filled(byte: u8) -> Buffer {
        let mut buffer = Buffer::zeroed(4096);
        buffer.fill(byte);
        buffer
    }

    /// The byte that each sector of the first block is filled with, after a crash.
    async fn sectors_after(control: &MemoryControl, survivors: Survivors) -> Vec<u8> {
        let (device, _) = control.crash(survivors);
        let data = device.read(START, BLOCK).await.expect("read");
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

    #[test]
    fn unflushed_writes_may_be_lost_and_flushed_ones_may_not() {
        executor::block_on(async {
            let (device, control) = device();
            device.write(START, filled(1)).await.expect("write");
            assert_eq!(control.unflushed_sectors(), 8);
            assert_eq!(sectors_after(&control, Survivors::None).await, [0; 8]);
            assert_eq!(sectors_after(&control, Survivors::All).await, [1; 8]);
            device.flush().await.expect("flush");
            assert_eq!(control.unflushed_sectors(), 0);
            assert_eq!(sectors_after(&control, Survivors::None).await, [1; 8]);
        });
    }

    #[test]
    fn seeds_tear_a_write_between_its_sectors_and_repeat_themselves() {
        executor::block_on(async {
            let (device, control) = device();
            device.write_durable(START, filled(1)).await.expect("write");
            device.write(START, filled(2)).await.expect("write");
            device.write(START, filled(3)).await.expect("write");
            let mut outcomes = BTreeSet::new();
            for seed in 0..64 {
                let outcome = sectors_after(&control, Survivors::Seeded(seed)).await;
                assert!(
                    outcome.iter().all(|byte| (1..=3).contains(byte)),
                    "{outcome:?}"
                );
                assert_eq!(
                    outcome,
                    sectors_after(&control, Survivors::Seeded(seed)).await
                );
                outcomes.insert(outcome);
            }
            let seen: BTreeSet<u8> = outcomes.iter().flatten().copied().collect();
            assert_eq!(
                seen,
                [1, 2, 3].into(),
                "every version is a possible survivor"
            );
            assert!(
                outcomes.len() > 32,
                "seeds differ: {} outcomes",
                outcomes.len()
            );
        });
    }

    #[test]
    fn a_durable_write_says_nothing_about_other_sectors() {
        executor::block_on(async {
            let (device, control) = device();
            device.write(START, filled(1)).await.expect("write");
            device
                .write_durable(ByteOffset::new(4096), filled(2))
                .await
                .expect("write");
            assert_eq!(sectors_after(&control, Survivors::None).await, [0; 8]);
        });
    }

    #[test]
    fn a_durable_write_ends_the_doubt_about_what_it_covers() {
        executor::block_on(async {
            let (device, control) = device();
            device.write(START, filled(1)).await.expect("write");
            device.write_durable(START, filled(2)).await.expect("write");
            for seed in 0..16 {
                assert_eq!(
                    sectors_after(&control, Survivors::Seeded(seed)).await,
                    [2; 8]
                );
            }
        });
    }

    #[test]
    fn a_discard_is_volatile_too() {
        executor::block_on(async {
            let (device, control) = device();
            device.write_durable(START, filled(1)).await.expect("write");
            device.discard(START, BLOCK).await.expect("discard");
            assert_eq!(sectors_after(&control, Survivors::None).await, [1; 8]);
            device.flush().await.expect("flush");
            assert_eq!(sectors_after(&control, Survivors::None).await, [0; 8]);
        });
    }

    /// Submits a request and leaves it in flight.
    async fn submit<F: Future>(mut request: Pin<&mut F>) {
        poll_fn(|context| {
            assert!(
                request.as_mut().poll(context).is_pending(),
                "returned at once"
            );
            Poll::Ready(())
        })
        .await;
    }

    /// A flush covers what was submitted before it began, exactly: a write that overtakes it stays
    /// in doubt, and what it overwrote does not.
    #[test]
    fn a_flush_covers_what_came_before_it() {
        executor::block_on(async {
            let (device, control) = device();
            device.write(START, filled(1)).await.expect("write");
            let mut flush = pin!(device.flush());
            submit(flush.as_mut()).await;
            assert_eq!(sectors_after(&control, Survivors::None).await, [0; 8]);
            device.write(START, filled(2)).await.expect("write");
            flush.await.expect("flush");
            assert_eq!(sectors_after(&control, Survivors::None).await, [1; 8]);
            assert_eq!(sectors_after(&control, Survivors::All).await, [2; 8]);
        });
    }

    /// The moment between submission and return: a durable write may then be torn.
    #[test]
    fn a_crash_may_tear_a_durable_write_in_flight() {
        executor::block_on(async {
            let (device, control) = device();
            let mut write = pin!(device.write_durable(START, filled(9)));
            submit(write.as_mut()).await;
            assert_eq!(sectors_after(&control, Survivors::None).await, [0; 8]);
            let is_torn = |sectors: &[u8]| sectors.contains(&0) && sectors.contains(&9);
            let mut torn = 0;
            for seed in 0..16 {
                let sectors = sectors_after(&control, Survivors::Seeded(seed)).await;
                torn += u32::from(is_torn(&sectors));
            }
            assert!(torn > 0, "no seed tears it");
            write.await.expect("write");
            assert_eq!(sectors_after(&control, Survivors::None).await, [9; 8]);
        });
    }

    #[test]
    fn the_crashed_device_is_another_one() {
        executor::block_on(async {
            let (device, control) = device();
            device.write_durable(START, filled(1)).await.expect("write");
            let (crashed, _) = control.crash(Survivors::All);
            crashed
                .write_durable(START, filled(7))
                .await
                .expect("write");
            assert_eq!(device.read(START, BLOCK).await.expect("read")[0], 1);
            assert_eq!(crashed.len(), device.len());
        });
    }
}
