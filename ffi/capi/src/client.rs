//! A client: the metadata servers, and the thread that does the I/O of its volumes.
//!
//! *Place*: under the calls, over `volume`. *Owner*: the registry; the thread belongs to it.
//! *Invariants*: it is not closed while volumes are open or being opened, or memory is registered. *On failure*: without io_uring or
//! memory for its rings it does not open, and says what is missing.

use crate::abi::OgeeStatus;
use crate::failure::Failure;
use crate::limit::ORDERS_MAX;
use crate::threads::{block_on, without_signals};
use crate::uses::Uses;
use crate::volume::{self, Open, Volume};
use ogee_client::{MdsConfig, MdsHandle, OpenOptions};
use ogee_runtime::executor::{ShardBuilder, ShardHandle};
use ogee_runtime::{bridge, spawn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// A client.
pub(crate) struct Client {
    /// Tells it from every other one of the process.
    number: u64,
    host: String,
    uses: Uses,
    running: Mutex<Option<Running>>,
}

struct Running {
    orders: bridge::Sender<Open>,
    thread: ShardHandle<()>,
}

/// A volume of it is open, or being opened, or memory is registered with it.
pub(crate) struct ClientUse(Arc<Client>);

impl Client {
    /// Starts the threads. Connects when the first volume is opened.
    pub(crate) fn open(mds: &str, host: String) -> Result<Self, Failure> {
        let addresses = mds.split(',').map(str::trim);
        let addresses = addresses.filter(|address| !address.is_empty());
        let config = MdsConfig::new(addresses.map(str::to_owned).collect());
        let (orders, received) = bridge::channel(ORDERS_MAX);
        let thread = without_signals(|| {
            let mds = MdsHandle::start(config).map_err(|error| Failure::control(&error))?;
            let builder = ShardBuilder::new("ogee-io");
            let started = builder.start(move || serve(mds, received));
            started.map_err(|error| Failure::system("cannot start the I/O thread", &error))
        })?;
        Ok(Self {
            number: CLIENTS.fetch_add(1, Ordering::Relaxed),
            host,
            uses: Uses::new(),
            running: Mutex::new(Some(Running { orders, thread })),
        })
    }

    /// Attaches a volume.
    pub(crate) fn open_volume(
        self: &Arc<Self>,
        name: String,
        mut options: OpenOptions,
        depth: usize,
    ) -> Result<Volume, Failure> {
        let client = self.take()?;
        options.host.clone_from(&self.host);
        let orders = self
            .running()
            .as_ref()
            .map(|running| running.orders.clone());
        let (reply, mut opened) = bridge::channel(1);
        let open = Open {
            name,
            options,
            depth,
            client,
            reply,
        };
        block_on(async {
            let sent = orders.ok_or_else(closed)?.send(open).await;
            sent.map_err(|_| Failure::stopped())?;
            opened.recv().await.ok_or_else(Failure::stopped)?
        })
    }

    /// For something of it.
    pub(crate) fn take(self: &Arc<Self>) -> Result<ClientUse, Failure> {
        match self.uses.take() {
            true => Ok(ClientUse(Arc::clone(self))),
            false => Err(closed()),
        }
    }

    /// From here on nothing can be opened.
    pub(crate) fn retire(&self) -> Result<(), Failure> {
        self.uses.retire().map_err(|uses| {
            let what = format!("{uses} volumes and registrations of memory of the client are open");
            Failure::new(OgeeStatus::Busy, &what, "close and unregister them first")
        })
    }

    /// Ends the thread; after [`Self::retire`].
    pub(crate) fn stop(&self) -> Result<(), Failure> {
        let running = self.running().take();
        let Some(Running { orders, thread }) = running else {
            return Ok(());
        };
        drop(orders);
        thread.join().map_err(|_panicked| Failure::stopped())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // Nothing that may panic runs under the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientUse {
    /// Whose.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }
}

impl Drop for ClientUse {
    fn drop(&mut self) {
        self.0.uses.give_back();
    }
}

fn closed() -> Failure {
    let what = "the client was closed meanwhile";
    Failure::new(OgeeStatus::Closed, what, "open it again")
}

/// The I/O thread: takes orders until the client is closed.
async fn serve(mds: MdsHandle, mut orders: bridge::Receiver<Open>) {
    while let Some(open) = orders.recv().await {
        // Bounded by the threads that wait for it, and by the handles there are.
        drop(spawn(volume::serve(mds.clone(), open)));
    }
}
