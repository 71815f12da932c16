//! Threads that run executors.
//!
//! **Place.** The `ogee` binary starts its shards here; tests and tools use [`block_on`].
//!
//! **Owner.** Each shard owns its thread; the handle may live anywhere.
//!
//! **Invariants.** A started shard has its rings: what the machine lacks is known before
//! [`ShardBuilder::start`] returns. When the main future ends, the shard's other tasks are dropped.
//!
//! **Failure.** A panic ends the shard. With `panic = "abort"` the process ends; otherwise
//! [`ShardHandle::join`] returns it.

use std::any::Any;
use std::future::Future;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::engine::{Config, Executor};

#[cfg(ogee_sim)]
pub use crate::engine::block_on_seeded;

/// Where a shard's thread runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Wherever the kernel puts it.
    #[default]
    Unbound,
    /// On this processor only.
    Cpu(usize),
}

/// A shard's thread panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shard {name} panicked: {message}")]
pub struct ShardPanicked {
    /// Name of the shard.
    pub name: String,
    /// What the panic said.
    pub message: String,
}

/// Describes a shard to start.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until started"]
pub struct ShardBuilder {
    config: Config,
}

impl ShardBuilder {
    /// A shard whose thread carries `name` (the kernel shows its first 15 bytes).
    pub fn new(name: impl Into<String>) -> Self {
        let placement = Placement::default();
        Self {
            config: Config {
                name: name.into(),
                placement,
                spin_before_park: Duration::ZERO,
            },
        }
    }

    /// Where the thread runs.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.config.placement = placement;
        self
    }

    /// For how long a shard that has nothing to do looks for completions before it sleeps, where that has paid so far; zero:
    /// not at all. Trades processor time for latency; on a machine with one processor it is zero.
    pub fn spin_before_park(mut self, spin: Duration) -> Self {
        self.config.spin_before_park = spin;
        self
    }

    /// Starts the thread and runs the future that `main` makes there.
    ///
    /// # Errors
    /// If the thread or its rings cannot be made; the message says what the machine lacks.
    pub fn start<G, F, T>(self, main: G) -> io::Result<ShardHandle<T>>
    where
        G: FnOnce() -> F + Send + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let name = self.config.name.clone();
        let (ready, is_ready) = mpsc::channel();
        let run = move || {
            let executor = match Executor::new(&self.config) {
                Ok(executor) => executor,
                Err(error) => {
                    // The starter waits for this message, so it is there to hear it.
                    let _ = ready.send(Err(error));
                    return None;
                }
            };
            let _ = ready.send(Ok(()));
            Some(executor.run(async move { main().await }))
        };
        let thread = thread::Builder::new().name(name.clone()).spawn(run)?;
        match is_ready.recv() {
            Ok(outcome) => outcome.map(|()| ShardHandle { name, thread }),
            Err(_panicked) => {
                let panicked = ShardHandle { name, thread }.join().err();
                Err(panicked.map_or(io::ErrorKind::Other.into(), io::Error::other))
            }
        }
    }
}

/// A running shard. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct ShardHandle<T> {
    name: String,
    thread: thread::JoinHandle<Option<T>>,
}

impl<T> ShardHandle<T> {
    /// Waits, blocking the calling thread, until the shard's main future has ended.
    ///
    /// # Errors
    /// If the shard panicked.
    pub fn join(self) -> Result<T, ShardPanicked> {
        match self.thread.join() {
            Ok(output) => Ok(output.expect("invariant: a handle exists only if the shard ran")),
            Err(panic) => Err(ShardPanicked {
                name: self.name,
                message: describe(&*panic),
            }),
        }
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
        .to_owned()
}

/// Runs `future` on the calling thread, for tests and tools.
///
/// # Panics
/// If no executor can be made here, or one runs already.
pub fn block_on<F: Future>(future: F) -> F::Output {
    block_on_spinning(Duration::ZERO, future)
}

/// [`block_on`], with [`ShardBuilder::spin_before_park`].
///
/// # Panics
/// As [`block_on`].
pub fn block_on_spinning<F: Future>(spin: Duration, future: F) -> F::Output {
    let config = ShardBuilder::new("block_on").spin_before_park(spin).config;
    match Executor::new(&config) {
        Ok(executor) => executor.run(future),
        Err(error) => panic!("cannot start an executor: {error}"),
    }
}
