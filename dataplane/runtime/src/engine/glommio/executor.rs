//! One executor on io_uring.
//!
//! **Place.** Under `crate::executor`, which owns the thread. **Owner.** The thread that made it.
//!
//! **Invariants.** Memory locked by registration stays within `limit::MEMLOCK_BUDGET`. The first
//! sleep, always late, is spent before the main future starts. No sleep is much longer than
//! `limit::SENTRY_INTERVAL`, from the first turn to the last one. When the main future is done all
//! tasks are cancelled and the rings run once more, so that files and sockets are closed.
//!
//! **Failure.** A machine that cannot run io_uring is an error that says why; the engine itself
//! would exit or panic.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use ::glommio::{LocalExecutor, LocalExecutorBuilder};

use super::error::into_io;
use super::nudge::Nudge;
use super::{sys, timer};
use crate::executor::Placement;
use crate::limit::{
    MEMLOCK_MIN, PREEMPT_INTERVAL, REGISTERED_MEMORY, RING_DEPTH, SENTRIES, SENTRY_INTERVAL,
};
use crate::task;

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Long enough that the executor goes to sleep over it: its first sleep registers the process for
/// memory barriers, which takes the kernel some 20 ms.
const WARM_UP: Duration = Duration::from_micros(200);

/// Turns of the rings at shutdown: one submits the closes, one reaps them.
const SHUTDOWN_TURNS: usize = 2;

/// What the public builder asks for.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) placement: Placement,
    pub(crate) spin_before_park: Duration,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("this kernel has no io_uring; Linux 5.8 or later is needed")]
    NoIoUring,
    #[error(
        "io_uring is forbidden here: check kernel.io_uring_disabled and the container's seccomp \
         profile"
    )]
    Forbidden,
    #[error("io_uring cannot lock memory: raise RLIMIT_MEMLOCK (ulimit -l) to 8 MiB")]
    LockedMemory,
}

/// An executor bound to the current thread.
pub(crate) struct Executor {
    local: LocalExecutor,
}

impl Executor {
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        sys::check_io_uring().map_err(explain_start)?;
        if sys::memlock_limit()? < MEMLOCK_MIN as u64 {
            return Err(refused(StartError::LockedMemory));
        }
        let placement = match config.placement {
            Placement::Unbound => ::glommio::Placement::Unbound,
            Placement::Cpu(cpu) => ::glommio::Placement::Fixed(cpu),
        };
        let local = LocalExecutorBuilder::new(placement)
            .name(&config.name)
            .io_memory(REGISTERED_MEMORY)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT_INTERVAL)
            .spin_before_park(config.spin_before_park)
            .make()
            .map_err(explain_make)?;
        Ok(Self { local })
    }

    /// Runs `main` to its end, then ends all tasks that it left.
    pub(crate) fn run<F: Future>(&self, main: F) -> F::Output {
        let _running = Running::enter();
        let nudge = Nudge::begin();
        self.local.run(async move {
            // From here on there are timers.
            drop(nudge);
            post_sentries();
            watched(timer::Timer::new(timer::now() + WARM_UP)).await;
            let output = task::run_root(main).await;
            watched(wind_down()).await;
            output
        })
    }
}

/// Ends all tasks, the sentries among them, and lets the rings close what they held.
async fn wind_down() {
    task::cancel_all();
    for _ in 0..SHUTDOWN_TURNS {
        timer::yield_now().await;
    }
}

/// Runs `future` where no sentries are posted: before they have started, or after they were ended.
/// Timers of the task itself take their place.
async fn watched<F: Future>(future: F) -> F::Output {
    let start = timer::now();
    let at = |number| timer::Timer::new(start + SENTRY_INTERVAL * number);
    let mut timers: Vec<_> = (1..=SENTRIES).map(at).collect();
    let mut future = pin!(future);
    poll_fn(|cx| {
        for timer in &mut timers {
            // A new timer is pending at its first poll, which registers it.
            while Pin::new(&mut *timer).poll(cx).is_ready() {
                *timer = timer::Timer::new(timer::now() + SENTRY_INTERVAL * SENTRIES);
            }
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// Keeps the executor from sleeping for long.
///
/// When the preemption timer expires after the rings were polled but before the first task ran, the
/// engine takes the turn for an empty one and goes to sleep, although tasks are queued. Only an
/// event of the rings ends that sleep, and there may never be one. A sentry's timer is such an
/// event. Several take turns, because the one whose turn it is may be in the forgotten queue.
fn post_sentries() {
    let start = timer::now();
    for number in 0..SENTRIES {
        let mut at = start + SENTRY_INTERVAL * number;
        drop(task::spawn(async move {
            loop {
                at = (at + SENTRY_INTERVAL * SENTRIES).max(timer::now());
                timer::Timer::new(at).await;
            }
        }));
    }
}

/// Whether this thread is inside [`Executor::run`].
pub(super) fn is_running() -> bool {
    IS_RUNNING.get()
}

/// Hands a future to the current executor, which polls it in a later turn.
///
/// The engine would poll it inside of this call, where the caller may hold what the future needs.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    assert!(is_running(), "spawn outside of an executor");
    let later = async {
        requeue().await;
        future.await;
    };
    drop(::glommio::spawn_local(later).detach());
}

/// Goes to the end of the run queue; no more than that, unlike [`timer::yield_now`].
async fn requeue() {
    let mut is_queued = false;
    poll_fn(|cx| {
        if is_queued {
            return Poll::Ready(());
        }
        is_queued = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

struct Running;

impl Running {
    fn enter() -> Self {
        assert!(
            !IS_RUNNING.replace(true),
            "an executor already runs on this thread"
        );
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        IS_RUNNING.set(false);
    }
}

fn explain_start(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => refused(StartError::NoIoUring),
        Some(libc::EPERM | libc::EACCES) => refused(StartError::Forbidden),
        Some(libc::ENOMEM) => refused(StartError::LockedMemory),
        _ => error,
    }
}

fn explain_make(error: ::glommio::GlommioError<()>) -> io::Error {
    explain_start(into_io(error))
}

fn refused(cause: StartError) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, cause)
}
