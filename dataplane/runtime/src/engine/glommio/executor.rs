//! One executor on io_uring.
//!
//! **Place.** Under `crate::executor`, which owns the thread. **Owner.** The thread that made it.
//!
//! **Invariants.** Memory locked by registration stays within `limit::MEMLOCK_BUDGET`. The engine schedules tasks, `driver`
//! does all I/O: the engine's own rings are entered when it begins and every `limit::PREEMPT_INTERVAL` from then on. When
//! the main future is done all tasks are cancelled and the ring runs until nothing is in flight, so that files and
//! sockets are closed.
//!
//! **Failure.** A machine that cannot run io_uring is an error that says why; the engine itself
//! would exit or panic.

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ::glommio::{LocalExecutor, LocalExecutorBuilder};

use super::driver::Driver;
use super::error::into_io;
use super::sys;
use crate::executor::Placement;
use crate::limit::{ENGINE_RING_DEPTH, MEMLOCK_MIN, PREEMPT_INTERVAL, REGISTERED_MEMORY};
use crate::task;

/// Rounds of the run queue at the end: cancelled tasks run once more, and what they wake.
const LAST_ROUNDS: usize = 2;

/// What the public builder asks for.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) placement: Placement,
    pub(crate) spin_before_park: Duration,
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("this kernel has no io_uring as it is needed; Linux 5.11 or later has")]
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
    driver: Rc<Driver>,
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
            .ring_depth(ENGINE_RING_DEPTH)
            .preempt_timer(PREEMPT_INTERVAL)
            .make()
            .map_err(explain_make)?;
        let driver = Driver::new(config.spin_before_park).map_err(explain_start)?;
        Ok(Self { local, driver })
    }

    /// Runs `main` to its end, then ends all tasks that it left.
    pub(crate) fn run<F: Future>(&self, main: F) -> F::Output {
        let _entered = self.driver.enter();
        let driver = Rc::clone(&self.driver);
        self.local.run(async {
            drop(::glommio::spawn_local(begin(Rc::clone(&driver))).detach());
            let output = Rc::clone(&driver).noticed(task::run_root(main)).await;
            Rc::clone(&driver).noticed(wind_down()).await;
            driver.stop();
            output
        })
    }
}

/// The driver's task. The engine polls a task inside of the call that spawns it: too early to sleep.
async fn begin(driver: Rc<Driver>) {
    requeue().await;
    driver.drive().await;
}

/// Ends all tasks and lets them know.
async fn wind_down() {
    task::cancel_all();
    for _ in 0..LAST_ROUNDS {
        requeue().await;
    }
}

/// Whether this thread is inside [`Executor::run`].
pub(super) fn is_running() -> bool {
    Driver::is_running()
}

/// Hands a future to the current executor, which polls it in a later turn.
///
/// The engine would poll it inside of this call, where the caller may hold what the future needs.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    assert!(is_running(), "spawn outside of an executor");
    let driver = Driver::current();
    let later = async {
        requeue().await;
        driver.noticed(future).await;
    };
    drop(::glommio::spawn_local(later).detach());
}

/// Goes to the end of the run queue; no more than that, unlike a yield.
pub(super) async fn requeue() {
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
