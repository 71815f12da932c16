//! Starting and stopping a chunkserver.

use crate::config::ChunkserverConfig;
use crate::control::{ControlSetup, run};
use crate::error::ShardError;
use tokio::sync::watch;

/// A chunkserver, ready to run.
#[derive(Debug)]
pub struct Chunkserver {
    config: ChunkserverConfig,
    stop: watch::Receiver<bool>,
}

/// Ends a running chunkserver gracefully. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct StopHandle {
    stop: watch::Sender<bool>,
}

impl StopHandle {
    /// Asks for the end: leaders move, a last checkpoint is made, sockets close.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Chunkserver {
    /// A chunkserver and the handle that ends it.
    #[must_use]
    pub fn new(config: ChunkserverConfig) -> (Self, StopHandle) {
        let (sender, stop) = watch::channel(false);
        (Self { config, stop }, StopHandle { stop: sender })
    }

    /// Runs until stopped; `ready` is called once every shard serves. The calling thread becomes
    /// the control thread.
    ///
    /// # Errors
    /// [`ShardError`]: why it did not start, or which shard ended.
    pub fn run(self, ready: impl FnOnce() + Send + 'static) -> Result<(), ShardError> {
        start_nvme(&self.config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|source| ShardError::Thread {
            what: "the control thread",
            source,
        })?;
        let setup = ControlSetup {
            config: self.config,
            stop: self.stop,
            ready: Box::new(ready),
        };
        let outcome = runtime.block_on(run(setup));
        // A drive that is asked how it fares, and does not answer, is not waited for.
        runtime.shutdown_background();
        outcome
    }
}

/// Before any shard: what drives need is started once, for all that the configuration names and no others.
fn start_nvme(config: &ChunkserverConfig) -> Result<(), ShardError> {
    let drives = config.stores.iter().filter_map(|store| store.nvme.clone());
    let drives: Vec<_> = drives.collect();
    let started = ogee_device::nvme::start(&drives);
    started.map_err(|source| ShardError::Device {
        path: drives
            .first()
            .map_or_else(Default::default, |first| first.to_string().into()),
        source,
    })
}
