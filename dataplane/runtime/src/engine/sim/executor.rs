//! The loop of a simulated world.
//!
//! **Place.** Under `crate::executor`. **Owner.** The thread that runs it.
//!
//! **Invariants.** One task runs at a time, to its next await; which one is drawn by seed. It runs as
//! the host that spawned it. When the main future is done all tasks are cancelled.
//!
//! **Failure.** A panic inside names the seed on its way out.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::host::HostId;
use super::world::{self, Entered, Requeue, TaskId, World};
use crate::executor::Placement;
use crate::task::{self, JoinHandle};

/// Environment variable with the seed of worlds that are not given one.
const SEED_VARIABLE: &str = "OGEE_SIM_SEED";

/// The main future's number.
const MAIN: TaskId = 0;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A task of a host; nothing is left of it while it is polled and after its end.
struct Slot {
    host: HostId,
    body: Option<(Task, Waker)>,
}

thread_local! {
    /// By number.
    static TASKS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// What the public builder asks for; a simulated shard has no processor to bind or spin.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) placement: Placement,
    pub(crate) spin_before_park: Duration,
}

/// A world that is about to begin.
pub(crate) struct Executor {
    seed: u64,
}

/// Runs `future` in a fresh world made from `seed`.
///
/// # Panics
/// If the world gets stuck, or an executor already runs on this thread.
pub fn block_on_seeded<F: Future>(seed: u64, future: F) -> F::Output {
    Executor { seed }.run(future)
}

/// Starts a task of a host; everything that it spawns is of that host, too.
pub fn spawn_on<F>(host: HostId, future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let world = world::current();
    let caller = world.enter_host(host);
    let handle = task::spawn(future);
    world.enter_host(caller);
    handle
}

/// Starts a task.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    let world = world::current();
    let (ready, host) = (Arc::clone(&world.ready), world.host());
    TASKS.with_borrow_mut(|tasks| {
        let number = tasks.len();
        let waker = Waker::from(Arc::new(Requeue {
            task: number,
            ready: Arc::clone(&ready),
        }));
        let body = Some((Box::pin(future) as Task, waker));
        tasks.push(Slot { host, body });
        ready.push(number);
    });
}

impl Executor {
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        tracing::debug!(
            name = config.name,
            placement = ?config.placement,
            spin = ?config.spin_before_park,
            "a simulated shard"
        );
        let seed = std::env::var(SEED_VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok());
        Ok(Self {
            seed: seed.unwrap_or(0),
        })
    }

    pub(crate) fn run<F: Future>(&self, main: F) -> F::Output {
        let world = World::new(self.seed);
        let _entered = Entered::new(Rc::clone(&world));
        let _named = NameSeedOnPanic(self.seed);
        // Number zero, so that spawned tasks start at one.
        TASKS.set(vec![Slot {
            host: HostId::WORLD,
            body: None,
        }]);
        let output = drive(&world, main);
        task::cancel_all();
        // Also drops the drivers of the cancelled tasks, which own nothing any more.
        let rest = TASKS.take();
        drop(rest);
        output
    }
}

fn drive<F: Future>(world: &Rc<World>, main: F) -> F::Output {
    let mut main = pin!(task::run_root(main));
    let waker = Waker::from(Arc::new(Requeue {
        task: MAIN,
        ready: Arc::clone(&world.ready),
    }));
    world.ready.push(MAIN);
    loop {
        match world.ready.draw(|count| world.below(count)) {
            None => world.advance(),
            Some(MAIN) => {
                world.polled(MAIN);
                let polled = main.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(output) = polled {
                    return output;
                }
            }
            Some(number) => poll_task(world, number),
        }
    }
}

fn poll_task(world: &World, number: TaskId) {
    let host = TASKS.with_borrow(|tasks| tasks[number].host);
    if world.park_if_stopped(host, number) {
        return;
    }
    let taken = TASKS.with_borrow_mut(|tasks| tasks[number].body.take());
    // A late waker of a task that has ended.
    let Some((mut future, waker)) = taken else {
        return;
    };
    world.polled(number);
    let caller = world.enter_host(host);
    if future
        .as_mut()
        .poll(&mut Context::from_waker(&waker))
        .is_pending()
    {
        TASKS.with_borrow_mut(|tasks| tasks[number].body = Some((future, waker)));
    }
    world.enter_host(caller);
}

struct NameSeedOnPanic(u64);

impl Drop for NameSeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the simulation panicked: replay with {SEED_VARIABLE}={}",
                self.0
            );
        }
    }
}
