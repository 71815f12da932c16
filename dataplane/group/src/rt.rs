//! openraft's runtime on ours: thin wrappers, no behaviour of their own.
//!
//! *Place*: the only bridge between `openraft_rt`'s traits and `ogee_runtime`.
//! *Owner*: one shard; every channel is single-threaded.
//! *Invariants*: passes openraft-rt's own suite (`tests` below).
//! *On failure*: a cancelled task is a join error; nothing else fails.

use ogee_runtime::channel::{Closed, Mutex, MutexGuard, mpsc, oneshot, watch};
use ogee_runtime::{Cancelled, Elapsed, JoinHandle, Sleep, Timeout};
use openraft_rt::{AsyncRuntime, OptionalSend, OptionalSync};
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

/// openraft's runtime: the shard's executor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OgeeRuntime;

/// A moment of the shard's clock, which the simulator may own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RaftInstant(ogee_runtime::Instant);

impl RaftInstant {
    /// As everybody else counts.
    pub(crate) const fn into_inner(self) -> ogee_runtime::Instant {
        self.0
    }
}

impl openraft_rt::Instant for RaftInstant {
    fn now() -> Self {
        Self(ogee_runtime::now())
    }
}

impl Add<Duration> for RaftInstant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0 + rhs)
    }
}

impl AddAssign<Duration> for RaftInstant {
    fn add_assign(&mut self, rhs: Duration) {
        self.0 += rhs;
    }
}

impl Sub<Duration> for RaftInstant {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0 - rhs)
    }
}

impl SubAssign<Duration> for RaftInstant {
    fn sub_assign(&mut self, rhs: Duration) {
        self.0 -= rhs;
    }
}

impl Sub for RaftInstant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.0.saturating_duration_since(rhs.0)
    }
}

impl AsyncRuntime for OgeeRuntime {
    type JoinError = Cancelled;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = RaftInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = ShardRng;
    type Mpsc = RaftMpsc;
    type Watch = RaftWatch;
    type Oneshot = RaftOneshot;
    type Mutex<T: OptionalSend + 'static> = RaftMutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        ogee_runtime::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        ogee_runtime::sleep(duration)
    }

    fn sleep_until(deadline: RaftInstant) -> Sleep {
        ogee_runtime::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Timeout<F> {
        ogee_runtime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: RaftInstant,
        future: F,
    ) -> Timeout<F> {
        ogee_runtime::timeout_at(deadline.0, future)
    }

    fn is_panic(_error: &Cancelled) -> bool {
        false
    }

    fn thread_rng() -> ShardRng {
        ShardRng
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        ogee_runtime::executor::block_on(future)
    }
}

/// The shard's randomness, which the simulator may seed.
#[derive(Debug, Clone, Copy)]
pub struct ShardRng;

impl rand::rand_core::TryRng for ShardRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let [a, b, c, d, ..] = ogee_runtime::random_u64().to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(ogee_runtime::random_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for part in out.chunks_mut(8) {
            let random = ogee_runtime::random_u64().to_le_bytes();
            part.copy_from_slice(random.split_at(part.len()).0);
        }
        Ok(())
    }
}

/// One-shot channels.
pub struct RaftOneshot;
/// A one-shot channel's sending end.
pub struct OneshotSender<T>(oneshot::Sender<T>);

impl openraft_rt::Oneshot for RaftOneshot {
    type Sender<T: OptionalSend> = OneshotSender<T>;
    type Receiver<T: OptionalSend> = oneshot::Receiver<T>;
    type ReceiverError = Closed;

    fn channel<T: OptionalSend>() -> (OneshotSender<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (OneshotSender(sender), receiver)
    }
}

impl<T: OptionalSend> openraft_rt::OneshotSender<T> for OneshotSender<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// Bounded channels.
pub struct RaftMpsc;
/// A bounded channel's sending end.
pub struct MpscSender<T>(mpsc::Sender<T>);
/// A sending end that does not keep the channel open.
pub struct MpscWeakSender<T>(mpsc::WeakSender<T>);
/// A bounded channel's receiving end.
pub struct MpscReceiver<T>(mpsc::Receiver<T>);

impl<T> Clone for MpscSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for MpscWeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl openraft_rt::Mpsc for RaftMpsc {
    type Sender<T: OptionalSend> = MpscSender<T>;
    type Receiver<T: OptionalSend> = MpscReceiver<T>;
    type WeakSender<T: OptionalSend> = MpscWeakSender<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (MpscSender<T>, MpscReceiver<T>) {
        let (sender, receiver) = mpsc::channel(buffer);
        (MpscSender(sender), MpscReceiver(receiver))
    }
}

impl<T: OptionalSend> openraft_rt::MpscSender<RaftMpsc, T> for MpscSender<T> {
    async fn send(&self, value: T) -> Result<(), openraft_rt::SendError<T>> {
        self.0
            .send(value)
            .await
            .map_err(|error| openraft_rt::SendError(error.0))
    }

    fn downgrade(&self) -> MpscWeakSender<T> {
        MpscWeakSender(self.0.downgrade())
    }
}

impl<T: OptionalSend> openraft_rt::MpscWeakSender<RaftMpsc, T> for MpscWeakSender<T> {
    fn upgrade(&self) -> Option<MpscSender<T>> {
        self.0.upgrade().map(MpscSender)
    }
}

impl<T: OptionalSend> openraft_rt::MpscReceiver<T> for MpscReceiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, openraft_rt::TryRecvError> {
        self.0.try_recv().map_err(|error| match error {
            mpsc::TryRecvError::Empty => openraft_rt::TryRecvError::Empty,
            mpsc::TryRecvError::Disconnected => openraft_rt::TryRecvError::Disconnected,
        })
    }
}

/// Watch channels.
pub struct RaftWatch;
/// A watch channel's sending end.
pub struct WatchSender<T>(watch::Sender<T>);
/// A watch channel's receiving end.
pub struct WatchReceiver<T>(watch::Receiver<T>);

impl<T> Clone for WatchSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WatchReceiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl openraft_rt::Watch for RaftWatch {
    type Sender<T: OptionalSend + OptionalSync> = WatchSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = WatchReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (WatchSender<T>, WatchReceiver<T>) {
        let (sender, receiver) = watch::channel(init);
        (WatchSender(sender), WatchReceiver(receiver))
    }
}

impl<T> openraft_rt::WatchSender<RaftWatch, T> for WatchSender<T>
where
    T: OptionalSend + OptionalSync,
{
    fn send(&self, value: T) -> Result<(), openraft_rt::watch::SendError<T>> {
        self.0
            .send(value)
            .map_err(|error| openraft_rt::watch::SendError(error.0))
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> WatchReceiver<T> {
        WatchReceiver(self.0.subscribe())
    }
}

impl<T> openraft_rt::WatchReceiver<RaftWatch, T> for WatchReceiver<T>
where
    T: OptionalSend + OptionalSync,
{
    async fn changed(&mut self) -> Result<(), openraft_rt::watch::RecvError> {
        self.0
            .changed()
            .await
            .map_err(|Closed| openraft_rt::watch::RecvError(()))
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.0.borrow_and_update()
    }
}

/// A mutex whose waiters are served in order.
pub struct RaftMutex<T>(Mutex<T>);

impl<T: OptionalSend + 'static> openraft_rt::Mutex<T> for RaftMutex<T> {
    type Guard<'a> = MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    async fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::OgeeRuntime;

    #[test]
    fn passes_the_suite_of_openraft_rt() {
        openraft_rt::testing::Suite::<OgeeRuntime>::test_all();
    }
}
